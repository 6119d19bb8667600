"""The life of a fleet, at random from a seed: who comes, goes, speaks and sleeps, and what breaks meanwhile."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest
from system.device import PATIENCE, Device
from system.server import Server
from system.witness import Witness

from brokerkm.core.state import State
from brokerkm.errors import EvictedError, TransportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
    from pathlib import Path

    from system.sites import Site

    from brokerkm.descriptor import Descriptor

SPEAKERS: Final = 3  # members that publish in each round
DELAYS: Final = (0.02, 0.3)  # seconds: what breaks does so while an urgent commit is made, or one that had to wait
FEWEST: Final = 10  # members that always stay
SHOWN: Final = 12  # devices in an error message
POLL: Final = 0.02  # seconds


class Story:
    """A server, its fleet and an eavesdropper at one site.

    Args:
        devices: all that ever take part, by name.

    Attributes:
        inside, asleep, outside, new: names of the members online, of the members offline, of those who are out, and
            of those who never joined.
    """

    def __init__(self, site: Site, directory: Path, names: Collection[str], seed: int) -> None:
        self.site: Final = site
        self.dice: Final = random.Random(seed)
        self.server: Final = Server(directory / "server", site.url, site.arguments)
        self.witness: Final = Witness(site.url, site.eavesdropper)
        self.devices: Final = {
            name: Device(name, directory / "devices" / name, site.options(name)) for name in sorted(names)
        }
        self.inside: set[str] = set()
        self.asleep: set[str] = set()
        self.outside: set[str] = set()
        self.new: set[str] = set(self.devices)
        self.messages = 0
        self.failures: list[str] = []  # of tasks that nobody waits for
        self._descriptor: Descriptor | None = None
        self._began = time.monotonic()

    @property
    def descriptor(self) -> Descriptor:
        """The newest; for those who are known already, whose token it is does not matter."""
        assert self._descriptor is not None
        return self._descriptor

    def tell(self, text: str) -> None:
        """Note what happens, for whoever has to understand a failure."""
        sys.stdout.write(f"{time.monotonic() - self._began:6.1f} s  {text}\n")

    def pick(self, names: Collection[str], count: int) -> list[str]:
        """Return up to `count` of `names`."""
        return self.dice.sample(sorted(names), min(count, len(names)))

    async def begin(self, count: int) -> None:
        """Start everything and let the first `count` members join."""
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.failures.append(str(context)))
        await self.server.create_group()
        await self.server.start()
        await self.witness.open()
        await self.join(self.pick(self.new, count))
        self.tell(f"{count} members have joined")

    async def end(self) -> None:
        """Close everything that is open."""
        refused = sum(
            (Counter(device.fleet.refused) for device in self.devices.values() if device.is_online), Counter()
        )
        self.tell(f"refused by those online: {dict(refused)}")
        try:
            await _all(device.exit() for device in self.devices.values())
            await self.witness.close()
        finally:
            await self.server.kill()

    # What members and operators do.

    async def join(self, names: list[str]) -> None:
        """Let new devices join: half of them with a token, half with a key that is listed."""
        self.new.difference_update(names)
        invited, listed = names[::2], names[1::2]
        descriptor = self._descriptor = await self.server.invite(len(invited))
        for name in listed:
            await self.server.add(name, self.devices[name].identity(descriptor))
        await _all(self._enter(name, descriptor) for name in names)

    async def readmit(self, names: list[str]) -> None:
        """Let devices come back that were evicted or have left."""
        self.outside.difference_update(names)
        known = await self.server.members()
        for name in names:
            if known[name].status == "evicted":
                await self.server.readmit(name)
        await _all(self._enter(name, self.descriptor, rejoin=True) for name in names)

    async def _enter(self, name: str, descriptor: Descriptor, *, rejoin: bool = False) -> None:
        device = self.devices[name]
        device.out_since = None
        await device.enter(descriptor, rejoin=rejoin)
        self.inside.add(name)

    async def evict(self, names: list[str]) -> None:
        """Evict members, who may be asleep."""
        awake = self.inside.intersection(names)
        self.inside.difference_update(names)
        self.asleep.difference_update(names)
        self._keep_states(names)
        await _all(self.server.evict(name) for name in names)
        await self._are_out(names)
        await self.until(
            lambda: all(self.devices[name].is_out for name in awake),
            lambda: f"not all of these know that they are out:\n{_list(self.devices[name] for name in awake)}",
        )

    async def leave(self, names: list[str]) -> None:
        """Let members leave by themselves."""
        self.inside.difference_update(names)
        self._keep_states(names)
        await _all(self._leave(self.devices[name]) for name in names)
        await self._are_out(names)

    async def _leave(self, device: Device) -> None:
        try:
            await device.fleet.leave(PATIENCE)
        except EvictedError:
            assert device.is_out

    def _keep_states(self, names: list[str]) -> None:
        for name in names:
            self.devices[name].snapshots.append(self.devices[name].saved())

    async def _are_out(self, names: list[str]) -> None:
        known = await self.server.members()
        for name in names:
            assert known[name].status in {"evicted", "listed"}
            assert known[name].epoch > 0
            self.devices[name].out_since = known[name].epoch
        self.outside.update(names)

    async def sleep(self, names: list[str]) -> None:
        """Let members go offline."""
        self.inside.difference_update(names)
        await _all(self.devices[name].exit() for name in names)
        self.asleep.update(names)

    async def wake(self, names: list[str]) -> None:
        """Let members come back."""
        self.asleep.difference_update(names)
        await _all(self._enter(name, self.descriptor) for name in names)

    async def wake_outsiders(self) -> None:
        """Let everybody come back who was evicted while offline: all learn that they are out."""
        await _all(self._learn(self.devices[name]) for name in sorted(self.outside) if not self.devices[name].is_out)

    async def _learn(self, device: Device) -> None:
        try:
            await device.enter(self.descriptor)
        except EvictedError:
            return
        await self.until(lambda: device.is_out, lambda: f"{device} does not know that it was evicted")

    async def speak(self, name: str) -> int:
        """Let a member publish, and note who must not read it; return the message's number."""
        device = self.devices[name]
        number, epoch = self.messages, device.fleet.epoch
        self.messages += 1
        try:
            await device.say(number)
        except EvictedError:
            assert name not in self.inside
        except TransportError as error:  # it may be out, or not
            self.tell(f"message {number} of {name}: {error}")
        for other in self.devices.values():
            if other.out_since is not None and epoch >= other.out_since:
                other.barred.add(number)
        return number

    # Rounds.

    def rotation(self) -> Coroutine[None, None, None]:
        """Return a renewal of the group's key, or of all keys."""
        everything = self.dice.random() < 0.3
        self.tell(f"  rotate {'everything' if everything else 'the root'}")
        return self.server.rotate(everything=everything)

    def deed(self) -> Coroutine[None, None, None]:
        """Return something that somebody does, chosen now."""
        spare = self.inside if len(self.inside) > FEWEST else set[str]()
        kinds: list[tuple[int, Callable[[list[str]], Coroutine[None, None, None]], set[str], int]] = [
            (6, self.evict, spare | self.asleep, 3),
            (5, self.join, self.new, 4),
            (3, self.readmit, self.outside, 3),
            (1, self.leave, spare, 2),
            (2, self.sleep, spare, 6),
            (2, self.wake, self.asleep, 8),
        ]
        possible = [kind for kind in kinds if kind[2]]
        ((_, act, names, most),) = self.dice.choices(possible, [kind[0] for kind in possible])
        chosen = self.pick(names, self.dice.randint(1, most))
        self.tell(f"  {act.__name__} {' '.join(chosen)}")
        return act(chosen)

    async def round(self, trouble: Callable[[], Awaitable[None]] | None = None) -> None:
        """Let something happen while members speak and, perhaps, something breaks; with one commit at least."""
        before = (await self.server.show()).epoch
        delay = self.dice.uniform(0.0, self.dice.choice(DELAYS))
        async with asyncio.TaskGroup() as group:
            for _ in range(self.dice.randint(1, 2)):
                group.create_task(self.deed())
                await asyncio.sleep(0)  # who is concerned is known when it has begun
            if self.dice.random() < 0.3:
                group.create_task(self.rotation())
            for name in self.pick(self.inside, SPEAKERS):
                group.create_task(self.speak(name))
            if trouble is not None:
                await asyncio.sleep(delay)  # some of it is done by then, some is not
                await trouble()
        if (await self.server.show()).epoch == before:
            await self.rotation()
        self.witness.check()

    async def restart_broker(self) -> None:
        """Stop the broker in its own way and start it again."""
        assert self.site.restart is not None
        self.tell("  restart of the broker")
        await self.site.restart(signal.SIGTERM)

    async def kill_broker(self) -> None:
        """Kill the broker, which loses what it retained, and start it again."""
        assert self.site.restart is not None
        self.tell("  kill -9 of the broker")
        await self.site.restart(signal.SIGKILL)

    async def crash(self) -> None:
        """Kill the server and start it again."""
        self.tell("  kill -9 of the server")
        await self.server.kill()
        await self.server.start()

    # Quiet points.

    async def settle(self) -> None:
        """Return when all members have the server's newest key and read each other; fails with what differs."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not self._is_settled((await self.server.show()).epoch):  # noqa: ASYNC110 - as in `until`
                    await asyncio.sleep(POLL)
        except TimeoutError:
            pytest.fail(self._differences((await self.server.show()).epoch))
        seated = {name for name, info in (await self.server.members()).items() if info.status == "seated"}
        assert self.inside | self.asleep == seated
        for name in self.pick(self.inside, 2):
            await self._is_read_by_all(name)

    async def _is_read_by_all(self, name: str) -> None:
        number = await self.speak(name)
        others = [self.devices[other] for other in sorted(self.inside - {name})]
        await self.until(
            lambda: number in self.witness.captured and all(number in device.read for device in others),
            lambda: f"message {number} of {name} is not read by:\n{_list(d for d in others if number not in d.read)}",
        )
        barred = {device.name for device in self.devices.values() if number in device.barred}
        assert barred == self.outside | self.new, "who is out must not read what is said now"

    def _is_settled(self, epoch: int) -> bool:
        fleets = [self.devices[name].fleet for name in self.inside]
        return (
            all(fleet.state is State.ACTIVE and fleet.connected and fleet.epoch == epoch for fleet in fleets)
            and len({self.devices[name].root for name in self.inside}) == 1
        )

    def _differences(self, epoch: int) -> str:
        """Return who differs from the server, or from the key that most members have."""
        devices = [self.devices[name] for name in sorted(self.inside)]
        roots = Counter(device.root for device in devices)
        ((usual, count),) = roots.most_common(1)
        others = [
            device
            for device in devices
            if device.root != usual or device.fleet.epoch != epoch or device.fleet.state is not State.ACTIVE
        ]
        return f"epoch {epoch}; {count} of {len(devices)} have the same key; these differ:\n{_list(others)}"

    async def until(self, condition: Callable[[], bool], otherwise: Callable[[], str]) -> None:
        """Return as soon as `condition` holds; fail with what `otherwise` says if it does not in time."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():  # noqa: ASYNC110 - many have to come to it
                    await asyncio.sleep(POLL)
        except TimeoutError:
            pytest.fail(otherwise())


def _list(devices: Iterable[Device]) -> str:
    lines = sorted(map(repr, devices))
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join(lines[:SHOWN] + more)


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """Do everything at a time; the first error is raised when all is done."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if result is not None:
            raise result

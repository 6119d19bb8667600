"""One key server, many devices, and a broker between them that records, loses, repeats and reorders what it likes.

The broker's misdeeds are the caller's choice; what must hold after each of them is asserted here.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import msgpack

from brokerkm.core.commit import Eviction
from brokerkm.core.crypto import Suite
from brokerkm.core.events import Joined, MessageReceived, Synced
from brokerkm.core.memory import Profile
from brokerkm.core.messages import Kind
from brokerkm.core.notice import RefusalReason
from brokerkm.core.policy import Policy
from brokerkm.core.state import State
from brokerkm.core.wire import message_type
from brokerkm.errors import Reason, RefusedError
from proof.attacker import Known, Tape, closure, ratchet, reaches
from proof.device import Device, Holder
from proof.keyserver import MARGIN, KeyServer

if TYPE_CHECKING:
    from brokerkm.core.commit import Commit
    from proof.keyserver import Backup

GROUP: Final = "fleet-01"
DATA_TOPIC: Final = "plant/temperature"
_STEPS: Final = 6  # that a thief moves a spare on


class Fleet:
    """The whole world of one test.

    Args:
        seed: of all keys, and of the broker's choices.
        degree: of the tree.
        name: of the group; nothing else depends on it.
        key: the server's own, if it is not to follow from the seed.
    """

    def __init__(self, seed: int, degree: int, name: str = GROUP, key: bytes | None = None) -> None:
        self.rng: Final = random.Random(seed)
        self.now = 1_000_000.0  # seconds
        policy = Policy(source_authentication=bool(seed % 2), stop_when_silent=False)
        drawn = self.rng.randbytes(32)
        self.server: Final = KeyServer(
            name, key or drawn, self.rng.randbytes, degree=degree, suite=Suite.X25519, policy=policy
        )
        self.devices: Final[dict[str, Device]] = {}
        self.retained: Final[dict[str, bytes]] = {}
        self.log: Final[list[tuple[str, bytes]]] = []
        self.data: Final[list[tuple[int, bytes]]] = []  # epoch and message
        self.tape: Final = Tape(name, degree)
        self.roots: Final[dict[int, Known]] = {}  # by epoch
        self.forgetful = False  # the broker has lost a retained message

    def pause(self, seconds: float = 1.0) -> None:
        """Let time pass."""
        self.now += seconds
        for device in self.devices.values():
            device.member.tick(self.now)

    def add(self) -> Device:
        """Make a new device and list it with the server."""
        name = f"device-{len(self.devices)}"
        profile = Profile(self.server.group.name, name, self.server.group.server_key)
        device = self.devices[name] = Device(profile, self.rng.randbytes)
        self.server.identities[name] = device.member.identity
        return device

    def ask(self, device: Device, payload: bytes) -> bool:
        """Bring a request to the server, and its answer back; every request a second time, as brokers may.

        Returns:
            Whether it was granted.
        """
        name = device.name
        self.log.append((self.server.topics.request(name), payload))
        try:
            answer = self.server.handle(name, payload, self.now)
        except RefusedError as error:
            if error.reason is Reason.WRONG_TIME:
                nonce: bytes = msgpack.unpackb(payload)[2]
                refusal = self.server.group.refusal(name, nonce, RefusalReason.WRONG_TIME, self.now)
                device.receive(self.server.topics.member(name), refusal, self.now)
            return False
        before = self.server.group.pending
        try:
            assert self.server.handle(name, payload, self.now) is None
        except RefusedError:
            assert before == self.server.group.pending
        if answer is not None:
            self.publish([(self.server.topics.member(name), answer)])
            self._deliver(device, self.server.topics.member(name), answer)
        return True

    def publish(self, messages: list[tuple[str, bytes]]) -> None:
        """Let the broker record and retain messages."""
        for topic, payload in messages:
            self.log.append((topic, payload))
            self.retained[topic] = payload
            self.tape.record(topic, payload, self.server.group.epoch)

    def _deliver(self, device: Device, topic: str, payload: bytes) -> bool:
        """Give a message to a device that is subscribed; return whether it took new keys from a Rekey."""
        if device.ghost and message_type(payload) == Kind.GOODBYE:
            return False
        before = device.root
        events = device.receive(topic, payload, self.now)
        if events is None and self.server.topics.handover in device.member.filters:
            self._follow(device)
            events = device.receive(topic, payload, self.now)
        events = events or []
        if any(isinstance(event, Joined | Synced) for event in events):
            self._note_welcome(device)
        after = device.root
        if message_type(payload) != Kind.REKEY or after is None or before is None:
            return False
        return after.birth != before.birth

    def _follow(self, device: Device) -> None:
        """Let a device that doubts the server's key take in the Handover and then what it may have refused before."""
        handover = self.retained.get(self.server.topics.handover)
        if handover is None or not device.receive(self.server.topics.handover, handover, self.now):
            return
        for topic in device.member.filters:
            if topic in self.retained:
                self._deliver(device, topic, self.retained[topic])

    def _note_welcome(self, device: Device) -> None:
        if self.is_seated(device):
            device.welcomed()
            device.current |= device.member.epoch == self.server.group.epoch

    def is_seated(self, device: Device) -> bool:
        """Return whether the device holds the leaf key that the server has for it."""
        slot, path = self.server.group.directory.slot(device.name), device.member._memory.path
        return slot is not None and path is not None and path.leaf == self.server.group.tree.get(0, slot)

    def commit(self, *, lossy: set[str], retain: float = 1.0) -> Commit:
        """Make what waits one epoch, publish it, and check who got what.

        Args:
            lossy: online devices that get only some of it, some of it twice.
            retain: the share of messages that the broker does not forget to retain.
        """
        self.pause()
        before = {name for name, _ in ((m, s) for s, m in self.server.group.directory)}
        commit = self.server.commit(self.now)
        self.note_holders(commit)
        root = self.server.root
        self.roots[commit.epoch] = Known(self.server.group.tree.height, 0, root.birth, root.step, root.key)
        messages = self.server.messages(commit)
        self.publish(messages)
        for topic, _ in messages:
            if self.rng.random() > retain:
                del self.retained[topic]
                self.forgetful = True
        moved = {seat.enrollment.member for seat in commit.change.seated} | {who for who, _ in commit.change.removed}
        for name, device in self.devices.items():
            stays = name in before and name not in moved
            if not device.online or name in lossy:
                device.current &= name not in before | moved
                self._deliver_some(device, messages if device.online else [])
                continue
            self._deliver_all(device, messages, one_expected=stays and device.current and root.birth == commit.epoch)
        self.check()
        return commit

    def carry(self, device: Device, spares: int, *, online: bool = True) -> None:
        """Seat a device by files: its request one way, a Welcome with spare keys the other, which no broker sees."""
        who = self.server.enroll(device.name, device.join(self.now), self.now, spares)
        device.online = online
        self.commit(lossy=set())
        self.pause()
        self._deliver(device, self.server.topics.member(device.name), self.server.group.welcome(who, self.now))
        given, height = self.server.group.spares[:spares], self.server.group.tree.height
        assert (spares, spares) == (device.member.spares, len(given))
        for level in (height, height + 1):  # whose root they will be, and moved on how far, only the server knows
            for step in range(_STEPS):
                births = (-1 - number * _STEPS - step for number in range(spares))
                moved = (ratchet(key, step) for key in given)
                device.holders[-1].known.update(
                    Known(level, 0, birth, 0, key) for birth, key in zip(births, moved, strict=True)
                )

    def live(self, turns: int, seed: int, loss: float = 0.0) -> None:
        """Let some epochs pass in which devices come, go, and come back; some are never told that they are out.

        Args:
            loss: the share of devices that get only some of an epoch's messages.
        """
        rng = random.Random(seed)
        for _ in range(turns):
            seated = [device for device in self.devices.values() if self.is_seated(device)]
            gone = [device for device in self.devices.values() if not self.is_seated(device)]
            for device in rng.sample(seated, rng.choice([0, 1, 1, 2, 4]) if len(seated) > 6 else 0):
                device.ghost = rng.random() < 0.5
                self.server.group.evict(device.name)
            for _ in range(rng.choice([0, 1, 1, 2, 5]) + (len(seated) < 12)):
                device = rng.choice(gone) if gone and rng.random() < 0.4 else self.add()
                if not self.is_leaving(device):
                    self.ask(device, device.join(self.now))
            self.commit(lossy={name for name in self.devices if rng.random() < loss})

    def note_holders(self, commit: Commit) -> None:
        """Note who begins and who ceases to be a member with `commit`."""
        for name, _ in commit.change.removed:
            self._end(name, commit.epoch)
        for _, who, _ in commit.change.seated:
            self._end(who.member, commit.epoch)
            device = self.devices[who.member]
            device.holders.append(Holder(who.member, device.seeds[who.kem_public], commit.epoch))

    def _end(self, name: str, epoch: int) -> None:
        device = self.devices[name]
        device.current = False
        for holder in device.holders:
            holder.end = holder.end or epoch

    def _deliver_all(self, device: Device, messages: list[tuple[str, bytes]], *, one_expected: bool) -> None:
        """Give a device all that it is subscribed to, in any order: one Rekey if the root is fresh, else none."""
        was_current, filters = device.current, device.member.filters
        mine = [message for message in messages if message[0] in filters]
        self.rng.shuffle(mine)
        applied = sum(self._deliver(device, *message) for message in mine)
        if was_current:
            received = sum(message_type(payload) == Kind.REKEY for _, payload in mine)
            assert (one_expected, one_expected) == (received, applied)

    def _deliver_some(self, device: Device, messages: list[tuple[str, bytes]]) -> None:
        some = [message for message in messages if self.rng.random() < 0.6] * 2
        self.rng.shuffle(some)
        for topic, payload in some[: self.rng.randrange(len(some) + 1)]:
            if topic in device.member.filters:
                self._deliver(device, topic, payload)

    def fetch(self, device: Device) -> None:
        """Let a device take in the retained messages of its topics, in any order, until its topics stay the same."""
        done: set[str] = set()
        while new := [topic for topic in device.member.filters if topic not in done]:
            self.rng.shuffle(new)
            for topic in new:
                done.add(topic)
                if topic in self.retained:
                    self._deliver(device, topic, self.retained[topic])

    def recover(self, device: Device) -> None:
        """Bring a device back: by what is retained if that is whole, else by Sync, else by Join."""
        device.online = True
        self.fetch(device)
        if self.is_seated(device):
            if not self.forgetful:
                assert self.server.root == device.root
            self.pause(6)
            if device.root != self.server.root and self.server.topics.beacon in self.retained:
                assert device.member.state is State.STALE
            if device.member.state is State.STALE or device.root != self.server.root:
                assert self.ask(device, device.sync(self.now)) or self.ask(device, device.sync(self.now))
            device.current = True
        elif not self.is_leaving(device):
            assert self.ask(device, device.join(self.now)) or self.ask(device, device.join(self.now))
            self.commit(lossy=set())
            assert device.current
        self.check()

    def is_leaving(self, device: Device) -> bool:
        """Return whether the device's eviction waits; the service refuses its Joins then."""
        return isinstance(self.server.group._pending.get(device.name), Eviction)

    def beat(self) -> None:
        """Publish a Beacon."""
        beacon = self.server.group.beacon(self.now)
        self.publish([(self.server.topics.beacon, beacon)])
        for device in self.devices.values():
            if device.online and self.server.topics.beacon in device.member.filters:
                self._deliver(device, self.server.topics.beacon, beacon)

    def hand_over(self) -> None:
        """Give the server another signing key; who sleeps may miss Rekeys by the one before."""
        self.publish([(self.server.topics.handover, self.server.hand_over(self.now))])
        self.forgetful = True
        self.beat()

    def set_policy(self, policy: Policy) -> None:
        """Ask something else of the members."""
        self.server.group.set_policy(policy)
        self.beat()

    def restore(self, backup: Backup, unnamed: set[str]) -> Commit:
        """Lose all since `backup`, and recover; who was evicted since is named to the server, but for `unnamed`."""
        lost, newest = self.server.group, self.server.group.epoch
        evicted = {name for name in backup.seats if name not in lost.directory} - unnamed
        evicted |= {name for name in backup.seats if self.is_leaving(self.devices[name])}
        self.server.restore(backup)
        self.server.recover(newest, lost.time, evicted)
        for name in self.devices:
            self._end(name, newest + MARGIN)
        return self.commit(lossy=set())

    def is_in_step(self, device: Device) -> bool:
        """Return whether the device knows the policy and the server's newest key, and is certified by it if need be."""
        member, group = device.member, self.server.group
        known = (member.policy, member.server_keys[-1]) == (group.policy, group.server_key)
        return known and member.certificate_expiry != 0

    def replay(self, device: Device, topic: str, payload: bytes) -> None:
        """Give a device something that was published before: who is current must not change at all by it."""
        before, root = device.member.dump(), device.root
        keys, step = device.member.server_keys, self.is_in_step(device)
        device.receive(topic, payload, self.now)
        assert keys == device.member.server_keys[: len(keys)]
        assert not step or self.is_in_step(device)
        if device.current:
            assert root == device.root
            may_change = message_type(payload) in (Kind.BEACON, Kind.HANDOVER)
            assert may_change or before == device.member.dump()
        elif root is not None and device.root is not None and message_type(payload) != Kind.WELCOME:
            assert (root.birth, root.step) <= (device.root.birth, device.root.step)

    def check(self) -> None:
        """Assert that who must have the group's key has it, and that nobody else has."""
        root = self.server.root
        for name, device in self.devices.items():
            if device.current:
                assert root == device.root
                assert not device.member.behind
                assert device.member.state is State.ACTIVE
            elif self.server.group.directory.slot(name) is None:
                assert device.root is None or device.root.key != root.key

    def check_recoverable(self, device: Device) -> None:
        """Assert that a copy of `device` as its last Welcome left it finds the group's key by what is retained."""
        copy = device.rebuilt(self.now)
        self.fetch(copy)
        assert self.server.root == copy.root

    def talk(self, sender: Device) -> None:
        """Publish application data; who is current reads it, who is out does not."""
        message = sender.member.seal(DATA_TOPIC, b"21.4", self.now)
        epoch = self.server.group.epoch
        self.data.append((epoch, message))
        for device in self.devices.values():
            if device is sender or not (device.current or self.server.group.directory.slot(device.name) is None):
                continue
            sure = not device.current or (self.is_in_step(sender) and self.is_in_step(device))
            events = device.receive(DATA_TOPIC, message, self.now)
            read = any(isinstance(event, MessageReceived) for event in events or ())
            assert not sure or device.current == read
            assert device.receive(DATA_TOPIC, message, self.now) in (None, [])  # and never twice

    def read_old(self, device: Device) -> None:
        """Give a device data that was recorded in epochs before it joined and after it was out: it opens none."""
        for epoch, message in self.data:
            if not any(holder.is_member(epoch) for holder in device.holders):
                events = device.receive(DATA_TOPIC, message, self.now)
                assert not any(isinstance(event, MessageReceived) for event in events or ())

    def outsiders(self, epoch: int) -> list[Known]:
        """Return all that was ever known to those who are no members in `epoch`, before, then or after."""
        known: list[Known] = []
        for device in self.devices.values():
            inside = {holder.seed for holder in device.holders if holder.is_member(epoch)}
            for holder in device.holders:
                if not holder.is_member(epoch) and holder.seed not in inside:
                    known += holder.known
                    known += self.tape.open_welcomes(holder.name, holder.seed)
        return known

    def is_broken(self, epoch: int, *leaked: Known) -> bool:
        """Return whether all outsiders of `epoch` together, and whoever knows what `leaked`, reach its root key."""
        return reaches(closure([*self.outsiders(epoch), *leaked], self.tape), self.roots[epoch])

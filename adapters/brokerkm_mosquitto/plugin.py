"""`mosquitto-plugin`: keeps the table of the C plugin in Mosquitto (`plugin/README.md`) as the store says.

The two are compared by sums of digests in 256 buckets, and only buckets that differ are looked at, some at a time:
a million members are never all in memory here.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, ClassVar, Final

from brokerkm.errors import TransportError
from brokerkm.guard.seam import Difference
from brokerkm_mosquitto import control
from brokerkm_mosquitto.control import BUCKETS, Kind
from brokerkm_mosquitto.line import ControlLine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from brokerkm.guard.fleet import Fleet, GuardedGroup
    from brokerkm.guard.rules import Grant

_AT_ONCE: Final = 32  # buckets that are compared member by member at a time: an eighth of the group in memory
_ROOM: Final = 256  # bytes of a message that are kept for its header
_MOST: Final = 0xFFFF  # members in one message


class MosquittoPluginGuard:
    """`brokerkm.guard.seam.BrokerGuard`; see there for the options."""

    by_identity: ClassVar = True

    def __init__(self, fleet: Fleet, options: Mapping[str, str]) -> None:
        self._fleet: Final = fleet
        self._applicants: Final = options.get("applicants", "true") == "true"
        self._line: Final = ControlLine(control.TOPIC, options, control.serial_of)
        self._serials: Final = itertools.count(1)
        self._boot = b""
        self._connections = 0
        self._largest = 0

    async def open(self) -> None:
        """Reach the plugin; raises `TransportError` if it does not answer."""
        await self._line.open()
        try:
            await self._hello()
        except BaseException:
            await self._line.close()
            raise

    async def close(self) -> None:
        """Let go of the broker, which goes on guarding."""
        await self._line.close()

    async def admit(self, grant: Grant) -> None:
        """Give a member what it may do, in place of what it could before."""
        await self._is_the_one_that_was_compared()
        await self._change(grant.topics.group, [control.entry(grant.member, grant)])

    async def evict(self, group: str, member: str) -> None:
        """Take from a member all that it could do, and disconnect it."""
        await self._is_the_one_that_was_compared()
        known = await self._fleet.member(group, member)
        record = control.absence(member) if known is None else control.entry(member, None)
        await self._change(group, [record])

    async def forget(self, group: str) -> None:
        """Take from all members of a group what they could do; its topics stay guarded."""
        await self._ask(Kind.FORGET, control.name(group))

    async def diff(self) -> AsyncIterator[Difference]:
        """Yield where the table and the store differ."""
        loaded = (await self._hello()).groups
        groups = await self._fleet.groups()
        for name in loaded:
            if name not in groups:
                yield Difference(name, "", "is guarded at the broker, but there is no such group")
        for group in groups.values():
            if group.name not in loaded:
                yield Difference(group.name, "", "is not loaded at the broker")
                continue
            if await self._settings_differ(group):
                yield Difference(group.name, "", "has other settings at the broker: data filters, degree, prefix")
            async for member, wanted, found in self._differing(group):
                yield Difference(group.name, member, _describe(wanted, found))

    async def sync(self, progress: Callable[[int, int], None]) -> int:
        """Make the table as the store says; progress is in groups."""
        hello = await self._hello()
        groups = await self._fleet.groups()
        count = 0
        for name in hello.groups:
            if name not in groups:
                await self.forget(name)
                count += 1
        for done, group in enumerate(groups.values()):
            progress(done, len(groups))
            if group.name in hello.groups:
                count += await self._mend(group)
            else:
                await self._load(group)
                count += 1
        self._boot = hello.boot
        progress(len(groups), len(groups))
        return count

    # One group.

    async def _load(self, group: GuardedGroup) -> None:
        """Load a group that the plugin does not have; it is in force all at once."""
        name = control.name(group.name)
        await self._ask(Kind.BEGIN, name + control.settings(group, applicants=self._applicants))
        batch = _Batch(self._largest)
        total = 0
        async for _, record in self._wanted(group):
            total += 1
            if (full := batch.add(record)) is not None:
                await self._ask(Kind.PORTION, name + full)
        await self._ask(Kind.PORTION, name + batch.rest())
        await self._ask(Kind.END, name + total.to_bytes(4))

    async def _mend(self, group: GuardedGroup) -> int:
        """Change what differs; return how much that was."""
        count = 0
        name = control.name(group.name)
        if await self._settings_differ(group):
            await self._ask(Kind.SETTINGS, name + control.settings(group, applicants=self._applicants))
            count += 1
        batch = _Batch(self._largest)
        async for member, wanted, _ in self._differing(group):
            count += 1
            if (full := batch.add(wanted or control.absence(member))) is not None:
                await self._ask(Kind.CHANGE, name + full)
        await self._ask(Kind.CHANGE, name + batch.rest())
        return count

    async def _settings_differ(self, group: GuardedGroup) -> bool:
        wanted = control.digest(control.settings(group, applicants=self._applicants))
        return (await self._state(group)).settings != wanted.to_bytes(8)

    async def _differing(self, group: GuardedGroup) -> AsyncIterator[tuple[str, bytes | None, bytes | None]]:
        """Yield members whose entry is not as wanted, with what is wanted and what was found; None: no entry."""
        sums = [0] * BUCKETS
        async for member, record in self._wanted(group):
            index = control.bucket(member)
            sums[index] = (sums[index] + control.digest(record)) % (1 << 64)
        state = await self._state(group)
        differing = [index for index in range(BUCKETS) if sums[index] != state.buckets[index]]
        for start in range(0, len(differing), _AT_ONCE):
            some = differing[start : start + _AT_ONCE]
            wanted = {member: record async for member, record in self._wanted(group) if control.bucket(member) in some}
            for index in some:
                async for member, found in self._listed(group, index):
                    expected = wanted.pop(member, None)
                    if expected != found:
                        yield member, expected, found
            for member, expected in wanted.items():
                yield member, expected, None

    async def _wanted(self, group: GuardedGroup) -> AsyncIterator[tuple[str, bytes]]:
        """Yield the entries that the table should have."""
        async for known in self._fleet.members(group.name):
            record = control.entry(known.member, group.grant(known))
            if not control.is_absence(record):
                yield known.member, record

    async def _listed(self, group: GuardedGroup, bucket: int) -> AsyncIterator[tuple[str, bytes]]:
        """Yield the entries that the table has in one bucket."""
        at = 0
        while at != control.LAST:
            body = control.name(group.name) + bytes([bucket]) + at.to_bytes(4)
            reader = await self._ask(Kind.LIST, body)
            before, at = at, reader.number(4)
            if at <= before:
                raise reader.malformed()
            for found in reader.entries():
                yield found

    # The plugin.

    async def _is_the_one_that_was_compared(self) -> None:
        """See that the broker has not been started anew since `sync`; raises `TransportError` if it has."""
        if self._connections == self._line.connections:
            return
        if (await self._hello()).boot != self._boot:
            self._connections = 0
            message = "Mosquitto has been started anew and is compared with the store first"
            raise TransportError(message)

    async def _hello(self) -> control.Hello:
        connections = self._line.connections
        hello = (await self._ask(Kind.HELLO, b"")).hello()
        self._connections, self._largest = connections, hello.largest
        return hello

    async def _state(self, group: GuardedGroup) -> control.State:
        return (await self._ask(Kind.STATE, control.name(group.name))).state()

    async def _change(self, group: str, records: Sequence[bytes]) -> None:
        await self._ask(Kind.CHANGE, control.name(group) + len(records).to_bytes(2) + b"".join(records))

    async def _ask(self, kind: Kind, body: bytes) -> control.Reader:
        serial = next(self._serials) % (1 << 32)
        return control.read_answer(kind, await self._line.ask(serial, control.question(kind, serial, body)))


class _Batch:
    """Gathers entries into bodies of messages, each as large as the plugin takes."""

    def __init__(self, largest: int) -> None:
        self._limit: Final = largest - _ROOM
        self._records: list[bytes] = []
        self._size = 0

    def add(self, record: bytes) -> bytes | None:
        """Add an entry; return what was gathered before if it does not fit to it."""
        full = None
        if self._size + len(record) > self._limit or len(self._records) == _MOST:
            full = self.rest()
        self._records.append(record)
        self._size += len(record)
        return full

    def rest(self) -> bytes:
        """Return what has been gathered, and begin anew."""
        body = len(self._records).to_bytes(2) + b"".join(self._records)
        self._records, self._size = [], 0
        return body


def _describe(wanted: bytes | None, found: bytes | None) -> str:
    if found is None:
        return "is missing at the broker"
    if wanted is None:
        return "has rights at the broker, but is not known to the store"
    return "has other rights at the broker"

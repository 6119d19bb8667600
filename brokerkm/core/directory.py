"""Which member sits at which slot: a compact two-way index.

A dict of a million names costs 140 bytes a member; this costs about 25. Names lie one after the other in one
buffer; a hash table of slots (open addressing, linear probing) finds them. Python's own string hash is keyed per
process, so a chosen set of names cannot make the table slow.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Seats(Protocol):
    """Which member sits at which slot, as `Group` asks: this module's `Directory`, or a store that knows."""

    def __len__(self) -> int: ...

    def __contains__(self, member: str) -> bool: ...

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Yield (slot, member id) in order of slots."""
        ...

    def slot(self, member: str) -> int | None:
        """Return the slot of `member`, if it has one."""
        ...

    def add(self, member: str, slot: int) -> None:
        """Note that `member` sits at `slot`."""

    def remove(self, member: str) -> None:
        """Note that `member` has no slot any more."""


_EMPTY: Final = 0
_REMOVED: Final = 1
_FIRST: Final = 2  # table value of slot 0


class Directory:
    """A map from member id to slot and back; ids are at most 255 bytes long."""

    __slots__ = ("_count", "_filled", "_names", "_offsets", "_table", "_waste")

    def __init__(self) -> None:
        self._table = array("I", bytes(4 * 8))
        self._filled = 0  # table places that are not empty, removed ones included
        self._names = bytearray(1)  # length byte and name, each; offset 0 means no name
        self._offsets = array("I")  # by slot
        self._waste = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, member: str) -> bool:
        return self.slot(member) is not None

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Yield (slot, member id) in order of slots."""
        for slot, offset in enumerate(self._offsets):
            if offset:
                yield slot, self._name(offset)

    def _name(self, offset: int) -> str:
        return self._names[offset + 1 : offset + 1 + self._names[offset]].decode()

    def member(self, slot: int) -> str | None:
        """Return the id of the member at `slot`, if there is one."""
        offset = self._offsets[slot] if slot < len(self._offsets) else 0
        return self._name(offset) if offset else None

    def slot(self, member: str) -> int | None:
        """Return the slot of `member`, if it has one."""
        place = self._find(member)
        return None if place is None else self._table[place] - _FIRST

    def _find(self, member: str) -> int | None:
        name = member.encode()
        framed = bytes((len(name),)) + name
        table, names, offsets = self._table, self._names, self._offsets
        mask = len(table) - 1
        place = hash(member) & mask
        while (value := table[place]) != _EMPTY:
            if value != _REMOVED and names.startswith(framed, offsets[value - _FIRST]):
                return place
            place = (place + 1) & mask
        return None

    def add(self, member: str, slot: int) -> None:
        """Put `member`, who is nowhere yet, at the free `slot`."""
        if 3 * (self._filled + 1) > 2 * len(self._table):
            self._rebuild()
        if slot >= len(self._offsets):
            self._offsets.frombytes(bytes(4 * (slot + 1 - len(self._offsets))))
        name = member.encode()
        self._offsets[slot] = len(self._names)
        self._names.append(len(name))
        self._names += name
        self._insert(member, slot)
        self._count += 1

    def _insert(self, member: str, slot: int) -> None:
        mask = len(self._table) - 1
        place = hash(member) & mask
        while self._table[place] != _EMPTY:
            place = (place + 1) & mask
        self._table[place] = slot + _FIRST
        self._filled += 1

    def remove(self, member: str) -> None:
        """Take `member`, who is there, out."""
        place = self._find(member)
        if place is None:
            raise KeyError(member)
        slot = self._table[place] - _FIRST
        self._table[place] = _REMOVED
        self._waste += 1 + self._names[self._offsets[slot]]
        self._offsets[slot] = 0
        self._count -= 1
        if 2 * self._waste > len(self._names):
            self._rebuild()

    def _rebuild(self) -> None:
        """Drop what was removed, and have room for as many again; one name at a time, to need little more memory."""
        old_names, size = self._names, 8
        while size < 2 * (self._count + 1):
            size *= 2
        self._table = array("I", bytes(4 * size))
        self._filled = self._waste = 0
        self._names = bytearray(1)
        for slot, offset in enumerate(self._offsets):
            if offset:
                framed = old_names[offset : offset + 1 + old_names[offset]]
                self._offsets[slot] = len(self._names)
                self._names += framed
                self._insert(framed[1:].decode(), slot)

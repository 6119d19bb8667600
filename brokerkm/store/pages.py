"""The sealed pages of one group's key tree, each bound to its place and to the commit that wrote it.

The version of a page is the epoch of the commit that wrote it, and selects the key it is sealed under. A page (l, n)
holds, sealed with its nodes, the versions of the pages (l - 1, n * degree) and on, whose nodes are the children of its
own; the group's sealed header holds the root page's, and the root's spare keys. A commit that changes a node changes
every node above it, so all these pages are written anyway, and no page but the whole store can be put back to what it
once was without one above it saying so. The versions of all pages are kept in memory, 8 bytes each.

Inside a page's seal: for each of `degree` pages below, if the level is above 0, its version (8 bytes,
big-endian, 0 for none); then the page as `KeyTree.page` made it.
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from brokerkm.core.crypto import KEY_SIZE
from brokerkm.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from brokerkm.store.records import KeyChange, Page
    from brokerkm.store.vault import Box, Vault

SealedPage: TypeAlias = tuple[int, int, int, bytes]  # level, page number, version, sealed
_HEADER: Final = struct.Struct(">QQ")  # height and version of the root page; the spare keys follow
_VERSION_SIZE: Final = 8  # bytes


class Place(NamedTuple):
    """The group whose pages they are, as its row says.

    Args:
        uid: 16 random bytes, so that a group that takes another's name does not open its pages.
    """

    name: str
    uid: bytes
    degree: int
    epoch: int
    height: int


class SealedPages:
    """Seals and opens the pages of a group, and knows the version of each.

    Args:
        place: the group, as it stands.
    """

    def __init__(self, vault: Vault, place: Place) -> None:
        self.place: Final = place
        self._vault: Final = vault
        self._versions: list[array[int]] = [array("Q") for _ in range(place.height + 1)]
        self._spares: tuple[bytes, ...] = ()
        self._boxes: dict[int, Box] = {}

    @property
    def count(self) -> int:
        """How many pages there are."""
        return sum(1 for level in self._versions for version in level if version)

    def load(self, header: bytes, stored: Callable[[int], Iterable[tuple[int, int, bytes]]]) -> Iterator[Page]:
        """Yield the pages, opened, from the root down; only then the versions are known.

        Args:
            header: as `seal_header` made it.
            stored: what returns the (number, version, sealed) of a level, by number.

        Raises:
            StoreError: a page, or the header, is not the newest one that was sealed there.
        """
        place = self.place
        root, self._spares = self._open_header(header)
        expected = array("Q", [root]) if root else array("Q")
        for level in range(place.height, -1, -1):
            self._versions[level] = expected
            below = array("Q")
            seen = 0
            for number, version, sealed in stored(level):
                self._check_version(level, number, version)
                seen += 1
                plain = self._open(level, number, version, sealed)
                if level:
                    children = struct.unpack_from(f">{place.degree}Q", plain)
                    below.extend([0] * (number * place.degree - len(below)))
                    below.extend(children)
                    plain = plain[_VERSION_SIZE * place.degree :]
                yield level, number, plain
            if seen != sum(1 for version in expected if version):
                raise self._missing(level, expected, stored)
            expected = below
        self._boxes.clear()

    def version(self, level: int, number: int) -> int:
        """Return the epoch of the commit that wrote a page, 0 if there is none."""
        known = self._versions[level] if level < len(self._versions) else ()
        return known[number] if number < len(known) else 0

    def box(self, version: int) -> Box:
        """Return what the pages of a version are sealed with."""
        box = self._boxes.get(version)
        if box is None:
            box = self._boxes[version] = self._vault.box("pages", self.place.uid, version)
        return box

    def after(self, keys: KeyChange, changed: Sequence[Collection[int]]) -> SealedPages:
        """Return this for the group as it is after a commit; `changed` has the numbers of its pages by level."""
        later = SealedPages(self._vault, self.place._replace(epoch=keys.epoch, height=keys.height))
        later._spares = keys.spares
        for level, numbers in enumerate(changed):
            versions = array("Q", self._versions[level]) if level < len(self._versions) else array("Q")
            for number in numbers:
                versions.extend([0] * (number + 1 - len(versions)))
                versions[number] = keys.epoch
            later._versions[level] = versions
        return later

    def seal_header(self) -> bytes:
        """Return the group's header: height, the root page's version and the spares, for this epoch and no other."""
        place = self.place
        root = self._versions[place.height]
        return self._header_box().seal(_HEADER.pack(place.height, root[0] if root else 0) + b"".join(self._spares))

    def spares(self, header: bytes) -> tuple[bytes, ...]:
        """Return the spare keys in a header; raises `StoreError` if it is not the newest."""
        return self._open_header(header)[1]

    def reseal(self, target: SealedPages, page: SealedPage) -> bytes:
        """Return what is in a page, sealed as a page of `target`; raises `StoreError`."""
        level, number, version, sealed = page
        return target.box(version).seal(self._open(level, number, version, sealed), level, number)

    def under(self, vault: Vault) -> SealedPages:
        """Return this with another vault."""
        later = SealedPages(vault, self.place)
        later._versions, later._spares = self._versions, self._spares
        return later

    def _header_box(self) -> Box:
        return self._vault.box("header", self.place.uid, self.place.epoch)

    def _open_header(self, header: bytes) -> tuple[int, tuple[bytes, ...]]:
        """Return the root page's version, and the spares."""
        place = self.place
        plain = self._header_box().open(header)
        if plain is None:
            message = (
                f"the header of group {place.name} is not the one of epoch {place.epoch}: somebody has changed the "
                "store or put a part of it back; restore a backup"
            )
            raise StoreError(message)
        height, root = _HEADER.unpack_from(plain)
        if height != place.height:
            message = f"the header of group {place.name} is for height {height}, not {place.height}; restore a backup"
            raise StoreError(message)
        spares = range(_HEADER.size, len(plain), KEY_SIZE)
        return int(root), tuple(plain[at : at + KEY_SIZE] for at in spares)

    def _check_version(self, level: int, number: int, version: int) -> None:
        expected = self.version(level, number)
        if version == expected:
            return
        name = f"page {number} of level {level} of group {self.place.name}"
        if not expected:
            what = f"{name} is not one that belongs there: it was moved or added"
        elif version < expected:
            what = f"{name} was rolled back: it is of epoch {version}, not {expected}"
        else:
            above = f"page {number // self.place.degree} of level {level + 1}"
            what = f"what is above {name} was rolled back: {name} is of epoch {version}, not {expected} as "
            what += f"{above if level < self.place.height else 'the header'} says"
        message = f"{what}; restore a backup"
        raise StoreError(message)

    def _open(self, level: int, number: int, version: int, sealed: bytes) -> bytes:
        plain = self.box(version).open(sealed, level, number)
        if plain is None or (level and len(plain) < _VERSION_SIZE * self.place.degree):
            message = (
                f"page {number} of level {level} of group {self.place.name} is not what was sealed there: it was "
                "moved, swapped, rolled back or damaged; restore a backup"
            )
            raise StoreError(message)
        return plain

    def _missing(
        self, level: int, expected: array[int], stored: Callable[[int], Iterable[tuple[int, int, bytes]]]
    ) -> StoreError:
        there = {number for number, _, _ in stored(level)}
        lost = next(number for number, version in enumerate(expected) if version and number not in there)
        return StoreError(f"page {lost} of level {level} of group {self.place.name} is missing; restore a backup")


class Sealing:
    """The pages of one commit, sealed one after the other; `before` stays as it was.

    Raises:
        StoreError: a page would not be found again, because the levels do not ascend or a page above does not change.
    """

    def __init__(self, before: SealedPages, keys: KeyChange) -> None:
        self._before: Final = before
        self._keys: Final = keys
        self._changed: Final[list[set[int]]] = [set() for _ in range(keys.height + 1)]

    def __iter__(self) -> Iterator[SealedPage]:
        keys, level = self._keys, 0
        box = self._before.box(keys.epoch)
        for at, number, page in keys.pages:
            if not level <= at <= keys.height:
                message = f"page {number} of level {at} comes after level {level}"
                raise StoreError(message)
            level = at
            self._changed[level].add(number)
            yield level, number, keys.epoch, box.seal(self._children(level, number) + page, level, number)
        for level, numbers in enumerate(self._changed[:-1]):
            forgotten = {number // self._before.place.degree for number in numbers} - self._changed[level + 1]
            if forgotten:
                message = f"page {min(forgotten)} of level {level + 1} does not change with the pages below it"
                raise StoreError(message)

    def after(self) -> SealedPages:
        """Return the group's pages after the commit; for when all have been sealed."""
        return self._before.after(self._keys, self._changed)

    def _children(self, level: int, number: int) -> bytes:
        if not level:
            return b""
        degree, changed = self._before.place.degree, self._changed[level - 1]
        numbers = range(number * degree, (number + 1) * degree)
        versions = (self._keys.epoch if at in changed else self._before.version(level - 1, at) for at in numbers)
        return struct.pack(f">{degree}Q", *versions)

"""What a store of version 1 held in another form: pages of 64 nodes, where there are 128 now."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from brokerkm.core.tree import PAGE_NODES, RECORD_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from brokerkm.store.records import Page

_OLD_NODES: Final = 64
_SIZES: Final = (
    RECORD_SIZE - 8 - 2,
    8,
    2,
)  # bytes of key, birth and step; a page has all keys, then births, then steps


def merge_pages(pages: Iterable[Page]) -> Iterator[Page]:
    """Yield the pages of version 1, given in order of level and number, as pages of today's size."""
    share = PAGE_NODES // _OLD_NODES
    for (level, number), parts in itertools.groupby(pages, key=lambda page: (page[0], page[1] // share)):
        columns: list[list[bytes]] = [[], [], []]
        filled = 0
        for _, at, page in parts:
            gap = (at % share) * _OLD_NODES - filled  # a page between two others may never have been written
            count, start = len(page) // RECORD_SIZE, 0
            for column, size in zip(columns, _SIZES, strict=True):
                column += [bytes(size * gap), page[start : start + size * count]]
                start += size * count
            filled += gap + count
        yield level, number, b"".join(b"".join(column) for column in columns)

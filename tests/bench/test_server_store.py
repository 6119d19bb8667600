"""The store's figures: measured on a real file, with real syncs, in a process of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokerkm.bench.server_store import durable_eviction, open_group, plant

if TYPE_CHECKING:
    from pathlib import Path

MEMBERS = 30_000  # enough that the allocator has to ask for memory


def test_a_group_is_opened_and_evicted_from(tmp_path: Path) -> None:
    """Every figure has its floor beside it and is above it; evictions are on the disk and go on from there."""
    path = plant(tmp_path, MEMBERS)
    opened, memory = open_group(path, MEMBERS)
    assert opened.floor is not None
    assert 0 < opened.floor < opened.value < 1.5
    assert memory.floor is not None
    assert 32 * MEMBERS < memory.floor < memory.value < 150_000_000
    for _ in range(2):
        evicted, beyond = durable_eviction(path, 5)
        assert evicted.floor is not None
        assert beyond.value == evicted.value - evicted.floor
        assert 0 < evicted.value < 5

"""What the store costs the server: opening a large group, and one eviction that is on the disk when it returns.

Run as a program, `python -m brokerkm.bench.server_store STORE`, it opens the group in a process of its own and prints
seconds, floor and resident bytes; the store key is in the file beside the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from brokerkm.bench.commits import build_group
from brokerkm.bench.figure import Figure
from brokerkm.core.tree import PAGE_NODES
from brokerkm.service.live import load_group
from brokerkm.service.server import KeyServer
from brokerkm.store.records import Change, GroupRecord, KeyChange, MemberRecord, Status
from brokerkm.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.core.group import Group

OPEN_SECONDS: Final = 1.5  # of a million members
OPEN_BYTES: Final = 150_000_000
EVICTION_SECONDS: Final = 0.010  # beyond what the disk takes
MILLION: Final = 1_000_000
_AT_ONCE: Final = 10_000  # members that are stored in one transaction
_EVICTIONS: Final = 50
_LEVEL: Final = "SELECT page FROM pages WHERE level = ? ORDER BY number"


def plant(directory: Path, members: int, progress: Callable[[int], None] = lambda _: None) -> Path:
    """Make a store with one group of `members` in `directory`; return its path."""
    path, seed = directory / "brokerkm.sqlite", os.urandom(32)
    group = build_group(members, 4, progress)
    with contextlib.closing(SqliteStore(path)) as store:
        store.create_group(GroupRecord(group.name, seed, 4, epoch=group.epoch), Change())
        for start in range(0, members, _AT_ONCE):
            last = start + _AT_ONCE >= members
            pages = _pages(group) if last else ()
            epoch = group.epoch + start // _AT_ONCE + 1
            keys = KeyChange(epoch, group.tree.height if last else 1, pages)
            seated = [
                MemberRecord(
                    f"device-{slot:07d}",
                    Status.SEATED,
                    os.urandom(32),
                    slot,
                    os.urandom(32),
                    os.urandom(16),
                    epoch=epoch,
                )
                for slot in range(start, min(start + _AT_ONCE, members))
            ]
            store.write(group.name, Change(keys=keys, members=seated))
    return path


def open_group(path: Path, members: int) -> list[Figure]:
    """Return how long opening the group of a planted store takes, and what it adds to the process at most."""
    command = [sys.executable, "-m", "brokerkm.bench.server_store", str(path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - ourselves
    found = json.loads(printed)
    held = members <= MILLION
    return [
        Figure(
            case="open",
            what=f"opening a group of {members:,}",
            value=found["seconds"],
            unit="s",
            floor=found["floor"],
            floor_what="reading and AES-256-GCM of as many pages, bare",
            at_most=OPEN_SECONDS if held else None,
        ),
        Figure(
            case="open",
            what="memory that it adds, at its peak",
            value=found["bytes"],
            unit="bytes",
            floor=found["keys"],
            floor_what="the node keys alone",
            at_most=OPEN_BYTES if held else None,
        ),
    ]


def durable_eviction(path: Path, evictions: int = _EVICTIONS) -> list[Figure]:
    """Return how long one eviction from the group of a planted store takes, beside what the disk takes for a sync."""
    return asyncio.run(_evict(path, evictions))


async def _evict(path: Path, evictions: int) -> list[Figure]:
    taken: list[float] = []
    synced: list[float] = []
    with contextlib.closing(SqliteStore(path)) as store, tempfile.TemporaryFile(dir=path.parent) as file:
        (record,) = store.groups()
        everyone = store.members(record.name, status=Status.SEATED, limit=_AT_ONCE)
        async with KeyServer(store, interval=0) as server:
            live = server.groups[record.name]
            for one in random.Random(1).sample(everyone, evictions + 1):  # noqa: S311 - which one is no secret
                start = time.perf_counter()
                await live.evict(one.member, urgent=True, actor="operator:bench")
                taken.append(time.perf_counter() - start)
                synced.append(_sync(file.fileno()))
    eviction, floor = statistics.median(taken[1:]), statistics.median(synced[1:])  # the first warms up
    what = "a write and fsync of 64 KB at the same place, in turns"
    return [
        Figure(
            case="evict",
            what="one durable eviction, median",
            value=eviction,
            unit="s",
            floor=floor,
            floor_what=what,
        ),
        Figure(
            case="evict",
            what="the same beyond the disk's own fsync",
            value=eviction - floor,
            unit="s",
            at_most=EVICTION_SECONDS,
        ),
    ]


def _sync(descriptor: int) -> float:
    data = os.urandom(65_536)  # about what a commit adds to the write-ahead log
    start = time.perf_counter()
    os.write(descriptor, data)
    os.fsync(descriptor)
    return time.perf_counter() - start


def _pages(group: Group) -> list[tuple[int, int, bytes]]:
    return [
        (level, number, group.tree.page(level, number))
        for level, nodes in enumerate(group.tree.levels)
        for number in range(-(-len(nodes) // PAGE_NODES))
    ]


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def _peak() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _floor(path: Path, height: int) -> tuple[float, int]:
    """Return the seconds that reading and opening all pages takes at least, and the bytes of keys in them."""
    cipher, size = AESGCM(bytes(32)), 0
    with contextlib.closing(sqlite3.connect(path)) as file:
        start = time.perf_counter()
        for level in range(height + 1):
            for (page,) in file.execute(_LEVEL, (level,)):
                size += len(cipher.encrypt(bytes(12), page, None))  # costs as much as to decrypt
        return time.perf_counter() - start, size * 32 // 42


def _main(path: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:  # warms up everything but the group itself
        small = plant(Path(directory), 2)
        with contextlib.closing(SqliteStore(small)) as store:
            load_group(store, store.groups()[0])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins here
    before, start = _resident(), time.perf_counter()
    with contextlib.closing(SqliteStore(path)) as store:
        (record,) = store.groups()
        group = load_group(store, record)
        seconds, added = time.perf_counter() - start, _peak() - before
        height = group.tree.height
        if len(group.directory) != store.count(record.name)[Status.SEATED]:
            raise AssertionError
    floor, keys = _floor(path, height)
    sys.stdout.write(json.dumps({"seconds": seconds, "floor": floor, "bytes": added, "keys": keys}))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))

"""What it costs to take in devices by the thousand: from a file to Welcomes that are stored and published."""

from __future__ import annotations

import asyncio
import contextlib
import io
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from brokerkm.bench.figure import Figure
from brokerkm.cli.importing import import_file
from brokerkm.core.crypto import Suite
from brokerkm.service.server import KeyServer
from brokerkm.store.sqlite import SqliteStore
from brokerkm.transport import Options, Role, create

if TYPE_CHECKING:
    from collections.abc import Iterator

_GROUP: Final = "plant"
_SUITE: Final = Suite.X25519
_WELCOME: Final = 400  # bytes that are sealed to a device in a group of 100,000
_PATIENCE: Final = 600.0  # seconds for what is not published yet


def import_devices(members: int) -> list[Figure]:
    """Return how many devices a second a file seats, beside bare HPKE seals; and how many it lists."""
    floor = members / _seal(members)
    seated = asyncio.run(_import(members, seat=True))
    listed = asyncio.run(_import(members, seat=False))
    return [
        Figure(
            case="import",
            what=f"{members:,} devices seated, stored and published",
            value=members / seated,
            unit="/s",
            floor=floor,
            floor_what="the same HPKE seals, bare, on all cores",
        ),
        Figure(case="import", what=f"{members:,} devices listed, stored", value=members / listed, unit="/s"),
    ]


def _seal(members: int) -> float:
    """Return the seconds that the seals alone take."""
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_seal_some, [1] * cores))  # until all are there
        start = time.perf_counter()
        list(pool.map(_seal_some, [members // cores] * cores))
        return time.perf_counter() - start


def _seal_some(count: int) -> None:
    public, welcome = _SUITE.public_key(os.urandom(_SUITE.seed_size)), bytes(_WELCOME)
    for _ in range(count):
        _SUITE.seal(public, welcome, b"")


def _file(members: int, *, seat: bool) -> Iterator[str]:
    for number in range(members):
        public = f",{_SUITE.public_key(os.urandom(_SUITE.seed_size)).hex()}" if seat else ""
        yield f"device-{number:07d},{os.urandom(32).hex()}{public}\n"


async def _import(members: int, *, seat: bool) -> float:
    """Return the seconds that it takes until the in-memory broker has everything."""
    file = io.BytesIO("".join(_file(members, seat=seat)).encode())
    async with contextlib.AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        store = stack.enter_context(contextlib.closing(SqliteStore(Path(directory) / "brokerkm.sqlite")))
        broker = create("memory://bench-import", Options(role=Role.SERVER))
        server = await stack.enter_async_context(KeyServer(store, broker, interval=0, retained_wait=0.0))
        await server.admin.create_group(_GROUP)
        start = time.perf_counter()
        count = await import_file(server.admin, _GROUP, file, as_json=False)
        published = server.publisher is not None and await server.publisher.drained(_GROUP, _PATIENCE)
        seconds = time.perf_counter() - start
        if count != {"seated" if seat else "added": members} or not published:
            raise AssertionError
        return seconds

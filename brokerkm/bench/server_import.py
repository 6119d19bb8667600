"""What it costs to enroll devices by the thousand: from their keys to Welcomes that are on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Final

from brokerkm.bench.figure import Figure
from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Suite
from brokerkm.service.api import IMPORT_ROWS
from brokerkm.service.changes import PendingJoin
from brokerkm.service.server import KeyServer
from brokerkm.store.sqlite import SqliteStore

_GROUP: Final = "plant"
_AT_ONCE: Final = 20_000  # devices that one commit seats
_WELCOME: Final = 400  # bytes that are sealed to a device in a group of 100,000
_SAMPLE: Final = 5_000  # bare seals


def import_devices(members: int) -> list[Figure]:
    """Return how many devices a second are listed and seated in a store on the disk, beside bare HPKE seals."""
    suite = Suite.X25519
    public = suite.public_key(os.urandom(suite.seed_size))
    start = time.perf_counter()
    for _ in range(min(members, _SAMPLE)):
        suite.seal(public, bytes(_WELCOME), b"")
    floor = min(members, _SAMPLE) / (time.perf_counter() - start)
    return [
        Figure(
            case="import",
            what=f"{members:,} devices listed and seated, durable",
            value=members / asyncio.run(_import(members)),
            unit="/s",
            floor=floor,
            floor_what="the same HPKE seals, bare, one after another",
        )
    ]


async def _import(members: int) -> float:
    """Return the seconds that it takes."""
    suite = Suite.X25519
    devices = [
        Enrollment(f"device-{number:07d}", os.urandom(32), suite.public_key(os.urandom(32)), os.urandom(16))
        for number in range(members)
    ]
    async with contextlib.AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        store = stack.enter_context(contextlib.closing(SqliteStore(Path(directory) / "brokerkm.sqlite")))
        server = await stack.enter_async_context(KeyServer(store, interval=0))
        await server.admin.create_group(_GROUP)
        live, now = server.groups[_GROUP], int(server.clock() * 1000)
        start = time.perf_counter()
        for at in range(0, members, IMPORT_ROWS):
            rows = [(one.member, one.identity) for one in devices[at : at + IMPORT_ROWS]]
            await server.admin.import_members(_GROUP, rows)
        for at in range(0, members, _AT_ONCE):
            joins = [PendingJoin(one, now, None, "operator:bench") for one in devices[at : at + _AT_ONCE]]
            await asyncio.gather(*(live.seat(join) for join in joins))
        seconds = time.perf_counter() - start
        if len(live.group.directory) != members:
            raise AssertionError
        return seconds

"""What tens of thousands of members that ask for keys at once cost the key server, and what those get."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from brokerkm.bench.figure import Figure
from brokerkm.bench.row import best_of
from brokerkm.bench.server_store import plant
from brokerkm.core.commit import Enrollment
from brokerkm.core.messages import Kind
from brokerkm.core.request import Asked, Sync
from brokerkm.core.wire import NONCE_SIZE, message_type
from brokerkm.service.server import KeyServer
from brokerkm.store.sqlite import SqliteStore
from brokerkm.transport import Delivery, Options, Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from brokerkm.core.group import Group
    from brokerkm.service.live import LiveGroup
    from brokerkm.service.requests import Requests
    from brokerkm.transport import Transport

STORM_BYTES: Final = 300_000_000
_BROKER: Final = "memory://bench-requests"
_RETRY: Final = (2.0, 6.0)  # seconds until a member that has no answer asks again
_PATIENCE: Final = 600.0  # seconds for a whole storm


def sync_storm(members: int, broker: str = _BROKER) -> list[Figure]:
    """Return how long it takes to serve `members` that all ask at once, and what memory that takes.

    Args:
        broker: URL of one that nobody else uses meanwhile; by default one in this process.

    Raises:
        TimeoutError: not all were served within minutes.
    """
    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(_storm(plant(Path(directory), members), members, broker))


@contextlib.asynccontextmanager
async def served(path: Path, broker: str = _BROKER) -> AsyncGenerator[tuple[LiveGroup, Requests]]:
    """Serve the only group of a store at a broker, by default one in this process."""
    with contextlib.closing(SqliteStore(path)) as store:
        transport = create(broker, Options(role=Role.SERVER))
        async with KeyServer(store, transport, retained_wait=0.1) as server:
            (group,) = server.groups.values()
            assert server.requests is not None  # noqa: S101 - it has a transport
            yield group, server.requests


class _Fleet:
    """Members that ask until they are served; their keys are read from the server's own tree."""

    def __init__(self, group: Group, root: str, members: int, transport: Transport) -> None:
        self._group: Final = group
        self._root: Final = root
        self._transport: Final = transport
        self._counter = 0
        self._random: Final = random.Random(1)  # noqa: S311 - when to ask again is no secret
        self.waiting: Final = set(range(members))
        self.asked = 0
        self.served: Final = asyncio.Event()

    async def listen(self) -> None:
        """Note who is served."""
        async for item in self._transport.incoming():
            if not isinstance(item, Delivery) or item.retained or not item.payload:
                continue  # what an earlier storm has left
            if message_type(item.payload) == Kind.WELCOME:
                self.waiting.discard(int(item.topic.rsplit("-", 1)[1]))
                if not self.waiting:
                    self.served.set()

    async def ask(self) -> None:
        """Let all ask at once, and those who get no answer again, each after a while of its own."""
        while not self.served.is_set():
            self._counter += 1
            due = sorted((self._random.uniform(*_RETRY), slot) for slot in self.waiting)
            began = asyncio.get_running_loop().time()
            for pause, slot in due:
                if self._counter > 1:  # the first time they all come in the same moment
                    await asyncio.sleep(max(0.0, began + pause - asyncio.get_running_loop().time()))
                if slot in self.waiting:
                    await self._sync(slot)

    async def _sync(self, slot: int) -> None:
        name, key = f"device-{slot:07d}", self._group.leaf_key_at(slot)
        asked = Asked(os.urandom(NONCE_SIZE), int(time.time() * 1000), self._counter)
        self.asked += 1
        payload = Sync.seal(key, self._group.name, name, asked=asked, epoch=1)
        await self._transport.request(f"{self._root}/r/{name}", payload)


async def _storm(path: Path, members: int, broker: str) -> list[Figure]:
    async with served(path, broker) as (group, _):
        transport = create(broker, Options(timeout=_PATIENCE))
        await transport.open()
        fleet = _Fleet(group.group, group.topics.root, members, transport)
        await transport.subscribe([f"{group.topics.root}/m/+"])
        gc.collect()
        before, began = _resident(), time.perf_counter()
        _forget_peak()
        tasks = [asyncio.create_task(fleet.listen()), asyncio.create_task(fleet.ask())]
        try:
            async with asyncio.timeout(_PATIENCE):
                await fleet.served.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await transport.close()
        taken, grown = time.perf_counter() - began, max(0, _peak() - before)
        floor = _bare_welcomes(group.group, members)
    return [
        Figure(
            case="storm",
            what=f"serving {members:,} that ask to sync at once",
            value=taken,
            unit="s",
            floor=floor,
            floor_what="their Welcomes sealed and signed, one after the other",
        ),
        Figure(case="storm", what="requests until all were served, a member", value=fleet.asked / members, unit="x"),
        Figure(
            case="storm",
            what="memory that it adds at its peak, the members' side too",
            value=float(grown),
            unit="bytes",
            at_most=STORM_BYTES,
        ),
    ]


def _bare_welcomes(group: Group, members: int) -> float:
    sample = min(members, 500)
    kem_public = group.suite.public_key(bytes(group.suite.seed_size))

    def work() -> None:
        for slot in range(sample):
            who = Enrollment(f"device-{slot:07d}", bytes(32), kem_public, bytes(NONCE_SIZE))
            group.welcome(who, time.time(), slot)

    return best_of(1, work)[0] / sample * members


def _resident() -> int:
    """Return the resident bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def _forget_peak() -> None:
    """Have the kernel measure the peak anew, where it can (proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> int:
    """Return the most resident bytes since `_forget_peak`."""
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

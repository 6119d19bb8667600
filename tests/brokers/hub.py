"""Hubs and members over ZeroMQ for tests: free addresses, transports that end with the test."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import random
import socket
import tempfile
from typing import TYPE_CHECKING

from brokerkm.transport import Connected, Delivery, Disconnected, Options, Role
from brokerkm_zmq import ZmqTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from brokerkm.transport import Incoming

PATIENCE = 20.0  # seconds after which a test gives up waiting


def tcp_url() -> str:
    """Return a loopback URL whose two ports are free, below those that the kernel hands out."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for number in (port, port + 1):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            return f"zmq+tcp://127.0.0.1:{port}"


@contextlib.contextmanager
def ipc_url() -> Iterator[str]:
    """Give a URL in a directory of its own; pytest's paths are too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="bkm") as directory:
        yield f"zmq+ipc://{directory}/hub"


def possessions() -> tuple[int, int]:
    """Count this process's tasks and open files."""
    return len(asyncio.all_tasks()), len(list(pathlib.Path("/proc/self/fd").iterdir()))


class Watched:
    """An open transport whose incoming is read all the time.

    Args:
        transport: open already.
    """

    def __init__(self, transport: ZmqTransport) -> None:
        self.transport = transport
        self.seen: list[Incoming] = []
        self._more = asyncio.Condition()
        self._task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        async for item in self.transport.incoming():
            async with self._more:
                self.seen.append(item)
                self._more.notify_all()

    async def until(self, condition: Callable[[list[Incoming]], object]) -> list[Incoming]:
        """Return what was seen as soon as it fulfils a condition."""
        async with asyncio.timeout(PATIENCE), self._more:
            await self._more.wait_for(lambda: condition(self.seen))
            return self.seen

    async def deliveries(self, count: int) -> list[Delivery]:
        """Return the first deliveries, once there are as many."""
        await self.until(lambda _: len(self.delivered) >= count)
        return self.delivered

    @property
    def delivered(self) -> list[Delivery]:
        """All deliveries so far."""
        return [item for item in self.seen if isinstance(item, Delivery)]

    async def reconnected(self, times: int = 1) -> None:
        """Return when the connection has been broken and restored so many times."""

        def restored(seen: list[Incoming]) -> bool:
            breaks = sum(isinstance(item, Disconnected) for item in seen)
            events = [item for item in seen if not isinstance(item, Delivery)]
            return breaks >= times and isinstance(events[-1], Connected)

        await self.until(restored)

    async def close(self) -> None:
        """Close the transport and see that incoming ends."""
        await self.transport.close()
        async with asyncio.timeout(PATIENCE):
            await self._task


@contextlib.asynccontextmanager
async def opened(url: str, role: Role = Role.MEMBER, **options: object) -> AsyncIterator[Watched]:
    """Give an open transport, read all the time."""
    authorize = options.pop("authorize", None)
    transport = ZmqTransport(url, Options(role=role, **options), authorize)  # type: ignore[arg-type]
    await transport.open()
    watched = Watched(transport)
    try:
        yield watched
    finally:
        await watched.close()

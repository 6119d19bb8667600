"""A proxy before PostgreSQL that swallows the answer to one COMMIT and hangs up, so that nobody knows what it did."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Proxy:
    """Passes all on; once `needle` is set, the COMMIT after the first statement with it ends its connection."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self.needle: bytes | None = None
        self.swallowed = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        back = asyncio.create_task(self._copy(server_reader, writer))
        chosen = False
        try:
            while data := await reader.read(65536):
                if self.needle is not None and self.needle in data:
                    chosen, self.needle = True, None
                swallow = chosen and b"COMMIT" in data
                if swallow:
                    back.cancel()
                    await asyncio.wait([back])
                server_writer.write(data)
                if swallow:
                    await server_reader.read(65536)  # it is done, and nobody hears of it
                    self.swallowed += 1
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            back.cancel()
            await asyncio.wait([back])
            for one in (writer, server_writer):
                one.close()
                with contextlib.suppress(ConnectionError):
                    await one.wait_closed()
            self._tasks.discard(task)

    async def close(self) -> None:
        """Hang up on all."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)


@contextlib.asynccontextmanager
async def proxy(target: int) -> AsyncGenerator[tuple[Proxy, int]]:
    """Run a proxy before `target`; give it and its port."""
    made = Proxy(target)
    server = await asyncio.start_server(made.accept, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    try:
        yield made, port
    finally:
        server.close()
        await made.close()
        await server.wait_closed()

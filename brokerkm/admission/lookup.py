"""Looking names up without anybody else having to wait: a resolver that hangs keeps only its own few threads busy.

The event loop would look them up in the threads that the rest of the server works with, and there are only a handful.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Final

MAX_HANGING: Final = 8  # lookups under way; a resolver that answers needs milliseconds


class Lookups:
    """Lookups of this process, in threads of their own that nobody waits for at its end."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._under_way = 0

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host, each once; raises `OSError`."""
        with self._lock:
            if self._under_way >= MAX_HANGING:
                message = f"{MAX_HANGING} names are being looked up already: does the resolver answer?"
                raise OSError(message)
            self._under_way += 1
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()

        def tell(result: list[str] | OSError) -> None:
            if found.done():
                return
            if isinstance(result, OSError):
                found.set_exception(result)
            else:
                found.set_result(result)

        def look() -> None:
            result: list[str] | OSError
            try:
                known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                result = list(dict.fromkeys(str(address[0]) for *_, address in known))
            except OSError as error:
                result = error
            with self._lock:
                self._under_way -= 1
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(tell, result)

        threading.Thread(target=look, name="lookup of a hook", daemon=True).start()
        return await found


LOOKUPS: Final = Lookups()

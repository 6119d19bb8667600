"""A key server as a process of its own, to be killed: python victim.py STATE_DIRECTORY BROKER_URL."""

import asyncio
import contextlib
import sys
from pathlib import Path

from brokerkm.api import ApiServer
from brokerkm.service import STORE_FILE, KeyServer
from brokerkm.service.local import CONTROL_SOCKET
from brokerkm.store import SqliteStore
from brokerkm.transport import Options, Role, create


async def serve(state: Path, url: str) -> None:
    """Serve until killed."""
    transport = create(url, Options(role=Role.SERVER, client_id="victim"))
    with contextlib.closing(SqliteStore(state / STORE_FILE)) as store:
        async with (
            KeyServer(store, transport, interval=0, broker=url) as server,
            ApiServer(server, state / CONTROL_SOCKET),
        ):
            print("serving", flush=True)  # noqa: T201 - the test waits for it
            await server.wait()


asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))

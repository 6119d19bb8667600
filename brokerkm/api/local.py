"""The way to administer a key server from another process: by its socket, or over its store while none runs."""

from __future__ import annotations

import contextlib
import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from brokerkm.api.client import RemoteAdmin
from brokerkm.errors import StoreError, TransportError
from brokerkm.service.local import CONTROL_SOCKET, STORE_FILE
from brokerkm.service.server import KeyServer
from brokerkm.store.sqlite import SqliteStore

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator

    from brokerkm.service.api import AdminApi


@contextlib.asynccontextmanager
async def open_admin(directory: str | os.PathLike[str]) -> AsyncGenerator[AdminApi]:
    """Administer the groups in a state directory: by the server that runs on it, or directly if none does.

    What is done without a server is stored, and published when one starts.

    Raises:
        StoreError: the store is in use by a process that does not listen, or cannot be opened.
    """
    place = Path(directory)
    try:
        remote = await RemoteAdmin.connect(place / CONTROL_SOCKET)
    except TransportError as absent:
        try:
            store = SqliteStore(place / STORE_FILE)
        except StoreError as error:
            raise error from absent
        with contextlib.closing(store):
            async with KeyServer(store, interval=0) as server:
                yield server.admin.acting(f"operator:{_user()}")
    else:
        try:
            yield remote
        finally:
            await remote.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "local"

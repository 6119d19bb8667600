"""The way to administer a key server from another process: by its socket, or over its store while none runs."""

from __future__ import annotations

import contextlib
import getpass
import os
from pathlib import Path
from typing import TYPE_CHECKING

from brokerkm.api.client import RemoteAdmin
from brokerkm.config import load
from brokerkm.config.stores import is_shared, open_store
from brokerkm.errors import StoreError, TransportError, UsageError
from brokerkm.service.local import CONTROL_SOCKET
from brokerkm.service.server import KeyServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from brokerkm.service.api import AdminApi
    from brokerkm.store.sql import SqlStore


@contextlib.asynccontextmanager
async def open_admin(directory: str | os.PathLike[str]) -> AsyncGenerator[AdminApi]:
    """Administer the groups in a state directory: by the server that runs on it, or directly if none does.

    What is done without a server is stored, and published when one starts. Where the store is and what it is sealed
    under, the configuration says that ``$BROKERKM_CONFIG`` names, as to the server itself.

    Raises:
        UsageError: the configuration is wrong, or its store is one that several servers share.
        StoreError: the store is in use by a process that does not listen, or cannot be opened.
    """
    place = Path(directory)
    try:
        remote = await RemoteAdmin.connect(place / CONTROL_SOCKET)
    except TransportError as absent:
        try:
            store = _store(place)
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


def _store(place: Path) -> SqlStore:
    configuration = load(os.environ.get("BROKERKM_CONFIG") or None, os.environ)
    if is_shared(configuration):
        message = "the store is one that several servers share: start one of them, or name one by --server"
        raise UsageError(message)
    return open_store(configuration, place)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "local"

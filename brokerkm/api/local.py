"""The way to administer a key server from another process: by its socket, or over its store while none runs."""

from __future__ import annotations

import contextlib
import getpass
import os
from pathlib import Path
from typing import TYPE_CHECKING

from brokerkm.api.client import RemoteAdmin
from brokerkm.config import load
from brokerkm.config.stores import absent, is_shared, open_store
from brokerkm.config.terms import terms
from brokerkm.errors import StoreError, TransportError, UsageError
from brokerkm.service.leadership import SoleLeadership
from brokerkm.service.local import CONTROL_SOCKET
from brokerkm.service.server import KeyServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from brokerkm.config import Configuration
    from brokerkm.service.api import AdminApi
    from brokerkm.store.lease import ServerRecord
    from brokerkm.store.sql import SqlStore


@contextlib.asynccontextmanager
async def open_admin(
    directory: str | os.PathLike[str], config: str | os.PathLike[str] | None = None, *, create: bool = False
) -> AsyncGenerator[AdminApi]:
    """Administer the groups in a state directory: by the server that runs on it, or directly if none does.

    What is done without a server is stored, and published when one starts.

    Args:
        config: file of the configuration, which says where the store is and what it is sealed under; by default the
            one that ``$BROKERKM_CONFIG`` names. A server that runs knows that itself: then nothing is read.
        create: make a store, and its key, where there is neither a server nor a store.

    Raises:
        UsageError: neither a server nor a store is there; or the configuration is wrong, or its store is one that
            several servers share.
        StoreError: the store is in use by a process that does not listen, or cannot be opened.
    """
    place = Path(directory)
    try:
        remote = await RemoteAdmin.connect(place / CONTROL_SOCKET)
    except TransportError as none:
        try:
            configuration = load(config or os.environ.get("BROKERKM_CONFIG") or None, os.environ)
            store = _store(place, configuration, create)
        except (StoreError, UsageError) as error:
            raise error from none
        with contextlib.closing(store):
            begin = terms(configuration.defaults)
            async with KeyServer(store, interval=0, terms=begin, leadership=_Nobody()) as server:
                yield server.admin.acting(f"operator:{_user()}")
    else:
        try:
            yield remote
        finally:
            await remote.close()


class _Nobody(SoleLeadership):
    """What leads the groups while no server runs: none of the servers that are listed."""

    async def servers(self) -> list[ServerRecord]:
        """Return none."""
        return []


def _store(place: Path, configuration: Configuration, create: bool) -> SqlStore:  # noqa: FBT001 - as it was given
    nobody = f"no server answers at {place / CONTROL_SOCKET}, and"
    if is_shared(configuration):
        message = (
            f"{nobody} the store is one that several servers share: start one of them, or name one by --server; if one "
            "runs here, name its directory by --state or $BROKERKM_SERVER_STATE"
        )
        raise UsageError(message)
    if not create and (missing := absent(configuration, place)):
        message = f"{nobody} {missing}"
        raise UsageError(message)
    return open_store(configuration, place, create=create)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "local"

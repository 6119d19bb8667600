"""The store of a key server in another process, and the way to the store that is there."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from brokerkm.api.client import RemoteAdmin
from brokerkm.api.local import open_admin
from brokerkm.errors import UsageError
from brokerkm.service.admin import Admin
from brokerkm.service.storekeeping import StoreInfo, StoreKeeping
from brokerkm.store.protocol import Progress, ignore
from brokerkm.store.records import Finding

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from brokerkm.service.storekeeping import StoreApi


class RemoteStore:
    """`StoreApi` over the connection of a `RemoteAdmin`."""

    def __init__(self, admin: RemoteAdmin) -> None:
        self._admin: Final = admin

    async def show(self) -> StoreInfo:
        """Return what kind of store it is."""
        return StoreInfo(**await self._admin.ask("GET", "/v1/store"))

    async def backup(self, path: Path, progress: Progress = ignore) -> None:
        """Have the server write a copy."""
        await self._admin.follow("/v1/store/backup", {"path": str(path)}, progress)

    async def verify(self, progress: Progress = ignore) -> list[Finding]:
        """Have the server look what is wrong."""
        found = await self._admin.follow("/v1/store/verify", {}, progress)
        return [Finding(**item) for item in found["items"]]

    async def rewrap(self, spec: str, directory: Path, *, deep: bool = False, progress: Progress = ignore) -> None:
        """Have the server change the store key."""
        body = {"key": spec, "directory": str(directory), "deep": deep}
        await self._admin.follow("/v1/store/rewrap", body, progress)


@contextlib.asynccontextmanager
async def open_keeping(state: Path, config: Path | None = None) -> AsyncGenerator[StoreApi]:
    """Take care of the store in a state directory: by the server that runs on it, or directly if none does.

    Args:
        config: file of the configuration, as in `open_admin`.

    Raises:
        UsageError: neither a server nor a store is there.
        StoreError: the store is in use by a process that does not listen, or cannot be opened.
    """
    async with open_admin(state, config) as admin:
        match admin:
            case RemoteAdmin():
                yield RemoteStore(admin)
            case Admin():
                yield StoreKeeping(admin.server, admin.actor)
            case _:
                message = "there is no store behind this administration"
                raise UsageError(message)

"""Care of the store of a started server: copies of it, whether it is whole, and the key that it is sealed under."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from brokerkm.core.tree import PAGE_NODES
from brokerkm.errors import UsageError
from brokerkm.service.office import Office
from brokerkm.store.protocol import Progress, ignore
from brokerkm.store.records import Change
from brokerkm.store.schema import VERSION
from brokerkm.storekey import open_source

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from brokerkm.store.records import Finding

_KINDS: Final = {"SqliteStore": "sqlite", "MemoryStore": "memory"}  # what several servers share is PostgreSQL


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """A store as an operator sees it.

    Args:
        version: of its tables.
        pages: of keys, of the groups that this server leads.
        unpublished: messages that wait for the broker.
    """

    kind: str
    version: int
    groups: int
    members: int
    pages: int
    unpublished: int


class StoreApi(Protocol):
    """The care of a store, in the server's process or from another.

    Every call raises `UsageError` for what cannot be done and `StoreError` if it fails; the store is then as it was.
    """

    async def show(self) -> StoreInfo:
        """Return what kind of store it is and how much is in it."""
        ...

    async def backup(self, path: Path, progress: Progress = ignore) -> None:
        """Write a copy to `path`, absolute, where there is no file yet, while the server goes on."""
        ...

    async def verify(self, progress: Progress = ignore) -> list[Finding]:
        """Return what is wrong with it."""
        ...

    async def rewrap(self, spec: str, directory: Path, *, deep: bool = False, progress: Progress = ignore) -> None:
        """Put it under the store key that `spec` names, with relative paths from `directory`, the store's."""
        ...


class StoreKeeping(Office):
    """`StoreApi` on a started server."""

    async def show(self) -> StoreInfo:
        """Return what kind of store it is."""
        groups = list(self._server.groups.values())
        levels = [len(level.births) for group in groups for level in group.group.tree.levels]
        return StoreInfo(
            kind=_KINDS.get(type(self._server.store).__name__, "postgresql"),
            version=VERSION,
            groups=len(groups),
            members=sum(len(group.group.directory) for group in groups),
            pages=sum(-(-nodes // PAGE_NODES) for nodes in levels),
            unpublished=await self._call(lambda store: sum(store.waiting(group.name) for group in groups)),
        )

    async def backup(self, path: Path, progress: Progress = ignore) -> None:
        """Write a copy, from a thread of its own."""
        if not path.is_absolute():
            message = f"backup {path}: give its full path: the server's working directory is its own"
            raise UsageError(message)
        async with self._alone():
            await asyncio.to_thread(self._server.store.backup, path, progress)
        await self._write("", Change(audit=[self._entry("store-backup", str(path)[:256])]))

    async def verify(self, progress: Progress = ignore) -> list[Finding]:
        """Return what is wrong with the state that the store has now; the server goes on meanwhile."""
        async with self._alone():
            return await asyncio.to_thread(self._server.store.verify, progress, aside=True)

    async def rewrap(self, spec: str, directory: Path, *, deep: bool = False, progress: Progress = ignore) -> None:
        """Put the store under another key; with `deep` commits wait until all is sealed anew."""
        key = await asyncio.to_thread(open_source(spec, directory).read)
        async with self._alone():
            await self._call(lambda store: store.rewrap(key, deep=deep, progress=progress))
        await self._write("", Change(audit=[self._entry("store-rewrap", spec.partition(":")[0], deep=deep)]))

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        """Let nobody else at the whole store meanwhile; raises `UsageError` if somebody is."""
        care = self._server.desk.care
        if care.locked():
            message = "somebody copies, checks or seals this store just now: wait until that is done"
            raise UsageError(message)
        async with care:
            yield

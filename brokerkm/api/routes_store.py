"""Routes of the store; what reads or writes files of the server's machine is for those on that machine alone.

What takes long tells how far it is to who asks for that: `brokerkm.api.progress`.
"""

from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final, cast

from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody
from msgspec import Meta, Struct

from brokerkm.api.bodies import Acting, Listing
from brokerkm.api.peer import PEER
from brokerkm.api.problems import ProblemError
from brokerkm.api.progress import answer
from brokerkm.errors import UsageError
from brokerkm.service.credentials import Role
from brokerkm.service.storekeeping import StoreInfo, StoreKeeping
from brokerkm.store.protocol import Progress
from brokerkm.store.records import Finding

_SOURCES: Final = ("file:", "credential:", "pkcs11:")  # a command runs in the terminal of whoever wants it
_Path = Annotated[str, Meta(pattern=r"^/[^\x00-\x1f\x7f]*$", max_length=4000)]


class Backup(Struct, forbid_unknown_fields=True, frozen=True):
    """Where to write a copy of the store: a full path on the server's machine, where there is no file yet."""

    path: _Path


class Rewrap(Struct, forbid_unknown_fields=True, frozen=True):
    """The new store key, and whether to seal everything anew; relative paths are taken from `directory`."""

    key: Annotated[str, Meta(pattern="^(file|credential|pkcs11):.", max_length=2048)]
    directory: _Path
    deep: bool = False


class Done(Struct, frozen=True):
    """It is done."""

    done: bool = True


@get("/store", operation_id="showStore", role=Role.VIEWER)
async def show_store(admin: Acting) -> StoreInfo:
    """Show what kind of store the server has and how much is in it."""
    return await _keeping(admin).show()


@post("/store/backup", operation_id="backupStore", role=Role.ADMIN, status_code=200)
async def backup_store(admin: Acting, data: JSONBody[Backup], request: Request[Any, Any, Any]) -> Done:
    """Write a copy of the store on the server's machine; only over the server's own socket."""
    _check_local(request)

    async def work(progress: Progress) -> Done:
        await _keeping(admin).backup(Path(data.path), progress)
        return Done()

    return cast("Done", await answer(request, work))


@post("/store/verify", operation_id="verifyStore", role=Role.ADMIN, status_code=200)
async def verify_store(admin: Acting, request: Request[Any, Any, Any]) -> Listing[Finding]:
    """Look whether all that the store holds fits together; an empty list is good."""

    async def work(progress: Progress) -> Listing[Finding]:
        return Listing(await _keeping(admin).verify(progress), None)

    return cast("Listing[Finding]", await answer(request, work))


@post("/store/rewrap", operation_id="rewrapStore", role=Role.ADMIN, status_code=200)
async def rewrap_store(admin: Acting, data: JSONBody[Rewrap], request: Request[Any, Any, Any]) -> Done:
    """Put the store under another key; only over the server's own socket."""
    _check_local(request)
    if not data.key.startswith(_SOURCES):
        message = "a running server takes its new key from a file, a credential or a token"
        raise UsageError(message)

    async def work(progress: Progress) -> Done:
        await _keeping(admin).rewrap(data.key, Path(data.directory), deep=data.deep, progress=progress)
        return Done()

    return cast("Done", await answer(request, work))


def _keeping(admin: Acting) -> StoreKeeping:
    return StoreKeeping(admin.server, admin.actor)


def _check_local(request: Request[Any, Any, Any]) -> None:
    if not request.scope["state"][PEER].is_local:
        message = "this is done on the server's machine alone: `brokerkm store` there"
        raise ProblemError(HTTPStatus.FORBIDDEN, "forbidden", message)


ROUTES: Final[list[HTTPRouteHandler]] = [show_store, backup_store, verify_store, rewrap_store]

"""How the administrative commands find their server and their group."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from brokerkm.cli.lazy import FailedError, WrongError
from brokerkm.cli.options import chosen_state, is_given, server_state_option

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from brokerkm.api import Remote
    from brokerkm.service import AdminApi, Outcome

_T = TypeVar("_T")
_F = TypeVar("_F", bound="Callable[..., object]")

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_REMOTE: Final = {
    "server": (str, "BROKERKM_SERVER", "Administer the server at this URL, https://HOST:PORT, instead."),
    "token_file": (_FILE, "BROKERKM_TOKEN_FILE", "File with the token for that server."),
    "ca_file": (_FILE, "BROKERKM_CA_FILE", "CA of that server's certificate, if not one of the system's."),
    "cert_file": (_FILE, "BROKERKM_CERT_FILE", "Client certificate for that server."),
    "key_file": (_FILE, "BROKERKM_KEY_FILE", "Key of the client certificate."),
}


def server_options(command: _F) -> _F:
    """Give a command what says which server it is about: a state directory here, or a URL and a token."""
    for name, (kind, variable, text) in reversed(_REMOTE.items()):
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, type=kind, envvar=variable, help=text, expose_value=False, callback=_keep)(
            command
        )
    return server_state_option(command)


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> object:
    """Keep an option for `administer`, so that it need not pass through every command."""
    context.meta[f"{__name__}.{parameter.name}"] = value
    return value


def administer(state: Path, work: Callable[[AdminApi], Awaitable[_T]], *, create: bool = False) -> _T:
    """Return what `work` makes of the server: the one that was named, that of a state directory, or its bare store.

    Args:
        create: make a store where there is neither a server nor a store.
    """
    from brokerkm.api import RemoteAdmin, open_admin  # noqa: PLC0415 - for what administers only

    target = named_target()

    async def run() -> _T:
        if target is None:
            async with open_admin(placed(state, None), create=create) as admin:
                return await work(admin)
        remote = await RemoteAdmin.reach(target)
        try:
            return await work(remote)
        finally:
            await remote.close()

    return asyncio.run(run())


def named_target() -> Remote | None:
    """Return the server that was named by its URL, None if that of a state directory is meant."""
    from brokerkm.api import Remote  # noqa: PLC0415 - for what administers only

    meta = click.get_current_context().meta
    url, *files = (meta.get(f"{__name__}.{name}") for name in _REMOTE)
    return None if url is None else Remote.from_files(url, *files)


def placed(state: Path, config: Path | None) -> Path:
    """Return the directory of the key server; if none was given, a configuration is asked, which may name one."""
    if is_given("state") or not (config or os.environ.get("BROKERKM_CONFIG")):
        return state
    from brokerkm.config import load  # noqa: PLC0415 - for who has one

    return chosen_state(state, load(config or os.environ["BROKERKM_CONFIG"], os.environ).server.state)


def runs(admin: AdminApi) -> bool:
    """Return whether a server runs, or this is its bare store."""
    from brokerkm.api import RemoteAdmin  # noqa: PLC0415 - for what administers only

    return isinstance(admin, RemoteAdmin)


async def resolve_group(admin: AdminApi, group: str | None) -> str:
    """Return the group that was named, or the only one that there is.

    Raises:
        FailedError: there is none.
        WrongError: there are several, and none was named.
    """
    if group is not None:
        return group
    names = [info.name for info in await admin.list_groups()]
    match names:
        case [name]:
            return name
        case []:
            message = "there is no group yet: run `brokerkm serve`, which makes one, or `brokerkm group create NAME`"
            raise FailedError(message)
        case _:
            message = f"there are several groups, so name one: {', '.join(names)}"
            raise WrongError(message)


def describe(outcome: Outcome) -> str:
    """Return how far a change has come."""
    if outcome.published:
        return f"epoch {outcome.epoch}, published"
    return f"epoch {outcome.epoch}, stored: it is published as soon as the server runs and reaches its broker"

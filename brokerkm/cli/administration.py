"""How the administrative commands find their server and their group."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from brokerkm.cli.lazy import FailedError, WrongError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from brokerkm.service import AdminApi, Outcome

_T = TypeVar("_T")


def administer(state: Path, work: Callable[[AdminApi], Awaitable[_T]]) -> _T:
    """Return what `work` makes of the server in a state directory, or of its store if no server runs."""
    from brokerkm.api import open_admin  # noqa: PLC0415 - for what administers only

    async def run() -> _T:
        async with open_admin(state) as admin:
            return await work(admin)

    return asyncio.run(run())


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

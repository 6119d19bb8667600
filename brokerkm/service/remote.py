"""Administration of a server in another process, through its control socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, Final, Self, cast

from brokerkm.core.crypto import Suite
from brokerkm.core.group import DEFAULT_DEGREE
from brokerkm.core.names import DEFAULT_PREFIX
from brokerkm.core.policy import Policy
from brokerkm.descriptor import Descriptor
from brokerkm.errors import TransportError
from brokerkm.service.api import DEFAULT_BEACON_INTERVAL, DEFAULT_LIFETIME, GroupInfo, MemberInfo, Outcome
from brokerkm.service.calls import ERRORS, MAX_LINE, to_json
from brokerkm.service.control import check_path

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE: Final = 60.0  # seconds; a commit of a large batch takes some, a broker that is away 5 more


class RemoteAdmin:
    """`AdminApi` over one connection, one call at a time; the server's errors are raised here as they were there."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader: Final = reader
        self._writer: Final = writer

    @classmethod
    async def connect(cls, path: Path) -> Self:
        """Return a connection to the server at `path`; raises `TransportError` if none listens there."""
        check_path(path)
        try:
            return cls(*await asyncio.open_unix_connection(path, limit=MAX_LINE))
        except OSError as error:
            message = f"no key server answers at {path}: {error.strerror}"
            raise TransportError(message) from error

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def create_group(
        self,
        group: str,
        *,
        degree: int = DEFAULT_DEGREE,
        suite: Suite = Suite.X25519,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        prefix: str = DEFAULT_PREFIX,
        beacon_interval: int = DEFAULT_BEACON_INTERVAL,
    ) -> GroupInfo:
        """Create a group."""
        found = await self._call(
            "create_group",
            group=group,
            degree=degree,
            suite=suite,
            policy=policy,
            prefix=prefix,
            beacon_interval=beacon_interval,
        )
        return GroupInfo(**found)

    async def list_groups(self) -> list[GroupInfo]:
        """Return all groups."""
        return [GroupInfo(**found) for found in await self._call("list_groups")]

    async def show(self, group: str) -> GroupInfo:
        """Return one group."""
        return GroupInfo(**await self._call("show", group=group))

    async def rotate(self, group: str, *, everything: bool = False) -> Outcome:
        """Give the group new keys."""
        return Outcome(**await self._call("rotate", group=group, everything=everything))

    async def list_members(self, group: str, *, after: str = "") -> list[MemberInfo]:
        """Return members with ids above `after`."""
        return [MemberInfo(**found) for found in await self._call("list_members", group=group, after=after)]

    async def add_member(self, group: str, member: str, identity: bytes) -> MemberInfo:
        """List the key that may join as `member`."""
        return MemberInfo(**await self._call("add_member", group=group, member=member, identity=identity))

    async def evict(self, group: str, member: str, *, urgent: bool = True) -> Outcome:
        """Cut a member off."""
        return Outcome(**await self._call("evict", group=group, member=member, urgent=urgent))

    async def readmit(self, group: str, member: str) -> MemberInfo:
        """Let an evicted member join again with its key."""
        return MemberInfo(**await self._call("readmit", group=group, member=member))

    async def invite(
        self, group: str, *, uses: int = 1, lifetime: float = DEFAULT_LIFETIME, broker: str | None = None
    ) -> Descriptor:
        """Return a descriptor with a new token."""
        where = {} if broker is None else {"broker": broker}
        return Descriptor.from_json(await self._call("invite", group=group, uses=uses, lifetime=lifetime, **where))

    async def _call(self, call: str, **arguments: object) -> Any:  # noqa: ANN401 - the caller knows what its call returns
        given = {name: to_json(value) for name, value in arguments.items()}
        request = json.dumps({"call": call, "with": given}).encode() + b"\n"
        try:
            async with asyncio.timeout(PATIENCE):
                self._writer.write(request)
                await self._writer.drain()
                answer = cast("dict[str, Any]", json.loads(await self._reader.readuntil()))
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            message = f"the key server did not answer {call}: it may have been stopped; look whether it was done"
            raise TransportError(message) from error
        if "error" in answer:
            raise ERRORS[answer["error"]](answer["message"])
        return answer["ok"]

"""Administration of a server in another process or on another machine, over its HTTP API."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Final, Self, cast

from brokerkm.api.connection import Local, Remote, Target
from brokerkm.api.exchange import PATIENCE, Exchange, segment
from brokerkm.descriptor import Descriptor
from brokerkm.offline import OfflineBundle
from brokerkm.service.api import (
    DEFAULT_LIFETIME,
    PAGE,
    AuditInfo,
    AuditVerdict,
    CredentialInfo,
    DataTopics,
    Event,
    Evicted,
    GroupInfo,
    GuardDifference,
    GuardInfo,
    Imported,
    IssuedCredential,
    MemberFilter,
    MemberInfo,
    Outcome,
    ServerStatus,
    TokenInfo,
)
from brokerkm.service.credentials import DEFAULT_LIFETIME as CREDENTIAL_LIFETIME
from brokerkm.service.rows import to_json
from brokerkm.service.terms import policy_fields, suite_name
from brokerkm.store.lease import ServerRecord

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
    from pathlib import Path

    from brokerkm.core.crypto import Suite
    from brokerkm.core.policy import Policy
    from brokerkm.offline import OfflineRequest
    from brokerkm.service.api import ImportRow
    from brokerkm.service.credentials import Role
    from brokerkm.service.terms import Named
    from brokerkm.store.protocol import Progress
    from brokerkm.store.records import Settings

MAX_PART: Final = 900_000  # bytes of an import that are sent at once; `brokerkm.api.forwarding` hands on 1 MiB


class RemoteAdmin:
    """`AdminApi` over one connection, one call at a time; the server's errors are raised here as they were there."""

    def __init__(self, target: Target, patience: float = PATIENCE) -> None:
        self._exchange: Final = Exchange(target, patience)

    @classmethod
    async def connect(cls, path: Path) -> Self:
        """Return a connection to the server whose socket is `path`; raises `TransportError` if none listens there."""
        return await cls.reach(Local(path))

    @classmethod
    async def reach(cls, target: Local | Remote) -> Self:
        """Return a connection to a server; raises `TransportError` if none answers there."""
        admin = cls(target)
        await admin._exchange.open()
        return admin

    async def close(self) -> None:
        """Hang up."""
        await self._exchange.close()

    async def ask(self, method: str, path: str, body: object = None, **query: object) -> Any:  # noqa: ANN401 - JSON
        """Return the answer to a request of what is no part of `AdminApi`; see `Exchange.ask`."""
        return await self._exchange.ask(method, path, body, **query)

    async def follow(self, path: str, body: object, progress: Progress) -> Any:  # noqa: ANN401 - JSON
        """Return what comes of something long that is no part of `AdminApi`; see `Exchange.follow`."""
        return await self._exchange.follow(path, body, progress)

    async def create_group(
        self,
        group: str,
        *,
        degree: int | None = None,
        suite: Suite | None = None,
        prefix: str | None = None,
        beacon_interval: int | None = None,
        policy: Named | None = None,
        settings: Named | None = None,
    ) -> GroupInfo:
        """Create a group."""
        terms = {
            "degree": degree,
            "suite": None if suite is None else suite_name(suite),
            "prefix": prefix,
            "beacon_interval": beacon_interval,
            "policy": None if policy is None else dict(policy),
            "settings": None if settings is None else dict(settings),
        }
        body = {"name": group} | {name: value for name, value in terms.items() if value is not None}
        return GroupInfo(**await self._exchange.ask("POST", "/v1/groups", body))

    async def list_groups(self) -> list[GroupInfo]:
        """Return all groups."""
        found: list[GroupInfo] = []
        after: str | None = ""
        while after is not None:
            page = await self._exchange.ask("GET", "/v1/groups", after=after)
            found += [GroupInfo(**item) for item in page["items"]]
            after = page["next"]
        return found

    async def show(self, group: str) -> GroupInfo:
        """Return one group."""
        return GroupInfo(**await self._exchange.ask("GET", _group(group)))

    async def rotate(self, group: str, *, everything: bool = False) -> Outcome:
        """Give the group new keys."""
        return Outcome(**await self._exchange.ask("POST", f"{_group(group)}/rotate", {"everything": everything}))

    async def set_policy(self, group: str, policy: Policy) -> Outcome:
        """Ask something else of the members."""
        info = GroupInfo(**await self._exchange.ask("PATCH", _group(group), {"policy": policy_fields(policy)}))
        return Outcome(info.epoch, info.unpublished == 0)

    async def hand_over(self, group: str) -> Outcome:
        """Draw another signing key for the group."""
        return Outcome(**await self._exchange.ask("POST", f"{_group(group)}/hand-over"))

    async def configure(self, group: str, settings: Settings) -> GroupInfo:
        """Have the server do something else for the group by itself."""
        return await self.change(group, {}, dataclasses.asdict(settings))

    async def change(self, group: str, policy: Named, settings: Named) -> GroupInfo:
        """Change what is named of both in one transaction; all else stays as it is."""
        body = {"policy": dict(policy), "settings": dict(settings)}
        return GroupInfo(**await self._exchange.ask("PATCH", _group(group), body))

    async def freeze(self, group: str) -> GroupInfo:
        """Commit nothing in the group until it is thawed."""
        return GroupInfo(**await self._exchange.ask("POST", f"{_group(group)}/freeze"))

    async def thaw(self, group: str) -> GroupInfo:
        """Go on with a group that was frozen."""
        return GroupInfo(**await self._exchange.ask("POST", f"{_group(group)}/thaw"))

    async def destroy(self, group: str, *, now: bool = False) -> Outcome:
        """End a group for good."""
        return Outcome(**await self._exchange.ask("DELETE", _group(group), now=now))

    async def list_members(
        self,
        group: str,
        *,
        after: str = "",
        limit: int = PAGE,
        which: MemberFilter = MemberFilter(),  # noqa: B008 - frozen
    ) -> list[MemberInfo]:
        """Return members with ids above `after`."""
        page = await self._exchange.ask(
            "GET", f"{_group(group)}/members", after=after, limit=limit, **dataclasses.asdict(which)
        )
        return [MemberInfo(**item) for item in page["items"]]

    async def show_member(self, group: str, member: str) -> MemberInfo:
        """Return what is known of one member id."""
        return MemberInfo(**await self._exchange.ask("GET", _member(group, member)))

    async def add_member(self, group: str, member: str, identity: bytes) -> MemberInfo:
        """List the key that may join as `member`."""
        body = {"member": member, "identity": identity.hex()}
        return MemberInfo(**await self._exchange.ask("POST", f"{_group(group)}/members", body))

    async def enroll_offline(
        self, request: OfflineRequest, *, broker: str | None = None, spares: int = 0
    ) -> OfflineBundle:
        """Seat the device whose request somebody has carried here."""
        body = {"member": request.member, "join": request.join.hex(), "broker": broker, "spares": spares}
        found = await self._exchange.ask("POST", f"{_group(request.group)}/offline", body)
        return OfflineBundle.from_json(found["bundle"])

    async def import_members(self, group: str, rows: Sequence[ImportRow]) -> list[Imported]:
        """Take in many members, in parts that any server of the group hands on to the one that leads it."""
        found: list[Imported] = []
        for part in _parts([to_json(row, group).encode() + b"\n" for row in rows]):
            report = await self._exchange.ask("POST", f"{_group(group)}/import", part)
            found += [Imported(one["member"], one["result"], one["reason"], one["field"]) for one in report["rows"]]
        return found

    async def evict(self, group: str, member: str, *, urgent: bool = True) -> Outcome:
        """Cut a member off."""
        return Outcome(**await self._exchange.ask("POST", f"{_member(group, member)}/evict", {"urgent": urgent}))

    async def evict_many(
        self, group: str, members: Sequence[str] | MemberFilter, *, urgent: bool = True, dry_run: bool = False
    ) -> Evicted:
        """Cut many members off, in one commit."""
        body: dict[str, object] = {"urgent": urgent, "dry_run": dry_run}
        if isinstance(members, MemberFilter):
            whom = dataclasses.asdict(members)
            del whom["status"]  # only the seated ones can be evicted so
            body["filter"] = whom
        else:
            body["members"] = list(members)
        return Evicted(**await self._exchange.ask("POST", f"{_group(group)}/evict", body))

    async def readmit(self, group: str, member: str) -> MemberInfo:
        """Let an evicted member join again with its key."""
        return MemberInfo(**await self._exchange.ask("POST", f"{_member(group, member)}/readmit"))

    async def refresh(self, group: str, member: str) -> MemberInfo:
        """Give a seated member a new leaf key with the next commit."""
        return MemberInfo(**await self._exchange.ask("POST", f"{_member(group, member)}/refresh"))

    async def show_admission(self, group: str) -> dict[str, Any]:
        """Return the group's admission policy."""
        return cast("dict[str, Any]", await self._exchange.ask("GET", f"{_group(group)}/admission"))

    async def set_admission(self, group: str, policy: Mapping[str, object]) -> dict[str, Any]:
        """Replace the group's admission policy."""
        return cast("dict[str, Any]", await self._exchange.ask("PUT", f"{_group(group)}/admission", dict(policy)))

    async def show_guard(self) -> GuardInfo:
        """Return how the broker's guard is."""
        return GuardInfo(**await self._exchange.ask("GET", "/v1/guard"))

    async def compare_guard(self) -> list[GuardDifference]:
        """Return where the broker and the store differ."""
        return [GuardDifference(**one) for one in await self._exchange.ask("GET", "/v1/guard/differences")]

    async def sync_guard(self) -> GuardInfo:
        """Make the broker as the store says."""
        return GuardInfo(**await self._exchange.ask("POST", "/v1/guard/sync"))

    async def show_data(self, group: str) -> DataTopics:
        """Return which topics of the application members have."""
        return DataTopics(**await self._exchange.ask("GET", f"{_group(group)}/data"))

    async def set_data(
        self, group: str, *, publish: Sequence[str] | None = None, subscribe: Sequence[str] | None = None
    ) -> DataTopics:
        """Say which topics of the application members have."""
        filters = {"publish": publish, "subscribe": subscribe}
        body = {name: list(value) for name, value in filters.items() if value is not None}
        return DataTopics(**await self._exchange.ask("PATCH", f"{_group(group)}/data", body))

    async def approve(self, group: str, member: str) -> MemberInfo:
        """Say yes to one that waits."""
        return MemberInfo(**await self._exchange.ask("POST", f"{_member(group, member)}/approve"))

    async def reject(self, group: str, member: str) -> MemberInfo:
        """Say no to one that waits."""
        return MemberInfo(**await self._exchange.ask("POST", f"{_member(group, member)}/reject"))

    async def lift(self, group: str, member: str) -> MemberInfo:
        """Let a member out of quarantine."""
        return MemberInfo(**await self._exchange.ask("POST", f"{_member(group, member)}/lift"))

    async def release(self, group: str, member: str) -> MemberInfo:
        """Free a member id from its device."""
        return MemberInfo(**await self._exchange.ask("POST", f"{_member(group, member)}/release"))

    async def invite(
        self,
        group: str,
        *,
        uses: int = 1,
        lifetime: float = DEFAULT_LIFETIME,
        broker: str | None = None,
        pattern: str = "*",
        note: str = "",
    ) -> Descriptor:
        """Return a descriptor with a new token."""
        body = {"uses": uses, "lifetime": lifetime, "broker": broker, "pattern": pattern, "note": note}
        found = await self._exchange.ask("POST", f"{_group(group)}/tokens", body)
        return Descriptor.from_json(found["descriptor"])

    async def list_tokens(self, group: str) -> list[TokenInfo]:
        """Return the enrollment tokens, oldest first."""
        found = await self._exchange.ask("GET", f"{_group(group)}/tokens")
        return [TokenInfo(**item) for item in found["items"]]

    async def revoke_token(self, group: str, token_id: str) -> None:
        """Make an enrollment token void."""
        await self._exchange.ask("DELETE", f"{_group(group)}/tokens/{segment(token_id)}")

    async def status(self) -> ServerStatus:
        """Return how the server is."""
        return ServerStatus(**await self._exchange.ask("GET", "/v1/status"))

    async def servers(self) -> list[ServerRecord]:
        """Return the servers that share the store, and what they lead."""
        found = await self._exchange.ask("GET", "/v1/servers")
        records = [ServerRecord(**item) for item in found["items"]]
        return [dataclasses.replace(record, groups=tuple(record.groups)) for record in records]

    async def move(self, group: str, to: str) -> None:
        """Have another server lead a group."""
        await self._exchange.ask("POST", f"{_group(group)}/move", {"to": to})

    async def audit(self, group: str = "", *, after: int = 0, limit: int = PAGE) -> list[AuditInfo]:
        """Return entries of an audit log."""
        found = await self._exchange.ask("GET", "/v1/audit", group=group, after=after, limit=limit)
        return [AuditInfo(**item) for item in found["items"]]

    async def verify_audit(self, group: str = "") -> AuditVerdict:
        """Check an audit log from its first entry."""
        return AuditVerdict(**await self._exchange.ask("GET", "/v1/audit/verify", group=group))

    async def events(self) -> AsyncGenerator[Event]:
        """Yield what happens from now on; raises `TransportError` when the server ends it."""
        async for line in self._exchange.stream("/v1/events"):
            if line.startswith("data: "):
                yield Event(**cast("dict[str, Any]", json.loads(line.removeprefix("data: "))))

    async def create_credential(
        self, name: str, role: Role, *, lifetime: float = CREDENTIAL_LIFETIME
    ) -> IssuedCredential:
        """Make a bearer token for the API."""
        body = {"name": name, "role": role.value, "lifetime": lifetime}
        return IssuedCredential(**await self._exchange.ask("POST", "/v1/credentials", body))

    async def list_credentials(self) -> list[CredentialInfo]:
        """Return all bearer tokens without their secrets."""
        found = await self._exchange.ask("GET", "/v1/credentials")
        return [CredentialInfo(**item) for item in found["items"]]

    async def revoke_credential(self, name: str) -> None:
        """Make a bearer token void."""
        await self._exchange.ask("DELETE", f"/v1/credentials/{segment(name)}")


def _group(group: str) -> str:
    return f"/v1/groups/{segment(group)}"


def _member(group: str, member: str) -> str:
    return f"{_group(group)}/members/{segment(member)}"


def _parts(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Yield bodies of whole lines, none longer than what one server hands on to another."""
    part, size = list[bytes](), 0
    for line in lines:
        if size + len(line) > MAX_PART:
            yield b"".join(part)
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield b"".join(part)

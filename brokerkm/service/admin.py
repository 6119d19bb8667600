"""Administration in the server's own process, or over its store while no server runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from brokerkm.core.crypto import PUBLIC_KEY_SIZE, Suite
from brokerkm.core.group import DEFAULT_DEGREE
from brokerkm.core.names import DEFAULT_PREFIX, check_identifier
from brokerkm.core.policy import Policy
from brokerkm.core.request import TOKEN_ID_SIZE
from brokerkm.descriptor import TOKEN_SECRET_SIZE, Descriptor, EnrollmentToken
from brokerkm.errors import UsageError
from brokerkm.service.api import (
    DEFAULT_BEACON_INTERVAL,
    DEFAULT_LIFETIME,
    PAGE,
    GroupInfo,
    MemberInfo,
    Outcome,
)
from brokerkm.store.records import AuditEntry, Change, GroupRecord, MemberRecord, Status, TokenRecord

if TYPE_CHECKING:
    import asyncio

    from brokerkm.service.live import LiveGroup
    from brokerkm.service.server import KeyServer

PUBLISHED_WAIT: Final = 5.0  # seconds that an outcome waits for the broker
_ACTOR: Final = "operator"  # in the audit log
_SEED_SIZE: Final = 32  # bytes; Ed25519
_MAX_SECONDS: Final = 0xFFFFFFFF
_MAX_USES: Final = 1_000_000
_MAX_LIFETIME: Final = 10 * 365 * 24 * 3600.0  # s; a token that is meant to last longer is a listed key


class Admin:
    """`AdminApi` on a started server."""

    def __init__(self, server: KeyServer) -> None:
        self._server: Final = server

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
        """Create a group with a signing key of its own."""
        if not 1 <= beacon_interval <= _MAX_SECONDS:
            message = f"beacon interval {beacon_interval} s: it has to be at least 1 s"
            raise UsageError(message)
        seed = self._server.random(_SEED_SIZE)
        record = GroupRecord(group, seed, degree, prefix, suite, policy, beacon_interval)
        return await self._info(await self._server.create_group(record))

    async def list_groups(self) -> list[GroupInfo]:
        """Return all groups, by name."""
        return [await self._info(group) for _, group in sorted(self._server.groups.items())]

    async def show(self, group: str) -> GroupInfo:
        """Return one group."""
        return await self._info(self._group(group))

    async def rotate(self, group: str, *, everything: bool = False) -> Outcome:
        """Give the group new keys."""
        live = self._group(group)
        return await self._outcome(live, live.rotate(everything=everything))

    async def list_members(self, group: str, *, after: str = "") -> list[MemberInfo]:
        """Return members with ids above `after`."""
        name = self._group(group).name
        records = await self._server.desk.call(self._server.store.members, name, after=after, limit=PAGE)
        return [_member_info(record) for record in records]

    async def add_member(self, group: str, member: str, identity: bytes) -> MemberInfo:
        """List the key that may join as `member`."""
        live = self._group(group)
        check_identifier(member, "member")
        if len(identity) != PUBLIC_KEY_SIZE:
            message = f"an identity key has {PUBLIC_KEY_SIZE} bytes, not {len(identity)}"
            raise UsageError(message)
        known = await self._known(live, member)
        if known is not None and known.status is Status.SEATED:
            if known.identity == identity:
                return _member_info(known)
            message = f"{member!r} has its place in group {group} under another key: evict it first"
            raise UsageError(message)
        return await self._list(live, member, identity, known)

    async def readmit(self, group: str, member: str) -> MemberInfo:
        """Let an evicted member join again with its key."""
        live = self._group(group)
        known = await self._known(live, member)
        if known is None or known.status is not Status.EVICTED:
            message = f"{member!r} was not evicted from group {group}"
            raise UsageError(message)
        return await self._list(live, member, known.identity, known)

    async def evict(self, group: str, member: str, *, urgent: bool = True) -> Outcome:
        """Cut a member off."""
        live = self._group(group)
        known = await self._known(live, member)
        if known is None and live.waiting_join(member) is None:
            message = f"{member!r} is not a member of group {group}"
            raise UsageError(message)
        if known is not None and known.status is Status.EVICTED:
            message = f"{member!r} has been evicted from group {group} already"
            raise UsageError(message)
        if self._server.publisher is not None:
            self._server.publisher.forget_answer(live.topics.member(member))
        return await self._outcome(live, live.evict(member, urgent=urgent))

    async def invite(
        self, group: str, *, uses: int = 1, lifetime: float = DEFAULT_LIFETIME, broker: str | None = None
    ) -> Descriptor:
        """Return a descriptor with a new token; the store keeps only the key derived from the token's secret."""
        live = self._group(group)
        url = broker or self._server.broker
        if url is None:
            message = "no broker is known here: name the URL at which the devices reach theirs"
            raise UsageError(message)
        if not (1 <= uses <= _MAX_USES and 0 < lifetime <= _MAX_LIFETIME):
            message = f"a token has 1 to {_MAX_USES} uses and at most {_MAX_LIFETIME:.0f} s"
            raise UsageError(message)
        now = self._server.clock()
        token = EnrollmentToken(self._server.random(TOKEN_ID_SIZE), self._server.random(TOKEN_SECRET_SIZE))
        descriptor = Descriptor(
            broker=url,
            group=live.name,
            prefix=live.record.prefix,
            suite=live.record.suite,
            server_key=live.group.server_key,
            token=token,
            token_expires=int(now + lifetime),
        )
        created, expiry = int(now * 1000), int((now + lifetime) * 1000)
        record = TokenRecord(token.id, token.key.key, uses, expiry, created=created)
        details = {"uses": uses, "expiry": expiry}
        audit = AuditEntry(created, _ACTOR, "invite", token.id.hex(), details)
        await self._server.desk.call(self._server.store.write, live.name, Change(tokens=[record], audit=[audit]))
        return descriptor

    def _group(self, name: str) -> LiveGroup:
        found = self._server.groups.get(name)
        if found is None:
            known = ", ".join(sorted(self._server.groups)) or "none yet: create one"
            message = f"there is no group {name[:80]!r}; there are: {known}"
            raise UsageError(message)
        return found

    async def _known(self, live: LiveGroup, member: str) -> MemberRecord | None:
        return await self._server.desk.call(self._server.store.member, live.name, member)

    async def _list(self, live: LiveGroup, member: str, identity: bytes, known: MemberRecord | None) -> MemberInfo:
        now = int(self._server.clock() * 1000)
        before = known or MemberRecord(member, Status.LISTED, identity)
        record = replace(before, status=Status.LISTED, identity=identity, since=now, blocked_until=0)
        audit = AuditEntry(now, _ACTOR, "list", member)
        await self._server.desk.call(self._server.store.write, live.name, Change(members=[record], audit=[audit]))
        return _member_info(record)

    async def _outcome(self, live: LiveGroup, stored: asyncio.Future[tuple[int, int]]) -> Outcome:
        epoch, sequence = await stored
        publisher = self._server.publisher
        return Outcome(epoch, publisher is not None and await publisher.published(live.name, sequence, PUBLISHED_WAIT))

    async def _info(self, live: LiveGroup) -> GroupInfo:
        unpublished = await self._server.desk.call(self._server.store.waiting, live.name)
        policy = live.record.policy
        return GroupInfo(
            name=live.name,
            prefix=live.record.prefix,
            suite=live.record.suite.name.lower().replace("_", "-"),
            degree=live.record.degree,
            height=live.group.tree.height,
            epoch=live.group.epoch,
            members=len(live.group.directory),
            waiting=len(live.changes),
            unpublished=unpublished,
            beacon_interval=live.record.beacon_interval,
            policy={
                "grace": policy.grace,
                "hold": policy.hold,
                "max_silence": policy.max_silence,
                "stop_when_silent": policy.stop_when_silent,
                "source_authentication": policy.source_authentication,
            },
            server_key=live.group.server_key.hex(),
        )


def _member_info(record: MemberRecord) -> MemberInfo:
    return MemberInfo(record.member, record.status.name.lower(), record.slot, record.epoch, record.identity.hex())

"""Administration of members: who may join, who must go."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from brokerkm.core.crypto import PUBLIC_KEY_SIZE
from brokerkm.core.names import check_identifier
from brokerkm.errors import UnknownNameError, UsageError
from brokerkm.service.api import PAGE, Evicted, MemberFilter, MemberInfo, Outcome
from brokerkm.service.importing import MemberImport, listed
from brokerkm.store.records import Change, MemberRecord, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brokerkm.service.live import LiveGroup
    from brokerkm.store.protocol import Store

MAX_EVICTIONS: Final = 100_000  # members that one call cuts off


class Membership(MemberImport):
    """The part of `AdminApi` that is about members."""

    async def list_members(
        self,
        group: str,
        *,
        after: str = "",
        limit: int = PAGE,
        which: MemberFilter = MemberFilter(),  # noqa: B008 - frozen
    ) -> list[MemberInfo]:
        """Return members with ids above `after`."""
        name = self._group(group).name
        return [member_info(record) for record in await self._call(_chosen, name, which, after, min(limit, PAGE))]

    async def show_member(self, group: str, member: str) -> MemberInfo:
        """Return what is known of one member id."""
        return member_info(await self._existing(self._group(group), member))

    async def add_member(self, group: str, member: str, identity: bytes) -> MemberInfo:
        """List the key that may join as `member`."""
        live = self._group(group)
        known = await self._known(live, member)
        if reason := _objection(member, identity, known):
            raise UsageError(reason)
        if known is not None and known.status is Status.SEATED:
            return member_info(known)
        return await self._list(live, member, identity, known)

    async def readmit(self, group: str, member: str) -> MemberInfo:
        """Let an evicted member join again with its key."""
        live = self._group(group)
        known = await self._existing(live, member)
        if known.status is not Status.EVICTED:
            message = f"{member!r} was not evicted from group {group}"
            raise UsageError(message)
        return await self._list(live, member, known.identity, known, "readmit")

    async def refresh(self, group: str, member: str) -> MemberInfo:
        """Give a seated member a new leaf key with the next commit."""
        live = self._thawed(group)
        known = await self._existing(live, member)
        if known.status is not Status.SEATED or live.is_leaving(member):
            message = f"{member!r} has no place in group {group}, and so no leaf key"
            raise UsageError(message)
        live.refresh([known], self._actor)
        return member_info(known)

    async def evict(self, group: str, member: str, *, urgent: bool = True) -> Outcome:
        """Cut a member off."""
        live = self._thawed(group)
        self._check_evictable(live, member, await self._known(live, member))
        self._forget_answer(live, member)
        return await self._outcome(live, live.evict(member, urgent=urgent, actor=self._actor))

    async def evict_many(
        self, group: str, members: Sequence[str] | MemberFilter, *, urgent: bool = True, dry_run: bool = False
    ) -> Evicted:
        """Cut many members off, in one commit."""
        live = self._thawed(group)
        if isinstance(members, MemberFilter):
            if members.status not in (None, "seated"):
                message = f"members that are {members.status} have no place to lose"
                raise UsageError(message)
            found = await self._call(_all_seated, live.name, members)
            names = [name for name in found if not live.is_leaving(name)]
        else:
            names = list(dict.fromkeys(members))
            for name in names:
                self._check_evictable(live, name, await self._known(live, name))
        if len(names) > MAX_EVICTIONS:
            message = f"{len(names)} members at once: {MAX_EVICTIONS} is the most"
            raise UsageError(message)
        if dry_run or not names:
            return Evicted(names, live.group.epoch, published=False, dry_run=dry_run)
        for name in names:
            self._forget_answer(live, name)
        waits = [live.evict(name, urgent=urgent, actor=self._actor) for name in names]  # no await between: one commit
        outcome = await self._outcome(live, waits[-1])
        return Evicted(names, outcome.epoch, outcome.published, dry_run=False)

    def _forget_answer(self, live: LiveGroup, member: str) -> None:
        if self._server.publisher is not None:
            self._server.publisher.forget_answer(live.topics.member(member))

    def _check_evictable(self, live: LiveGroup, member: str, known: MemberRecord | None) -> None:
        if known is None and live.waiting_join(member) is None:
            raise _unknown(live, member)
        if known is not None and known.status is Status.EVICTED:
            message = f"{member!r} has been evicted from group {live.name} already"
            raise UsageError(message)

    async def _existing(self, live: LiveGroup, member: str) -> MemberRecord:
        known = await self._known(live, member)
        if known is None:
            raise _unknown(live, member)
        return known

    async def _list(
        self, live: LiveGroup, member: str, identity: bytes, known: MemberRecord | None, action: str = "list"
    ) -> MemberInfo:
        record = listed(member, identity, known, self._now())
        await self._write(live.name, Change(members=[record], audit=[self._entry(action, member)]))
        self._tell(live, member, record.status)
        return member_info(record)


def member_info(record: MemberRecord) -> MemberInfo:
    """Return a record as an operator sees it."""
    return MemberInfo(
        member=record.member,
        status=record.status.name.lower(),
        slot=record.slot,
        epoch=record.epoch,
        identity=record.identity.hex(),
        since=record.since,
        seen=record.seen,
        acked=record.acked,
        blocked_until=record.blocked_until,
    )


def _unknown(live: LiveGroup, member: str) -> UnknownNameError:
    return UnknownNameError(f"{member[:80]!r} is not a member of group {live.name}")


def _objection(member: str, identity: bytes, known: MemberRecord | None) -> str | None:
    """Return why this key cannot be listed for this id, if so."""
    try:
        check_identifier(member, "member")
    except UsageError as error:
        return str(error)
    if len(identity) != PUBLIC_KEY_SIZE:
        return f"an identity key has {PUBLIC_KEY_SIZE} bytes, not {len(identity)}"
    if known is not None and known.status is Status.SEATED and known.identity != identity:
        return f"{member!r} has its place under another key: evict it first"
    return None


def _chosen(store: Store, group: str, which: MemberFilter, after: str, limit: int) -> list[MemberRecord]:
    status: Status | None = None
    if which.status is not None:
        if which.status.upper() not in Status.__members__:
            message = f"status {which.status[:40]!r}: it is one of {', '.join(Status.__members__).lower()}"
            raise UsageError(message)
        status = Status[which.status.upper()]
    return store.members(
        group,
        after=after,
        limit=limit,
        status=status,
        pattern=which.pattern,
        unseen_since=which.unseen_since,
        behind=which.behind,
    )


def _all_seated(store: Store, group: str, which: MemberFilter) -> list[str]:
    """Return the ids of all seated members that are meant; one more than `MAX_EVICTIONS` at most."""
    names: list[str] = []
    seated = replace(which, status="seated")
    while len(names) <= MAX_EVICTIONS:
        page = _chosen(store, group, seated, names[-1] if names else "", PAGE)
        names += [record.member for record in page]
        if len(page) < PAGE:
            break
    return names[: MAX_EVICTIONS + 1]

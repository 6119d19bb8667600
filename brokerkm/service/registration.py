"""Registration: what becomes of a Join, and of members whose conduct is not what it should be.

A Join that proves who sends it is granted, refused, put before an operator or before a hook, as the group's admission
policy has it (`brokerkm.admission`). What happens here the feed tells and the audit log keeps.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from brokerkm.admission.conduct import Response
from brokerkm.admission.hook import HookError
from brokerkm.admission.rules import Action, Applicant, Proof, Returning
from brokerkm.core.commit import Enrollment
from brokerkm.core.notice import RefusalReason
from brokerkm.errors import BrokerkmError, StoreError, UsageError
from brokerkm.service.changes import PendingJoin
from brokerkm.service.feed import Kind
from brokerkm.service.gate import Gates
from brokerkm.service.settlement import BINDING
from brokerkm.store.records import AuditEntry, Change, Document, MemberRecord, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.core.admission import Conduct
    from brokerkm.core.request import Join
    from brokerkm.service.desk import StoreDesk
    from brokerkm.service.feed import Feed
    from brokerkm.service.gate import Gate
    from brokerkm.service.live import LiveGroup
    from brokerkm.store.protocol import Store

_log = logging.getLogger(__name__)

SERVER: Final = "server"


class Registration:
    """Decides about Joins whose proof holds.

    Args:
        refuse: tells a member, by the nonce of its Join, why it has no place.
    """

    def __init__(
        self,
        store: Store,
        desk: StoreDesk,
        clock: Callable[[], float],
        feed: Feed,
        refuse: Callable[[LiveGroup, str, bytes, RefusalReason], None],
    ) -> None:
        self.gates: Final = Gates(store, desk, clock)
        self._store: Final = store
        self._desk: Final = desk
        self._clock: Final = clock
        self._feed: Final = feed
        self._refuse: Final = refuse
        self._asking: Final[dict[tuple[str, str], asyncio.Task[None]]] = {}  # questions to hooks

    async def stop(self) -> None:
        """Give up what hooks have not answered; the members ask again."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def gate(self, group: LiveGroup) -> Gate:
        """Return the group's gate; raises `StoreError` if its policy cannot be put to use."""
        try:
            return await self.gates.of(group)
        except UsageError as error:
            message = f"the admission policy of group {group.name} cannot be used: {error}"
            raise StoreError(message) from error

    async def decide(
        self, group: LiveGroup, gate: Gate, who: Applicant, join: Join, known: MemberRecord | None
    ) -> None:
        """Grant, refuse or put off a Join whose proof holds."""
        if known is not None and known.status is Status.PENDING and who.returning is Returning.NO:
            await self._keep(group, known, join)
            return
        match gate.decide(who):
            case Action.DENY:
                self.turn_away(group, who.member, join.nonce, "rule", RefusalReason.NOT_ADMITTED)
            case Action.APPROVE:
                await self._put_off(group, gate, who, join, known)
            case Action.ALLOW if gate.hook is None:
                self._grant(group, who, join)
            case Action.ALLOW:
                self._ask(group, gate, who, join)

    def turn_away(self, group: LiveGroup, member: str, nonce: bytes, why: str, reason: RefusalReason) -> None:
        """Tell the feed and the member that there is no place for it."""
        self._feed.emit(Kind.JOIN_REFUSED, group.name, member, reason=why)
        self._refuse(group, member, nonce, reason)

    def _grant(self, group: LiveGroup, who: Applicant, join: Join) -> None:
        waiting = group.waiting_join(who.member)
        if group.is_leaving(who.member) or (waiting is not None and waiting.enrollment.identity != join.identity):
            self.turn_away(group, who.member, join.nonce, "changing", RefusalReason.TRY_LATER)
            return
        credential = "" if who.proof is Proof.KEY else who.credential
        enrollment = Enrollment(who.member, join.identity, join.kem_public, join.nonce)
        group.join(
            PendingJoin(
                enrollment,
                join.time,
                who.token or None,
                counter=join.counter,
                credential=credential,
                replaces=who.returning is not Returning.NO,
            )
        )

    def _ask(self, group: LiveGroup, gate: Gate, who: Applicant, join: Join) -> None:
        """Ask the hook, while other requests are handled; a member's later Join takes the place of its earlier one."""
        key = (group.name, who.member)
        earlier = self._asking.pop(key, None)
        if earlier is not None:
            earlier.cancel()
        task = asyncio.get_running_loop().create_task(self._asked(group, gate, who, join), name=f"hook {who.member}")
        self._asking[key] = task
        task.add_done_callback(lambda done: self._asking.pop(key, None) if self._asking.get(key) is done else None)

    async def _asked(self, group: LiveGroup, gate: Gate, who: Applicant, join: Join) -> None:
        try:
            allowed = gate.hook is not None and await gate.hook.allows(who)
        except HookError as error:
            _log.warning("group %s: the admission hook was asked about %s: %s", group.name, who.member, error)
            self.turn_away(group, who.member, join.nonce, "hook-failed", RefusalReason.TRY_LATER)
            return
        if allowed:
            self._grant(group, who, join)  # the commit looks the member up once more
        else:
            self.turn_away(group, who.member, join.nonce, "hook", RefusalReason.NOT_ADMITTED)

    async def _put_off(
        self, group: LiveGroup, gate: Gate, who: Applicant, join: Join, known: MemberRecord | None
    ) -> None:
        """Let an applicant wait for an operator, if not too many do; its token has one use less from now on."""
        if known is not None and known.status is Status.SEATED:
            self.turn_away(group, who.member, join.nonce, "seated", RefusalReason.NOT_ADMITTED)
            return  # who sits there now would lose its seat by a mere request
        await self._expire(group, gate)
        count = await self._desk.call(self._store.count, group.name)
        if count.get(Status.PENDING, 0) >= gate.policy.most_pending:
            self.turn_away(group, who.member, join.nonce, "too-many-pending", RefusalReason.TRY_LATER)
            return
        await self._desk.call(self._ask_operator, group.name, who, join, int(self._clock() * 1000))
        self._feed.emit(Kind.JOIN_REQUESTED, group.name, who.member, pending=1)
        self._refuse(group, who.member, join.nonce, RefusalReason.TRY_LATER)

    def _ask_operator(self, group: str, who: Applicant, join: Join, now: int) -> None:
        """Store an applicant, unless it has become something else meanwhile; in the store's thread."""
        known = self._store.member(group, who.member)
        if known is not None and known.status is not Status.LISTED:
            return
        record = MemberRecord(
            who.member,
            Status.PENDING,
            join.identity,
            kem_public=join.kem_public,
            nonce=join.nonce,
            last_time=join.time,
            since=now,
            seen=join.time,
            counter=join.counter,
        )
        change = Change(
            members=[record],
            spent={who.token: 1} if who.token else {},
            documents=[Document(BINDING, who.member, who.credential.encode(), now)],
            audit=[AuditEntry(now, f"member:{who.member}", "ask", who.member, {"proof": who.proof.value})],
        )
        self._store.write(group, change)

    async def _keep(self, group: LiveGroup, known: MemberRecord, join: Join) -> None:
        """Keep the newest Join of one that waits for an operator: the device accepts a Welcome for its last few."""
        await self._desk.call(self._newest_join, group.name, known.member, join)
        self._refuse(group, known.member, join.nonce, RefusalReason.TRY_LATER)

    def _newest_join(self, group: str, member: str, join: Join) -> None:
        known = self._store.member(group, member)
        if known is not None and known.status is Status.PENDING:
            record = replace(
                known, kem_public=join.kem_public, nonce=join.nonce, last_time=join.time, counter=join.counter
            )
            self._store.write(group, Change(members=[record]))

    async def _expire(self, group: LiveGroup, gate: Gate) -> None:
        """Forget the applicants whom no operator has answered in time; their ids are free again."""
        now = int(self._clock() * 1000)
        await self._desk.call(self._forget, group.name, now, now - gate.policy.pending_expiry * 1000)

    def _forget(self, group: str, now: int, before: int) -> None:
        expired = self._store.members(group, status=Status.PENDING, unseen_since=before)
        if expired:
            self._store.write(
                group,
                Change(
                    members=[
                        replace(one, status=Status.LISTED, identity=b"", kem_public=b"", nonce=b"") for one in expired
                    ],
                    dropped=[(BINDING, one.member) for one in expired],
                    audit=[AuditEntry(now, SERVER, "expire", one.member) for one in expired],
                ),
            )

    async def suspect(self, group: LiveGroup, member: str, shown: Conduct, request: str) -> None:
        """Do what the policy says about a member of whose state there seem to be two."""
        gate = await self.gate(group)
        known = await self._desk.call(self._store.member, group.name, member)
        if known is None:
            return
        response, now = gate.policy.conduct.clones, int(self._clock() * 1000)
        if gate.watch.is_news(member, asyncio.get_running_loop().time()):
            self._feed.emit(Kind.CLONE_SUSPECTED, group.name, member, conduct=shown.value, request=request)
            details = {"conduct": shown.value, "request": request, "response": response.value}
            audit = [AuditEntry(now, SERVER, "suspect-clone", member, details)]
            await self._desk.call(self._store.write, group.name, Change(audit=audit))
        elif response is Response.REFRESH:
            return  # once for each case: each renewal costs everybody a commit
        match response:
            case Response.REPORT:
                pass
            case Response.QUARANTINE:
                await self.quarantine(group, known, gate.policy.conduct.quarantine, "clone")
            case Response.REFRESH if known.status is Status.SEATED and not group.is_leaving(member):
                _unattended(group.refresh([known], SERVER))
            case Response.EVICT if known.status is Status.SEATED and not group.is_leaving(member):
                _unattended(group.evict(member, urgent=True, actor=SERVER))
            case _:
                pass

    async def flaps(self, group: LiveGroup, known: MemberRecord) -> bool:
        """Count a request that was granted; return whether the member is in quarantine for it."""
        gate = await self.gate(group)
        if not gate.watch.flaps(known.member, asyncio.get_running_loop().time()):
            return False
        await self.quarantine(group, known, gate.policy.conduct.quarantine, "flapping")
        return True

    async def quarantine(self, group: LiveGroup, known: MemberRecord, seconds: int, why: str) -> None:
        """Refuse the requests of a member for a while; it keeps its place and reads on."""
        now = int(self._clock() * 1000)
        await self._desk.call(self._block, group.name, known.member, now + seconds * 1000, why, now)
        self._feed.emit(Kind.QUARANTINED, group.name, known.member, reason=why, seconds=seconds)

    def _block(self, group: str, member: str, until: int, why: str, now: int) -> None:
        known = self._store.member(group, member)
        if known is not None and known.blocked_until < until:
            audit = [AuditEntry(now, SERVER, "quarantine", member, {"why": why, "until": until})]
            self._store.write(group, Change(members=[replace(known, blocked_until=until)], audit=audit))


def _unattended(stored: asyncio.Future[tuple[int, int]]) -> None:
    """Let nobody wait for a change; the schedule reports what goes wrong, and tries again."""
    stored.add_done_callback(lambda done: done.cancelled() or isinstance(done.exception(), BrokerkmError))

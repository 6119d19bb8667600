"""Administration of admission: a group's policy, those who wait for a yes, those in quarantine, replaced hardware."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from brokerkm.admission.policy import KIND, NAME, AdmissionPolicy
from brokerkm.core.commit import Enrollment
from brokerkm.errors import UnknownNameError, UsageError
from brokerkm.service.changes import PendingJoin
from brokerkm.service.feed import Kind
from brokerkm.service.gate import Gate
from brokerkm.service.membership import member_info
from brokerkm.service.office import Office
from brokerkm.service.settlement import BINDING
from brokerkm.store.records import Change, Document, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from brokerkm.service.api import MemberInfo
    from brokerkm.store.protocol import Store
    from brokerkm.store.records import MemberRecord


class Admissions(Office):
    """The part of `AdminApi` that is about who may join."""

    async def show_admission(self, group: str) -> dict[str, Any]:
        """Return the group's admission policy."""
        document = await self._call(_policy_document, self._group(group).name)
        policy = AdmissionPolicy() if document is None else AdmissionPolicy.from_json(document.body)
        values: dict[str, Any] = json.loads(policy.to_json())
        return values

    async def set_admission(self, group: str, policy: Mapping[str, object]) -> dict[str, Any]:
        """Replace the group's admission policy, if its files and its secret can be read."""
        live, server = self._group(group), self._server
        read = AdmissionPolicy.from_json(json.dumps(policy))
        gate = await asyncio.to_thread(Gate, live.name, read, server.store, server.desk, server.clock)
        document = Document(KIND, NAME, read.to_json().encode(), self._now())
        audit = [self._entry("set-admission", live.name, rules=len(read.rules), default=read.default.value)]
        await self._write(live.name, Change(documents=[document], audit=audit))
        if server.requests is not None:
            server.requests.registration.gates.replace(live, gate)
        return await self.show_admission(group)

    async def approve(self, group: str, member: str) -> MemberInfo:
        """Say yes to one that waits; it is seated with the next commit."""
        live = self._group(group)
        before, record = await self._call(self._answer, live.name, member, "approve", Status.LISTED)
        who = Enrollment(member, before.identity, before.kem_public, before.nonce)
        live.join(PendingJoin(who, before.last_time, None, self._actor, before.counter))
        self._tell(live, member, record.status)
        return member_info(record)

    async def reject(self, group: str, member: str) -> MemberInfo:
        """Say no to one that waits; it hears so when it asks again, and then cannot before it is readmitted."""
        live = self._group(group)
        _, record = await self._call(self._answer, live.name, member, "reject", Status.EVICTED)
        self._server.feed.emit(Kind.JOIN_REFUSED, live.name, member, reason="rejected")
        self._tell(live, member, record.status)
        return member_info(record)

    async def lift(self, group: str, member: str) -> MemberInfo:
        """Let a member out of quarantine."""
        live = self._group(group)
        return member_info(await self._call(self._changed, live.name, member, "lift", _lifted))

    async def release(self, group: str, member: str) -> MemberInfo:
        """Free a member id from its device: whoever has a token or a certificate for it may take it, with a new key.

        The device that sits there now is evicted first.
        """
        live = self._group(group)
        known = await self._known(live, member)
        if (known is not None and known.status is Status.SEATED) or live.waiting_join(member) is not None:
            if self._server.publisher is not None:
                self._server.publisher.forget_answer(live.topics.member(member))
            await live.evict(member, urgent=True, actor=self._actor)
        record = await self._call(self._changed, live.name, member, "release", _released)
        if self._server.requests is not None:
            self._server.requests.sightings.forget(live.name, member)
        self._tell(live, member, record.status)
        return member_info(record)

    def _answer(
        self, store: Store, group: str, member: str, action: str, status: Status
    ) -> tuple[MemberRecord, MemberRecord]:
        """Return the record of one that waits, as it was and as it is with an operator's answer."""
        known = store.member(group, member)
        if known is None or known.status is not Status.PENDING:
            message = f"{member[:80]!r} does not wait to be admitted to group {group}"
            raise UnknownNameError(message)
        record = replace(known, status=status, since=self._now(), kem_public=b"", nonce=b"")
        store.write(group, Change(members=[record], audit=[self._entry(action, member)]))
        return known, record

    def _changed(
        self, store: Store, group: str, member: str, action: str, change: Callable[[MemberRecord, int], MemberRecord]
    ) -> MemberRecord:
        known = store.member(group, member)
        if known is None:
            message = f"{member[:80]!r} is not a member of group {group}"
            raise UnknownNameError(message)
        record = change(known, self._now())
        dropped = [(BINDING, member)] if action == "release" else []
        store.write(group, Change(members=[record], dropped=dropped, audit=[self._entry(action, member)]))
        return record


def _policy_document(store: Store, group: str) -> Document | None:
    return store.document(group, KIND, NAME)


def _lifted(known: MemberRecord, _now: int) -> MemberRecord:
    if not known.blocked_until:
        message = f"{known.member!r} is not in quarantine"
        raise UsageError(message)
    return replace(known, blocked_until=0)


def _released(known: MemberRecord, now: int) -> MemberRecord:
    if known.status is Status.SEATED:  # it has joined again between its eviction and now
        message = f"{known.member!r} has just taken its place again: try once more"
        raise UsageError(message)
    return replace(
        known,
        status=Status.LISTED,
        identity=b"",
        kem_public=b"",
        nonce=b"",
        since=now,
        counter=0,
        blocked_until=0,
    )

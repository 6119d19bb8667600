"""Import of members: thousands of rows at a time are listed in one transaction, or seated in one commit.

A row that cannot be is refused by itself, and nothing else is. What is refused, what was there already and what is new
is decided here first, for people to read, and once more by the commit, for good.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import PUBLIC_KEY_SIZE, Suite
from brokerkm.core.names import check_identifier, is_identifier
from brokerkm.core.request import Join, first_nonce
from brokerkm.errors import Reason, RefusedError, UsageError
from brokerkm.service.api import IMPORT_ROWS, Imported
from brokerkm.service.changes import PendingJoin
from brokerkm.service.office import PUBLISHED_WAIT, Office
from brokerkm.store.records import Change, MemberRecord, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brokerkm.service.api import ImportRow
    from brokerkm.service.changes import Rejection
    from brokerkm.service.live import LiveGroup
    from brokerkm.store.protocol import Store

_SHOWN: Final = 80  # characters of an id that is none


class Newcomer(NamedTuple):
    """A row that makes sense.

    Args:
        enrollment: with a KEM key if it is to be seated.
        time, counter: of its request; 0 if there was none.
    """

    enrollment: Enrollment
    time: int = 0
    counter: int = 0

    @property
    def is_seated(self) -> bool:
        """Whether it is to have its place at once."""
        return bool(self.enrollment.kem_public)


class MemberImport(Office):
    """The part of `AdminApi` that takes in many members at once."""

    async def import_members(self, group: str, rows: Sequence[ImportRow]) -> list[Imported]:
        """List many keys in one transaction; seat those that come with a KEM key in one commit.

        It returns once that is stored, and the messages of the import before it are published, if there is a broker.
        """
        live = self._group(group)
        if len(rows) > IMPORT_ROWS:
            message = f"{len(rows)} rows at once: {IMPORT_ROWS} is the most"
            raise UsageError(message)
        if any(row.kem_public or row.join for row in rows):
            self._thawed(group)
        read = await asyncio.to_thread(lambda: [_read(row, live.name, live.record.suite) for row in rows])
        decided = await self._call(self._decide, live.name, read)
        for one in decided:
            if isinstance(one, Imported) and one.result == "added":
                self._tell(live, one.member, Status.LISTED)
        results = [_busy(live, one) if isinstance(one, Newcomer) else one for one in decided]
        newcomers = [one for one in results if isinstance(one, Newcomer)]
        reasons = await self._seat(live, newcomers) if newcomers else {}
        return [_outcome(one, reasons) if isinstance(one, Newcomer) else one for one in results]

    async def _seat(self, live: LiveGroup, newcomers: Sequence[Newcomer]) -> dict[str, str]:
        """Seat all of them in one commit; return why some were not, by member id."""
        reasons: dict[str, str] = {}

        def note(rejection: Rejection) -> None:
            reasons[rejection.join.enrollment.member] = rejection.why

        _, sequence = await live.seat(
            *(PendingJoin(one.enrollment, one.time, None, self._actor, one.counter, voucher=note) for one in newcomers)
        )
        before, live.imported = live.imported, sequence
        publisher = self._server.publisher
        if publisher is not None and self._server.connected:  # one import's messages may wait, while the next is sealed
            await publisher.published(live.name, before, PUBLISHED_WAIT)
        return reasons

    def _decide(self, store: Store, group: str, read: Sequence[Newcomer | Imported]) -> list[Newcomer | Imported]:
        """List what is only to be listed, and leave what is to be seated; in the store's thread."""
        records: list[MemberRecord] = []
        named: dict[str, Enrollment] = {}
        results: list[Newcomer | Imported] = []
        found = store.known(group, [one.enrollment.member for one in read if isinstance(one, Newcomer)])
        for one in read:
            if isinstance(one, Imported):
                results.append(one)
                continue
            who = one.enrollment
            if who.member in named:
                results.append(_twice(who, named[who.member]))
                continue
            named[who.member] = who
            known = found.get(who.member)
            verdict = _standing(one, known)
            results.append(verdict or (one if one.is_seated else Imported(who.member, "added")))
            if verdict is None and not one.is_seated:
                records.append(listed(who.member, who.identity, known, self._now()))
        if records:
            store.write(group, Change(members=records, audit=[self._entry("list", one.member) for one in records]))
        return results


def listed(member: str, identity: bytes, known: MemberRecord | None, now: int) -> MemberRecord:
    """Return the record of an id whose key may join."""
    before = known or MemberRecord(member, Status.LISTED, identity)
    return replace(before, status=Status.LISTED, identity=identity, since=now, blocked_until=0)


def _read(row: ImportRow, group: str, suite: Suite) -> Newcomer | Imported:
    """Return what a row says, or why it makes no sense."""
    member = row.member
    if not is_identifier(member):
        try:
            check_identifier(member, "member")
        except UsageError as error:
            return _refused(member, "member", str(error))
    if row.join:
        return _read_join(member, row.join, group, suite)
    if len(row.identity) != PUBLIC_KEY_SIZE:
        reason = f"an identity key has {PUBLIC_KEY_SIZE} bytes, not {len(row.identity)}"
        return _refused(member, "identity", reason)
    if not row.kem_public:
        return Newcomer(Enrollment(member, row.identity))
    try:
        suite.check_public(row.kem_public)
    except RefusedError as error:
        name = suite.name.lower().replace("_", "-")
        reason = f"no Welcome can be sealed to this key, though it is as long as one of suite {name}"
        if error.reason is Reason.WRONG_LENGTH:
            reason = f"a key of the group's suite {name} has {suite.public_size} bytes, not {len(row.kem_public)}"
        return _refused(member, "kem_public", reason)
    return Newcomer(Enrollment(member, row.identity, row.kem_public, first_nonce(row.kem_public)))


def _read_join(member: str, payload: bytes, group: str, suite: Suite) -> Newcomer | Imported:
    try:
        join = Join.decode(payload, suite)
        join.verify_signature(group, member)
        suite.check_public(join.kem_public)
    except RefusedError as error:
        name = suite.name.lower().replace("_", "-")
        return _refused(member, "join", f"no request of {member} for group {group} with its suite {name}: {error}")
    return Newcomer(Enrollment(member, join.identity, join.kem_public, join.nonce), join.time, join.counter)


def _twice(who: Enrollment, first: Enrollment) -> Imported:
    """Return what becomes of a row whose id was in an earlier one; that one counts."""
    if (who.identity, who.kem_public) == (first.identity, first.kem_public):
        return Imported(who.member, "unchanged")
    return _refused(who.member, "member", f"{who.member!r} is named twice, with different keys")


def _standing(one: Newcomer, known: MemberRecord | None) -> Imported | None:
    """Return what becomes of a row by what is known of its id; None if it is something new."""
    if known is None:
        return None
    member, is_same = known.member, known.identity == one.enrollment.identity
    match known.status:
        case Status.EVICTED:
            wrong = ("member", f"{member!r} was evicted: readmit it first")
        case Status.PENDING if one.is_seated:
            wrong = ("member", f"{member!r} waits to be admitted: approve or reject it first")
        case Status.SEATED if not is_same:
            wrong = ("identity", f"{member!r} has its place under another key: evict it first")
        case Status.SEATED if one.is_seated and known.kem_public != one.enrollment.kem_public:
            wrong = ("kem_public", f"{member!r} has joined with another KEM key since: to begin anew, evict it first")
        case _:
            is_new = not is_same or (one.is_seated and known.status is Status.LISTED)
            return None if is_new else Imported(member, "unchanged")
    return _refused(member, *wrong)


def _busy(live: LiveGroup, one: Newcomer) -> Newcomer | Imported:
    """Return a newcomer, unless something is happening to its id right now."""
    member = one.enrollment.member
    if live.is_leaving(member):
        return _refused(member, "member", f"{member!r} is just being evicted")
    if live.waiting_join(member) is not None:
        return _refused(member, "member", f"{member!r} is just joining by itself: run the import again")
    return one


def _outcome(one: Newcomer, reasons: dict[str, str]) -> Imported:
    member = one.enrollment.member
    return _refused(member, "", reasons[member]) if member in reasons else Imported(member, "seated")


def _refused(member: str, field: str, reason: str) -> Imported:
    return Imported(member[:_SHOWN], "refused", reason, field)

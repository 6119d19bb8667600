"""Admission: what the server does about a member's Join, Sync, Leave or Ack.

In order of cost: rate limit, form, time, what is on file (for all that wait at once), proof
(`brokerkm.core.admission`). Until the proof has been checked a request leaves nothing behind but its share of a bounded
rate limit. A member learns by a Refusal why its request fails, but not more often than a limit allows; a replay gets no
answer, because brokers repeat messages too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

from brokerkm.admission.rules import Returning
from brokerkm.core.admission import Conduct, check_proof, check_time, conduct
from brokerkm.core.commit import Enrollment
from brokerkm.core.messages import Kind
from brokerkm.core.notice import RefusalReason
from brokerkm.core.request import Ack, Join, Leave, Sync
from brokerkm.core.wire import MAX_MESSAGE, message_type
from brokerkm.errors import Reason, RefusedError, StoreError
from brokerkm.service.feed import Feed
from brokerkm.service.feed import Kind as Event
from brokerkm.service.intake import Intake, Request
from brokerkm.service.limits import RateLimit, RequestLimits
from brokerkm.service.onfile import Asker, Found, OnFile
from brokerkm.service.papers import PaperDesk, Papers
from brokerkm.service.registration import Registration
from brokerkm.service.sightings import Sightings
from brokerkm.store.records import Sighting, Status
from brokerkm.transport import Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from brokerkm.service.changes import Rejection
    from brokerkm.service.desk import StoreDesk
    from brokerkm.service.live import LiveGroup
    from brokerkm.service.publisher import Publisher
    from brokerkm.store.protocol import Store
    from brokerkm.store.records import MemberRecord

_log = logging.getLogger(__name__)

MEMBER_REFUSALS: Final = (0.5, 3.0)
MAX_TIMES: Final = 65_536  # members whose last request is remembered

_REQUESTS: Final = frozenset({Kind.JOIN, Kind.SYNC, Kind.LEAVE, Kind.ACK})
_ANSWERS: Final = {
    Reason.WRONG_TIME: RefusalReason.WRONG_TIME,
    Reason.UNKNOWN_MEMBER: RefusalReason.NOT_A_MEMBER,
    Reason.REPLAY: None,
}
"""What a member is told; NOT_ADMITTED for all other reasons."""


AnyRequest: TypeAlias = Join | Sync | Leave | Ack


class Requests:
    """Handles requests one at a time, in the order in which they came.

    Args:
        serves: whether a group is (still) this server's to answer for.

    Attributes:
        intake: what `offer` has let in.
        refused: how many were refused, by reason; "rate" and "busy" for those that were not looked at.
    """

    def __init__(
        self,
        store: Store,
        desk: StoreDesk,
        publisher: Publisher,
        clock: Callable[[], float],
        feed: Feed | None = None,
        *,
        serves: Callable[[LiveGroup], bool] = lambda _group: True,
    ) -> None:
        self._store: Final = store
        self._desk: Final = desk
        self._publisher: Final = publisher
        self._clock: Final = clock
        self._feed: Final = feed or Feed(clock)
        self._refusals_to_member = RateLimit(*MEMBER_REFUSALS)
        self.limit(RequestLimits())
        self._times: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._serves: Final = serves
        self._file: Final = OnFile(store, desk)
        self.intake: Final = Intake(self._handle_all)
        self.refused: Counter[str] = Counter()
        self.sightings: Final = Sightings(store, desk)
        self.registration: Final = Registration(store, desk, clock, self._feed, self._refuse)
        self._papers: Final = PaperDesk(self._examine, self._dismiss)

    def limit(self, limits: RequestLimits) -> None:
        """Keep to these limits from now on; what was used of earlier ones is forgotten."""
        self._of_member = RateLimit(*limits.member)
        self._spare = RateLimit(*limits.spare)
        self._of_all = RateLimit(*limits.total)
        self._refusals_to_all = RateLimit(*limits.refusals)

    def may_forward(self, group: str, member: str, payload: bytes) -> bool:
        """Return whether a request for a group that another server leads is worth handing on."""
        if not self._has_room(group, member):
            return False
        try:
            return message_type(payload) in _REQUESTS
        except RefusedError:
            self.refused["form"] += 1
            return False

    def _has_room(self, group: str, member: str) -> bool:
        """Take one request from the rate limits; return whether they allowed it."""
        now = asyncio.get_running_loop().time()
        allowed = self._of_member.allow(f"{group}/{member}", now) or self._spare.allow("", now)
        if allowed and self._of_all.allow("", now):
            return True
        self.refused["rate"] += 1
        self._feed.emit(Event.REQUEST_REFUSED, group, reason="rate")
        return False

    async def stop(self) -> None:
        """Give up what hooks have not answered, and write down who was seen."""
        await self._papers.stop()
        await self.registration.stop()
        await self.sightings.flush()

    def offer(self, group: LiveGroup, member: str, payload: bytes) -> None:
        """Let a request wait to be handled, if its size, its rate and its number allow that."""
        if len(payload) > MAX_MESSAGE:
            self.refused[Reason.OVERSIZED] += 1
        elif self._has_room(group.name, member) and not self.intake.put(Request(group, member, payload)):
            self.refused["busy"] += 1
            self._feed.emit(Event.REQUEST_REFUSED, group.name, member, reason="busy")

    async def handle(self, group: LiveGroup, member: str, payload: bytes) -> None:
        """Grant or refuse what came on the request topic of `member`.

        Raises:
            StoreError: it could not be looked up; the member has to ask again.
        """
        if not self._has_room(group.name, member):
            return
        request = self._read(Request(group, member, payload))
        if request is not None:
            found = await self._file.look_up([_asker(group, member, request)])
            await self._answer(group, member, request, found)

    async def _handle_all(self, batch: Sequence[Request]) -> None:
        """Do the same for many; what cannot be looked up is passed over, and its member asks again."""
        batch = [one for one in batch if self._serves(one.group)]
        read = [(one.group, one.member, request) for one in batch if (request := self._read(one)) is not None]
        if not read:
            return
        try:
            found = await self._file.look_up([_asker(*one) for one in read])
        except StoreError as error:
            _log.warning("%d requests could not be looked up: %s", len(read), error)
            for name in {group.name for group, _, _ in read}:
                self._feed.emit(Event.STORE_FAILED, name, reason=str(error))
            return
        for group, member, request in read:
            try:
                if self._serves(group):
                    await self._answer(group, member, request, found)
            except StoreError as error:
                _log.warning("group %s: a request could not be handled: %s", group.name, error)
                self._feed.emit(Event.STORE_FAILED, group.name, reason=str(error))

    def _read(self, one: Request) -> AnyRequest | None:
        """Return a request that is well-formed, timely, and not known to be false without looking anything up."""
        group, member, payload = one
        try:
            request = _decode(group, payload)
        except RefusedError as error:  # there is no nonce to answer
            self._count(group, member, error)
            return None
        try:
            check_time(request.time, self._now(), 0)
            if not isinstance(request, Join):
                self._screen(group, member, request)
        except RefusedError as error:
            self._turn_down(group, member, request, error)
            return None
        return request

    async def _answer(self, group: LiveGroup, member: str, request: AnyRequest, found: Found) -> None:
        try:
            if not isinstance(request, Join):
                self._screen(group, member, request)
            match request:
                case Join():
                    await self._join(group, member, request, found)
                case Sync():
                    await self._sync(group, member, request, found)
                case Leave():
                    await self._leave(group, member, request, found)
                case Ack():
                    await self._ack(group, member, request, found)
        except RefusedError as error:
            self._turn_down(group, member, request, error)

    def _turn_down(self, group: LiveGroup, member: str, request: AnyRequest, error: RefusedError) -> None:
        self._count(group, member, error)
        if not isinstance(request, Ack):  # nothing answers that
            self._explain(group, member, request, error.reason)

    def _explain(self, group: LiveGroup, member: str, request: Join | Sync | Leave, reason: Reason) -> None:
        """Tell a member as much as an outsider may know of why its request was refused."""
        answer = _ANSWERS.get(reason, RefusalReason.NOT_ADMITTED)
        if isinstance(request, Join) and answer is RefusalReason.NOT_A_MEMBER:
            answer = RefusalReason.NOT_ADMITTED
        waiting = group.waiting_join(member)
        granted = waiting is not None and waiting.enrollment.nonce == request.nonce  # then this one is a forgery
        if answer is not None and not granted:
            self._refuse(group, member, request.nonce, answer)

    def rejected(self, group: LiveGroup, rejection: Rejection) -> None:
        """Tell a member that its Join, which was granted, could not be committed."""
        who = rejection.join.enrollment
        _log.info("group %s: %s was not seated: %s", group.name, who.member, rejection.reason.name)
        reason = rejection.reason.name.lower().replace("_", "-")
        self._feed.emit(Event.JOIN_REFUSED, group.name, who.member, reason=reason)
        self._refuse(group, who.member, who.nonce, rejection.reason)

    async def _examine(self, papers: Papers) -> bool:
        """Grant or refuse a Join with certificates whose turn it is; return whether it was well."""
        group, member, join = papers
        if not self._serves(group):
            return True
        try:
            found = await self._file.look_up([_asker(group, member, join)])
            await self._join(group, member, join, found, in_turn=True)
        except RefusedError as error:
            self._turn_down(group, member, join, error)
            return False
        except StoreError as error:
            _log.warning("group %s: a request could not be handled: %s", group.name, error)
            self._feed.emit(Event.STORE_FAILED, group.name, reason=str(error))
        return True

    def _dismiss(self, papers: Papers) -> None:
        self.refused["busy"] += 1
        self._feed.emit(Event.REQUEST_REFUSED, papers.group.name, papers.member, reason="busy")
        self._refuse(papers.group, papers.member, papers.join.nonce, RefusalReason.TRY_LATER)

    async def _join(self, group: LiveGroup, member: str, join: Join, found: Found, *, in_turn: bool = False) -> None:
        """Grant or refuse a Join; one with certificates has to wait until it is `in_turn`."""
        if not found.has(group, member):
            found = await self._file.look_up([_asker(group, member, join)])
        known = found.take(group, member)  # good enough: the commit looks it up once more
        token = None if join.token is None else found.tokens.get((group.name, join.token))
        if join.token is not None and token is None and (known is None or not known.identity):
            raise RefusedError(Reason.UNKNOWN_TOKEN, "credential")  # a flood is not worth more
        if group.is_leaving(member):
            self._refuse(group, member, join.nonce, RefusalReason.TRY_LATER)
            return
        if known is not None and known.status is Status.EVICTED:
            raise RefusedError(Reason.UNKNOWN_MEMBER, "member", "evicted")
        waiting = group.waiting_join(member)
        if waiting is not None and waiting.enrollment.identity != join.identity:
            raise RefusedError(Reason.BAD_SIGNATURE, "identity", "another key is about to be bound to this member id")
        if self._is_blocked(group, member, join.nonce, known):
            return
        if join.chain and not in_turn:
            self._papers.offer(Papers(group, member, join))
            return
        gate = await self.registration.gate(group)
        last_time = max(self._last_time(group, member, known), waiting.time if waiting else 0)
        who = await gate.prove(member, join, known, token, now=self._now(), last_time=last_time)
        self._remember(group, member, join.time)
        self._feed.emit(Event.JOIN_REQUESTED, group.name, member)
        if who.returning is Returning.NO:  # a device that has lost its state counts from the beginning
            await self._witness(group, member, join, known)
        if await self._flaps(group, member, join.nonce, known):
            return
        self.sightings.forget(group.name, member)
        await self.registration.decide(group, gate, who, join, known)

    async def _sync(self, group: LiveGroup, member: str, sync: Sync, found: Found) -> None:
        known = await self._known(group, member, found)
        if group.is_ahead(known):
            return  # the commit has its answer
        if self._is_blocked(group, member, sync.nonce, known):
            return
        await self._prove(group, member, sync, known)
        self.sightings.note(group.name, Sighting(member, sync.time, 0, sync.counter))
        if known is None or known.status is not Status.SEATED:
            raise RefusedError(Reason.UNKNOWN_MEMBER, "member")
        if group.is_leaving(member) or group.waiting_join(member) is not None:
            return  # the commit has its answer
        if await self._flaps(group, member, sync.nonce, known):
            return
        enrollment = Enrollment(member, known.identity, known.kem_public, sync.nonce)
        self._feed.emit(Event.SYNC, group.name, member)
        welcome = group.group.welcome(enrollment, self._clock(), known.slot)
        self._publisher.answer(Outgoing(group.topics.member(member), welcome, retain=True, audience=member))

    async def _leave(self, group: LiveGroup, member: str, leave: Leave, found: Found) -> None:
        known = await self._known(group, member, found)
        if group.is_ahead(known):
            return  # its proof cannot be checked before the commit is in memory: it asks again
        await self._prove(group, member, leave, known)
        self._publisher.forget_answer(group.topics.member(member))
        group.leave(member, leave.time)

    async def _ack(self, group: LiveGroup, member: str, ack: Ack, found: Found) -> None:
        known = await self._known(group, member, found)
        if group.is_ahead(known):
            return
        await self._prove(group, member, ack, known)
        epoch = min(ack.epoch, group.group.epoch)  # no member can have a later one
        self.sightings.note(group.name, Sighting(member, ack.time, epoch, ack.counter))
        self._feed.emit(Event.ACK, group.name, member, epoch=epoch)

    async def _prove(
        self, group: LiveGroup, member: str, request: Sync | Leave | Ack, known: MemberRecord | None
    ) -> None:
        leaf_key = group.leaf_key(known)
        last_time = self._last_time(group, member, known)
        check_proof(request, group.name, member, now=self._now(), last_time=last_time, leaf_key=leaf_key)
        self._remember(group, member, request.time)
        await self._witness(group, member, request, known)

    async def _witness(
        self, group: LiveGroup, member: str, request: Join | Sync | Leave | Ack, known: MemberRecord | None
    ) -> None:
        """See whether a request, whose proof held, shows that somebody goes on from a copy of the member's state."""
        shown = conduct(request.counter, self.sightings.last(group.name, member, known).counter)
        if shown is not Conduct.STEADY:
            await self.registration.suspect(group, member, shown, type(request).__name__.lower())

    def _is_blocked(self, group: LiveGroup, member: str, nonce: bytes, known: MemberRecord | None) -> bool:
        """Refuse the request of a member in quarantine; return whether it is."""
        if known is None or known.blocked_until <= self._now():
            return False
        self.refused["quarantined"] += 1
        self._feed.emit(Event.REQUEST_REFUSED, group.name, member, reason="quarantined")
        self._refuse(group, member, nonce, RefusalReason.TRY_LATER)
        return True

    async def _flaps(self, group: LiveGroup, member: str, nonce: bytes, known: MemberRecord | None) -> bool:
        """Count a request that is about to be granted; refuse it and return True if there are too many."""
        if known is None or not await self.registration.flaps(group, known):
            return False
        self._refuse(group, member, nonce, RefusalReason.TRY_LATER)
        return True

    def _screen(self, group: LiveGroup, member: str, request: Sync | Leave | Ack) -> None:
        """Refuse what a member that was looked up since the last commit cannot have sent; a flood is not worth more."""
        place = self._file.place(group, member)
        if place is not None:
            leaf_key = None if place.slot is None else group.group.leaf_key_at(place.slot)
            last_time = self._times.get((group.name, member), 0)
            check_proof(request, group.name, member, now=self._now(), last_time=last_time, leaf_key=leaf_key)

    async def _known(self, group: LiveGroup, member: str, found: Found) -> MemberRecord | None:
        """Return a member's record as it is now, which is what was found unless something has happened since."""
        if not (found.has(group, member) and found.is_current(group)):
            found = await self._file.look_up([Asker(group, member)])
        return found.take(group, member)

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _last_time(self, group: LiveGroup, member: str, known: MemberRecord | None) -> int:
        last = self.sightings.last(group.name, member, known).seen  # what was granted before a restart, too
        return max(self._times.get((group.name, member), 0), last)

    def _remember(self, group: LiveGroup, member: str, time: int) -> None:
        self._times.pop((group.name, member), None)
        self._times[group.name, member] = time
        if len(self._times) > MAX_TIMES:
            self._times.popitem(last=False)

    def _count(self, group: LiveGroup, member: str, error: RefusedError) -> None:
        self.refused[error.reason.value] += 1
        self._feed.emit(Event.REQUEST_REFUSED, group.name, member, reason=error.reason.value)
        _log.debug("group %s: request of %s refused: %s", group.name, member, error)

    def _refuse(self, group: LiveGroup, member: str, nonce: bytes, reason: RefusalReason) -> None:
        now = asyncio.get_running_loop().time()
        topic = group.topics.member(member)
        if self._refusals_to_member.allow(topic, now) and self._refusals_to_all.allow("", now):
            payload = group.group.refusal(member, nonce, reason, self._clock())
            self._publisher.answer(Outgoing(topic, payload, audience=member))


def _asker(group: LiveGroup, member: str, request: AnyRequest) -> Asker:
    return Asker(group, member, request.token if isinstance(request, Join) else None)


def _decode(group: LiveGroup, payload: bytes) -> AnyRequest:
    match message_type(payload):
        case Kind.JOIN:
            return Join.decode(payload, group.record.suite)
        case Kind.SYNC:
            return Sync.decode(payload)
        case Kind.LEAVE:
            return Leave.decode(payload)
        case Kind.ACK:
            return Ack.decode(payload)
        case _:
            raise RefusedError(Reason.WRONG_MESSAGE, "type", "not a request")

"""One member of one group: bytes in, events out (the specification's section "The member").

The caller carries bytes to and from the broker, subscribes to `filters`, calls `receive` for whatever arrives and
`tick` at `next_deadline`, and saves `dump()` before it acts on the events of a call that changed `version`. It decides
when to send a Join or a Sync; this class says what is missing and makes the request. A call that raises
`RefusedError` has changed nothing.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from brokerkm.core.crypto import KEY_SIZE, Random, load_signing_key
from brokerkm.core.data import SALT_SIZE
from brokerkm.core.events import (
    AckDue,
    Cause,
    Event,
    Evicted,
    Heard,
    Joined,
    PolicyChanged,
    Recovered,
    Rekeyed,
    RequestRefused,
    ServerKeyChanged,
    Silent,
    Stale,
    SubgroupReceived,
    Synced,
    Unreadable,
)
from brokerkm.core.handover import Handover
from brokerkm.core.memory import Memory, Profile
from brokerkm.core.messages import Kind
from brokerkm.core.names import BeaconTopic, HandoverTopic, MemberTopic, NodeTopic, Topics, check_identifier
from brokerkm.core.notice import Goodbye, GoodbyeReason, Refusal, RefusalReason
from brokerkm.core.opener import Window
from brokerkm.core.path import KeyPath, Outcome
from brokerkm.core.rekey import Beacon, Rekey
from brokerkm.core.requester import Requester
from brokerkm.core.state import State, Step, after
from brokerkm.core.subgroup import Subgroup
from brokerkm.core.traffic import Traffic
from brokerkm.core.trust import Trust
from brokerkm.core.welcome import NodeKey, Welcome
from brokerkm.core.wire import message_type
from brokerkm.errors import EvictedError, NotJoinedError, Reason, RefusedError, SilentError, StaleError

if TYPE_CHECKING:
    from brokerkm.core.policy import Policy
    from brokerkm.core.request import Credential

_ACTIVE: Final = State.ACTIVE  # looked up for every message that is sent


class Member:
    """The state machine of one member; make one with `create` or `load`.

    Args:
        memory: what it remembers.
        random: source of nonces, salts and keys.
    """

    def __init__(self, memory: Memory, random: Random) -> None:
        profile = memory.profile
        self._memory: Final = memory
        self._topics: Final = Topics(profile.group, profile.prefix)
        self._trust: Final = Trust(memory)
        self._doubts = False  # something is not signed by the key that is believed: another may have followed it
        self._identity: Final = load_signing_key(memory.identity_seed)
        self._random: Final = random
        self._requester: Final = Requester(memory, self._identity, random)
        self._reserved: Final = profile.prefix + "/"
        self._traffic: Final = Traffic(memory, self._identity, self._trust, random(SALT_SIZE))
        self._beacon: Beacon | None = None
        self._pending: dict[tuple[int, int], Rekey] = {}  # need something that has not come yet, or have no entry
        self._missing: dict[Cause, float] = {}  # since when
        self._ack_at: float | None = None  # when an Ack is due
        self._unreadable_again = 0.0  # when Data that cannot be opened is worth a word again
        self.silent = False
        self.version = 0

    def __repr__(self) -> str:
        profile = self._memory.profile
        return f"Member({profile.group!r}, {profile.member!r}, {self.state}, epoch={self.epoch})"

    @classmethod
    def create(cls, profile: Profile, random: Random, identity_seed: bytes | None = None) -> Member:
        """Return a new member with an identity key of its own, or the one given (32 bytes)."""
        check_identifier(profile.member, "member")
        return cls(Memory(profile, identity_seed or random(KEY_SIZE)), random)

    @classmethod
    def load(cls, data: bytes, random: Random, now: float) -> Member:
        """Return the member that `dump` saved, ready to send and receive; raises `RefusedError` if damaged."""
        memory = Memory.decode(data)
        member = cls(memory, random)
        opener = member._traffic.opener
        for birth, sender, salt, top, mask in memory.windows:
            opener.windows[birth, sender, salt] = Window(top, mask)
        for birth, step, key, expiry in memory.traffic_keys:
            opener.accept((birth, step), key, expiry)
        if memory.path is not None:
            member._traffic.adopt(now)
            member._traffic.use(memory.path.root, now)
        if memory.state is State.STALE:
            member._missing[Cause.BEACON] = now  # until a Beacon says otherwise
        member._expect_ack(now)
        return member

    def dump(self) -> bytes:
        """Return the state to save; secret."""
        opener = self._traffic.opener
        self._memory.traffic_keys = opener.accepted
        self._memory.windows = [(*source, window.top, window.mask) for source, window in opener.windows.items()]
        return self._memory.encode()

    @property
    def profile(self) -> Profile:
        """Who this is."""
        return self._memory.profile

    @property
    def identity(self) -> bytes:
        """The device's Ed25519 public key, 32 bytes: what a server lists."""
        return self._identity.public_key().public_bytes_raw()

    @property
    def state(self) -> State:
        """Where the member stands."""
        return self._memory.state

    @property
    def epoch(self) -> int:
        """The newest epoch whose keys the member has, 0 if it has none."""
        return self._memory.epoch

    @property
    def behind(self) -> bool:
        """Whether something is known to be missing: a Rekey that has not come, or a newer root than the member's."""
        return bool(self._missing)

    @property
    def slot(self) -> int | None:
        """The member's leaf, if it has one."""
        return None if self._memory.path is None else self._memory.path.slot

    @property
    def certificate_expiry(self) -> float | None:
        """When the sender certificate ends, in seconds since 1970.

        0 if the member lacks one by the server's newest key, None if it needs none.
        """
        memory = self._memory
        if memory.path is None or not memory.policy.source_authentication:
            return None
        if memory.certificate is None or not self._trust.is_by_newest(memory.certificate):
            return 0.0
        return (memory.certificate.expiry - memory.clock_offset) / 1000

    @property
    def server_keys(self) -> tuple[bytes, ...]:
        """The Ed25519 public keys that the server was believed by, the newest last."""
        memory = self._memory
        return (*(key for key, _ in memory.former_keys), memory.server_key)

    @property
    def policy(self) -> Policy:
        """What the group asks of its members."""
        return self._memory.policy

    @property
    def filters(self) -> tuple[str, ...]:
        """The exact topics of the protocol that concern this member now."""
        own: tuple[str, ...] = (self._topics.member(self.profile.member),)
        if self._doubts:
            own = (*own, self._topics.handover)
        if self._memory.path is None:
            return own
        return (*own, self._topics.beacon, *(self._topics.node(*node) for node in self._memory.path.nodes))

    @property
    def request_topic(self) -> str:
        """Where this member's requests go."""
        return self._topics.request(self.profile.member)

    def join(self, now: float, credential: Credential | None = None) -> bytes:
        """Return a Join to send: for a place in the group, or for a new leaf key.

        Args:
            now: seconds since 1970.
            credential: an enrollment token or a device certificate, for an identity that is not listed yet.

        Raises:
            UsageError: the certificate's chain is too long.
        """
        request = self._requester.join(now, credential)
        self._move(Step.ASKED)
        return request

    def sync(self, now: float) -> bytes:
        """Return a Sync to send; raises `NotJoinedError` or `EvictedError` if there is no leaf key to prove it."""
        request = self._requester.sync(now, self._path().leaf.key)
        self.version += 1
        return request

    def leave(self, now: float) -> bytes:
        """Return a Leave to send; raises `NotJoinedError` or `EvictedError` if there is nothing to leave."""
        request = self._requester.leave(now, self._path().leaf.key)
        self.version += 1
        return request

    def ack(self, now: float) -> bytes:
        """Return an Ack of the newest epoch to send; raises `NotJoinedError` or `EvictedError` if there is none."""
        request = self._requester.ack(now, self._path().leaf.key)
        self._memory.acked = self.epoch
        self._ack_at = None
        self.version += 1
        return request

    def seal(self, topic: str, plaintext: bytes, now: float) -> bytes:
        """Return the Data message that carries `plaintext` on `topic`.

        Raises:
            NotJoinedError, EvictedError, StaleError, SilentError: the member must not send now.
            UsageError: `topic` is none that an application publishes on.
        """
        memory = self._memory
        if memory.state is not _ACTIVE:
            self._path()
            message = f"{self.profile.member} has missed a rekey of group {self.profile.group} and is catching up"
            raise StaleError(message)
        policy = memory.policy
        if policy.stop_when_silent and now - memory.heard > policy.max_silence:
            message = f"no beacon of group {self.profile.group} for more than {policy.max_silence} s: not sending"
            raise SilentError(message)
        if not self._traffic.is_certified:
            message = (
                f"{self.profile.member} has no sender certificate of group {self.profile.group} yet: a Sync brings it"
            )
            raise StaleError(message)
        return self._traffic.seal(topic, plaintext)

    def receive(self, topic: str, payload: bytes, now: float) -> list[Event]:
        """Take in one message of any kind.

        Args:
            topic: where it came from.
            payload: what came; empty (a retained message was cleared) is nothing.
            now: seconds since 1970.

        Raises:
            RefusedError: it is malformed, forged, replayed or not for this member; nothing has changed, but that
                `filters` may have another topic, where a hand-over to the key that signed it would be.
        """
        if not topic.startswith(self._reserved):
            return self._traffic.receive(topic, payload, now) if self._memory.path else []
        try:
            return self._receive(topic, payload, now)
        except RefusedError as error:
            self._doubts |= (error.reason, error.field) == (Reason.BAD_SIGNATURE, "signature")
            raise

    def _receive(self, topic: str, payload: bytes, now: float) -> list[Event]:
        own = self.profile.member
        events: list[Event] = []
        match self._topics.parse(topic), message_type(payload) if payload else None:
            case _, None:
                pass
            case NodeTopic(level, index), Kind.REKEY:
                events = self._receive_rekey(level, index, payload, now)
            case NodeTopic(level, index), Kind.SUBGROUP:
                events = self._receive_subgroup(level, index, payload)
            case BeaconTopic(), Kind.BEACON:
                events = self._receive_beacon(payload, now)
            case HandoverTopic(), Kind.HANDOVER:
                events = self._receive_handover(payload)
            case MemberTopic(member), Kind.WELCOME if member == own:
                events = self._receive_welcome(payload, now)
            case MemberTopic(member), Kind.GOODBYE if member == own:
                events = self._receive_goodbye(payload)
            case MemberTopic(member), Kind.REFUSAL if member == own:
                events = self._receive_refusal(payload, now)
            case MemberTopic(member), _ if member != own:
                raise RefusedError(Reason.WRONG_TOPIC, "topic")
            case _:
                raise RefusedError(Reason.WRONG_MESSAGE, "type")
        return events

    def tick(self, now: float) -> list[Event]:
        """Return what the passing of time has brought; to be called at `next_deadline` or more often."""
        events = self._traffic.tick(now)
        if events and now >= self._unreadable_again:
            self._unreadable_again = now + self._memory.policy.max_silence
            events.append(Unreadable())
        overdue = [cause for cause, since in self._missing.items() if since + self._memory.policy.hold <= now]
        if overdue and self.state is State.ACTIVE:
            self._move(Step.MISSED)
            events.append(Stale(overdue[0]))
        memory = self._memory
        if memory.path is not None and not self.silent and now - memory.heard > memory.policy.max_silence:
            self.silent = True
            events.append(Silent(memory.heard))
        if self._ack_at is not None and self._ack_at <= now:
            self._ack_at = None  # until something comes again, if the caller makes no Ack now
            events.append(AckDue(memory.epoch))
        return events

    @property
    def next_deadline(self) -> float | None:
        """When `tick` is to be called next, seconds since 1970; None if nothing is due until something arrives."""
        memory = self._memory
        times = [self._traffic.next_deadline, self._ack_at]
        if self.state is State.ACTIVE:
            times += [since + memory.policy.hold for since in self._missing.values()]
        if memory.path is not None and not self.silent:
            times.append(memory.heard + memory.policy.max_silence + 0.001)  # when it is more than that
        return min((time for time in times if time is not None), default=None)

    def _expect_ack(self, now: float) -> None:
        """Have a newer epoch than the last that was confirmed confirmed at a random moment, if the policy asks for it.

        One moment for all epochs until then: a member that follows many commits says so once.
        """
        memory = self._memory
        within = memory.policy.acknowledge
        if not within or memory.path is None:
            self._ack_at = None
        elif self._ack_at is None and memory.epoch > memory.acked:
            self._ack_at = now + within * int.from_bytes(self._random(4), "big") / (1 << 32)

    def _path(self) -> KeyPath:
        if self._memory.path is not None:
            return self._memory.path
        if self.state is State.EVICTED:
            message = f"{self.profile.member} is out of group {self.profile.group}: join again to come back"
            raise EvictedError(message)
        message = f"{self.profile.member} has not joined group {self.profile.group}: no Welcome has come yet"
        raise NotJoinedError(message)

    def _move(self, step: Step) -> None:
        self._memory.state = after(self._memory.state, step)
        self.version += 1

    def _receive_rekey(self, level: int, index: int, payload: bytes, now: float) -> list[Event]:
        path = self._memory.path
        if path is None or not path.owns(level, index):
            raise RefusedError(Reason.WRONG_TOPIC, "topic")
        rekey = Rekey.decode(payload, level)
        if path.is_old(level, rekey.epoch):
            return []
        rekey.verify(self._trust.key, self.profile.group, level, index)
        root = path.root
        if self._apply(rekey, level, index, path):
            self._apply_waiting(path)
        return self._settle(root, now)

    def _apply_waiting(self, path: KeyPath) -> None:
        """Try again what needed a key that may be there now, from the lowest level up; what contradicts it goes."""
        for node, waiting in sorted(self._pending.items()):
            with contextlib.suppress(RefusedError):
                self._apply(waiting, *node, path)

    def _apply(self, rekey: Rekey, level: int, index: int, path: KeyPath) -> bool:
        """Take the keys of a verified Rekey, or note that something is missing; return whether they were taken."""
        try:
            outcome = path.apply(rekey, level)
        except RefusedError as error:
            if error.reason is not Reason.NO_ENTRY:
                self._pending.pop((level, index), None)
                raise
            outcome = Outcome.AHEAD  # a Welcome with another slot of this bucket may be on its way, or a Goodbye
        if outcome is Outcome.AHEAD:
            waiting = self._pending.get((level, index))
            if waiting is None or waiting.epoch < rekey.epoch:
                self._pending[level, index] = rekey
            return False
        self._pending.pop((level, index), None)
        if outcome is Outcome.APPLIED:
            self._memory.epoch = max(self._memory.epoch, rekey.epoch)
        return outcome is Outcome.APPLIED

    def _adopt(self, policy: Policy, at: tuple[int, int], now: float) -> list[Event]:
        """Follow the server's word on the policy if it is the newest, with some grace for those who do not know it."""
        memory = self._memory
        if at < memory.policy_at:
            return []
        before, memory.policy, memory.policy_at = memory.policy, policy, at
        if policy == before:
            return []
        until = now + policy.grace
        if policy.algorithm is not before.algorithm:
            memory.algorithm_until = until
        if policy.source_authentication is not before.source_authentication:
            memory.source_until = until
        self.version += 1
        return [PolicyChanged(policy), *self._traffic.adopt(now)]

    def _receive_beacon(self, payload: bytes, now: float) -> list[Event]:
        memory = self._memory
        beacon = Beacon.decode(payload)
        at, last = (beacon.epoch, beacon.time), (memory.beacon_epoch, memory.beacon_time)
        if memory.path is None or at < last:
            return []
        beacon.verify(self._trust.key, self.profile.group)
        memory.beacon_epoch, memory.beacon_time = at
        self._beacon = beacon
        events: list[Event] = []
        if beacon.epoch > last[0]:  # the time alone is not worth a write to a device's flash every half minute
            self.version += 1
        ahead = beacon.time - int(now * 1000)
        if ahead > memory.clock_offset:  # the Welcome was an old one when it came: the server's clock is beyond that
            memory.clock_offset = self._traffic.opener.clock_offset = ahead
        # A Beacon that was seen before, or that the broker kept back for long by the server's clock, shows no life.
        if at > last and now * 1000 + memory.clock_offset - beacon.time <= memory.policy.max_silence * 1000:
            memory.heard = now
            if self.silent:
                self.silent = False
                events.append(Heard())
        events += self._adopt(beacon.policy, at, now)
        return events + self._settle(memory.path.root, now)

    def _receive_handover(self, payload: bytes) -> list[Event]:
        if not self._trust.follow(Handover.decode(payload)):
            return []
        self._doubts = False
        self.version += 1
        return [ServerKeyChanged(self._memory.server_key)]

    def _settle(self, before: NodeKey, now: float) -> list[Event]:
        """After something has come: follow the root, note what is still missing, be active again if nothing is.

        Args:
            before: the root's key before it came.
            now: seconds since 1970.
        """
        memory, path, events = self._memory, self._path(), list[Event]()
        missing = {Cause.REKEY} if self._pending else set[Cause]()
        if self._beacon is not None:
            beacon, root = self._beacon, path.root
            if (beacon.height, beacon.birth) == (path.height, root.birth):
                path.ratchet_root(max(beacon.step, root.step))
                memory.epoch = max(memory.epoch, beacon.epoch)
            elif beacon.birth > root.birth:
                missing.add(Cause.BEACON)
        if path.root != before:
            self.version += 1
            if path.root.birth != before.birth:
                events.append(Rekeyed(path.root.birth))
            events += self._traffic.use(path.root, now)
        self._missing = {cause: self._missing.get(cause, now) for cause in missing}
        if not missing and self.state is State.STALE:
            self._move(Step.CAUGHT_UP)
            events.append(Recovered(memory.epoch))
        self._expect_ack(now)
        return events

    def _receive_welcome(self, payload: bytes, now: float) -> list[Event]:
        memory, names = self._memory, (self.profile.group, self.profile.member)
        welcome = Welcome.decode(payload)
        seed = self._requester.seed_for(welcome.nonce)
        welcome.verify(self._trust.key, *names)
        secrets = welcome.open(self.profile.suite, seed, *names)
        leaf_birth = memory.path.leaf.birth if memory.path else 0
        if secrets.epoch < memory.epoch or secrets.leaf.birth < leaf_birth or secrets.time <= memory.welcome_time:
            return []  # overtaken by a Rekey, or replayed
        joined = self.state is State.JOINING
        self._move(Step.WELCOMED)
        sent = self._requester.welcomed(welcome.nonce, now)
        memory.path = KeyPath(secrets.slot, secrets.degree, secrets.leaf, list(secrets.path))
        memory.epoch, memory.certificate = secrets.epoch, secrets.certificate or memory.certificate
        # A broker that kept it back for long must not set the clock back with it: old Beacons would look new.
        heard = min(now, sent + secrets.policy.max_silence)
        memory.welcome_time, memory.clock_offset = secrets.time, secrets.time - int(heard * 1000)
        memory.heard, self.silent = heard, False
        # What waits for a key below a slot that this member has no longer would wait for ever.
        nodes = memory.path.nodes
        self._pending = {node: rekey for node, rekey in self._pending.items() if node in nodes}
        memory.subgroup_times = {node: time for node, time in memory.subgroup_times.items() if node in nodes}
        events: list[Event] = [Joined(secrets.epoch) if joined else Synced(secrets.epoch)]
        changes = self._adopt(secrets.policy, (secrets.epoch, secrets.time), now)
        if joined:  # nothing that was sent under another policy is for it
            changes, memory.algorithm_until, memory.source_until = [], None, None
        events += [*changes, *self._traffic.adopt(now), *self._traffic.use(memory.path.root, now)]
        self._apply_waiting(memory.path)
        return events + self._settle(secrets.path[-1], now)

    def _receive_goodbye(self, payload: bytes) -> list[Event]:
        goodbye = Goodbye.decode(payload)
        if self._memory.path is None or goodbye.epoch <= self._memory.path.leaf.birth:
            return []  # of an earlier membership
        goodbye.verify(self._trust.key, self.profile.group, self.profile.member)
        return self._expel(goodbye.reason)

    def _receive_refusal(self, payload: bytes, now: float) -> list[Event]:
        refusal = Refusal.decode(payload)
        refusal.verify(self._trust.key, self.profile.group, self.profile.member)
        memory = self._memory
        sent = self._requester.refused(refusal.nonce, refusal.reason)
        self.version += 1
        prompt = sent is not None and now - sent <= memory.policy.max_silence  # a broker did not keep it for later
        if refusal.reason is RefusalReason.WRONG_TIME and prompt:
            memory.clock_offset = self._traffic.opener.clock_offset = refusal.time - int(now * 1000)
            memory.last_request = min(memory.last_request, refusal.time)  # it may have been far ahead
        if refusal.reason is RefusalReason.NOT_A_MEMBER and memory.path is not None:
            return self._expel(GoodbyeReason.EVICTED)
        return [RequestRefused(refusal.reason, refusal.time / 1000)]

    def _expel(self, reason: GoodbyeReason) -> list[Event]:
        self._move(Step.EXPELLED)
        self._memory.path = None
        self._memory.certificate = None
        self._requester.forget()
        self._traffic.forget()
        self._pending.clear()
        self._missing.clear()
        self._ack_at = None
        self._beacon = None
        return [Evicted(reason)]

    def _receive_subgroup(self, level: int, index: int, payload: bytes) -> list[Event]:
        path, context = self._memory.path, (self.profile.group, level, index)
        if path is None or not path.owns(level, index):
            raise RefusedError(Reason.WRONG_TOPIC, "topic")
        message = Subgroup.decode(payload, level)
        if message.slot is not None and message.slot != path.slot:
            return []  # for another leaf of the same bucket
        times = self._memory.subgroup_times
        if message.time <= times.get((level, index), 0):
            raise RefusedError(Reason.REPLAY, "time")
        message.verify(self._trust.key, context)
        plaintext = message.open(path.key_at(level, message.birth, message.step), context)
        times[level, index] = message.time
        self.version += 1
        return [SubgroupReceived(self._topics.node(level, index), plaintext)]

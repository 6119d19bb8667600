"""One member of one group: bytes in, events out (the specification's section "The member").

The caller carries bytes to and from the broker, subscribes to `filters`, calls `receive` for whatever arrives and
`tick` at `next_deadline`, and saves `dump()` before it acts on the events of a call that changed `version`. It decides
when to send a Join or a Sync; this class says what is missing and makes the request. A call that raises
`RefusedError` has changed nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.core.acknowledgement import Acknowledgement
from brokerkm.core.catchup import CatchUp
from brokerkm.core.crypto import KEY_SIZE, Random, load_signing_key
from brokerkm.core.data import SALT_SIZE
from brokerkm.core.events import Event, Unreadable
from brokerkm.core.login import Principal, password
from brokerkm.core.memory import Memory, Profile
from brokerkm.core.names import Topics, check_identifier
from brokerkm.core.opener import Window
from brokerkm.core.reception import Reception
from brokerkm.core.requester import Requester
from brokerkm.core.silence import Silence
from brokerkm.core.state import State, Step
from brokerkm.core.traffic import Traffic
from brokerkm.core.trust import Trust
from brokerkm.errors import EvictedError, NotJoinedError, SilentError, StaleError

if TYPE_CHECKING:
    from brokerkm.core.path import KeyPath
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
        self._identity: Final = load_signing_key(memory.identity_seed)
        self._requester: Final = Requester(memory, self._identity, random)
        self._reserved: Final = profile.prefix + "/"
        self._traffic: Final = Traffic(memory, self._identity, self._trust, random(SALT_SIZE))
        self._catch_up: Final = CatchUp(memory)
        self._silence: Final = Silence(memory)
        self._acknowledgement: Final = Acknowledgement(memory, random)
        self._reception: Final = Reception(
            memory,
            trust=self._trust,
            requester=self._requester,
            traffic=self._traffic,
            catch_up=self._catch_up,
            silence=self._silence,
            acknowledgement=self._acknowledgement,
        )
        self._unreadable_again = 0.0  # when Data that cannot be opened is worth a word again

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
        member._catch_up.resume(now)
        member._acknowledgement.expect(now)
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
    def login(self) -> tuple[str, str]:
        """The device's user name and password at a broker that lets members in by their identity keys."""
        principal = Principal(self.profile.group, self.profile.member)
        return principal.username, password(principal, self.identity, self._identity.sign)

    @property
    def version(self) -> int:
        """Grows with every change that is to be saved."""
        return self._memory.version

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
        return self._catch_up.is_behind

    @property
    def silent(self) -> bool:
        """Whether the server has not been heard for longer than the policy allows."""
        return self._silence.is_silent

    @property
    def slot(self) -> int | None:
        """The member's leaf, if it has one."""
        return None if self._memory.path is None else self._memory.path.slot

    @property
    def spares(self) -> int:
        """How many of the root's next keys the member has, to receive by when it gets no Rekey."""
        return len(self._memory.spares)

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
        if self._reception.doubts:
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
        self._memory.move(Step.ASKED)
        return request

    def sync(self, now: float) -> bytes:
        """Return a Sync to send; raises `NotJoinedError` or `EvictedError` if there is no leaf key to prove it."""
        request = self._requester.sync(now, self._path().leaf.key)
        self._memory.version += 1
        return request

    def leave(self, now: float) -> bytes:
        """Return a Leave to send; raises `NotJoinedError` or `EvictedError` if there is nothing to leave."""
        request = self._requester.leave(now, self._path().leaf.key)
        self._memory.version += 1
        return request

    def ack(self, now: float) -> bytes:
        """Return an Ack of the newest epoch to send; raises `NotJoinedError` or `EvictedError` if there is none."""
        request = self._requester.ack(now, self._path().leaf.key)
        self._acknowledgement.confirm()
        self._memory.version += 1
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
        return self._reception.receive(self._topics.parse(topic), payload, now)

    def tick(self, now: float) -> list[Event]:
        """Return what the passing of time has brought; to be called at `next_deadline` or more often."""
        events = self._traffic.tick(now)
        if events and now >= self._unreadable_again:
            self._unreadable_again = now + self._memory.policy.max_silence
            events.append(Unreadable())
        return [*events, *self._catch_up.tick(now), *self._silence.tick(now), *self._acknowledgement.tick(now)]

    @property
    def next_deadline(self) -> float | None:
        """When `tick` is to be called next, seconds since 1970; None if nothing is due until something arrives."""
        watched = (self._traffic, self._catch_up, self._silence, self._acknowledgement)
        return min((time for each in watched if (time := each.next_deadline) is not None), default=None)

    def _path(self) -> KeyPath:
        if self._memory.path is not None:
            return self._memory.path
        if self.state is State.EVICTED:
            message = f"{self.profile.member} is out of group {self.profile.group}: join again to come back"
            raise EvictedError(message)
        message = f"{self.profile.member} has not joined group {self.profile.group}: no Welcome has come yet"
        raise NotJoinedError(message)

"""A member's application messages: sealed under the group's current key, opened under it and its neighbours.

Data of a newer root key waits, for a bounded time and in a bounded room, until the Rekey arrives; so does Data of an
algorithm that the policy does not name, until a Beacon with a newer policy arrives. Data of a later step of the same
root is opened by a ratcheted copy; only what the server has signed moves the root itself, or one insider could push
everybody's key ahead of the server's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.core.crypto import ratchet
from brokerkm.core.data import Data, Sealer, traffic_key
from brokerkm.core.events import Dropped
from brokerkm.core.opener import Opener
from brokerkm.core.reserve import MAX_AHEAD, Reserve
from brokerkm.core.welcome import NodeKey
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from brokerkm.core.events import Event, MessageReceived
    from brokerkm.core.memory import Memory
    from brokerkm.core.trust import Trust

MAX_HELD: Final = 256  # messages that wait for a Rekey or a Beacon
MAX_HELD_SIZE: Final = 1 << 20  # bytes that they have together


class _Held(NamedTuple):
    """A message that waits for its key or its algorithm until `deadline`, and is given up for `reason`."""

    deadline: float
    birth: int
    topic: str
    payload: bytes
    reason: Reason


class Traffic:
    """The application messages of one member.

    Args:
        memory: the member's; its policy, certificate and clock are followed when `adopt` is called.
        identity: the member's, signs what it sends where the policy asks for that.
        trust: checks sender certificates.
        salt: 8 bytes drawn at this start.
    """

    def __init__(self, memory: Memory, identity: Ed25519PrivateKey, trust: Trust, salt: bytes) -> None:
        profile = memory.profile
        self._memory: Final = memory
        self._group: Final = profile.group
        self._sealer: Final = Sealer(profile.group, profile.member, salt, profile.prefix + "/")
        self._sealer.identity = identity
        self.opener: Final = Opener(profile.group, trust.check_certificate)
        self.reserve: Final = Reserve(memory, self.opener)
        self._root = NodeKey(b"", 0, 0)
        self._ahead: list[bytes] = []  # root keys of the steps after the root's, as far as they were needed
        self._held: deque[_Held] = deque()
        self._held_size = 0
        self.is_certified = True  # it may send: what it sends is signed, or need not be
        self.seal: Final = self._sealer.seal

    def adopt(self, now: float) -> list[Event]:
        """Follow the memory's policy, certificate and clock, and open what has waited for that."""
        memory = self._memory
        self.opener.clock_offset = memory.clock_offset
        self.opener.follow(memory.policy.algorithm, lenient=memory.algorithm_until is not None)
        if self._root.birth:
            self._begin()
        return self._retry(now)

    def use(self, root: NodeKey, now: float) -> list[Event]:
        """Send under `root` from now on, accept older keys for the policy's grace, and open what has waited for it."""
        self.opener.retire(now + self._memory.policy.grace)
        self._root = root
        self._ahead.clear()
        self._begin()
        return self._retry(now)

    def _begin(self) -> None:
        """Seal under the root, and as the policy says; a signature that it no longer asks for is left out later."""
        memory, version = self._memory, (self._root.birth, self._root.step)
        tek = traffic_key(self._group, self._root)
        self.opener.accept(version, tek)
        changing = memory.source_until is not None
        signs = memory.policy.source_authentication or changing
        self._sealer.certificate = memory.certificate if signs else None
        self._sealer.use(tek, *version, memory.policy.algorithm)
        self.is_certified = not signs or changing or memory.certificate is not None

    def forget(self) -> None:
        """Drop all keys and everything that waits."""
        self.opener.clear()
        self._held.clear()
        self._held_size = 0
        self._ahead.clear()
        self.reserve.replace(())
        self._root = NodeKey(b"", 0, 0)

    @property
    def _is_signed(self) -> bool:
        """Whether what others send has to be signed."""
        return self._memory.policy.source_authentication and self._memory.source_until is None

    def receive(self, topic: str, payload: bytes, now: float) -> list[Event]:
        """Open one Data message, or keep it until its key or algorithm arrives; raises `RefusedError`."""
        return self._receive(topic, payload, now, now + self._memory.policy.hold)

    def _receive(self, topic: str, payload: bytes, now: float, deadline: float) -> list[Event]:
        if not self._is_signed:
            message = self.opener.open_plain(topic, payload)
            if message is not None:
                return [message]
        data = Data.decode(payload)
        header = data.header
        if (header.birth, header.step) in self.opener:
            message = self.opener.open(data, topic, now, signed=self._is_signed)
        elif header.birth > self._root.birth:
            return self._receive_newer(data, _Held(deadline, header.birth, topic, payload, Reason.WRONG_BIRTH), now)
        elif header.birth < self._root.birth or header.step < self._root.step:
            raise RefusedError(Reason.OLD, "birth")
        else:
            message = self._open_ahead(data, topic, now)
        if message is None:
            return self._hold(_Held(deadline, header.birth, topic, payload, Reason.BAD_SEAL))
        return [message]

    def _receive_newer(self, data: Data, held: _Held, now: float) -> list[Event]:
        """Open a message of a newer root by one of the spares, and what has waited for the same; or keep it."""
        is_known = held.birth in self.reserve
        message = self.reserve.open(data, held.topic, now, signed=self._is_signed)
        if message is None:
            return self._hold(held)
        return [message] if is_known else [message, *self._retry(now)]

    def _open_ahead(self, data: Data, topic: str, now: float) -> MessageReceived | None:
        """Open a message of a later step of the root; a copy is kept of what is derived, so that it is derived once."""
        distance = data.header.step - self._root.step
        if distance > MAX_AHEAD:
            raise RefusedError(Reason.OUT_OF_RANGE, "step")
        while len(self._ahead) < distance:
            self._ahead.append(ratchet(self._ahead[-1] if self._ahead else self._root.key))
        version = (data.header.birth, data.header.step)
        tek = traffic_key(self._group, NodeKey(self._ahead[distance - 1], *version))
        message = self.opener.open(data, topic, now, signed=self._is_signed, tek=tek)
        if message is not None:
            self.opener.accept(version, tek, now + self._memory.policy.grace)
        return message

    def _hold(self, held: _Held) -> list[Event]:
        """Keep a message; the oldest make room."""
        self._held.append(held)
        self._held_size += len(held.payload)
        events: list[Event] = []
        while len(self._held) > MAX_HELD or self._held_size > MAX_HELD_SIZE:
            events.append(self._drop())
        return events

    def _drop(self) -> Dropped:
        held = self._held.popleft()
        self._held_size -= len(held.payload)
        return Dropped(held.topic, held.reason)

    def _retry(self, now: float) -> list[Event]:
        """Open all that waited for the root, an older one, or the policy; what is too new still waits, no longer."""
        waiting, self._held = self._held, deque()
        self._held_size = 0
        events: list[Event] = []
        for held in waiting:
            if held.birth > self._root.birth and held.birth not in self.reserve:
                events += self._hold(held)
                continue
            try:
                events += self._receive(held.topic, held.payload, now, held.deadline)
            except RefusedError as error:
                events.append(Dropped(held.topic, error.reason))
        return events

    def tick(self, now: float) -> list[Event]:
        """End what is accepted for a while, and give up the messages whose time is over; each is a `Dropped`."""
        memory = self._memory
        self.opener.expire(now)
        if memory.algorithm_until is not None and memory.algorithm_until <= now:
            memory.algorithm_until = None
            self.opener.follow(memory.policy.algorithm, lenient=False)
        if memory.source_until is not None and memory.source_until <= now:
            memory.source_until = None
            if self._root.birth:
                self._begin()
        events: list[Event] = []
        while self._held and self._held[0].deadline <= now:
            events.append(self._drop())
        return events

    @property
    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        times = [held.deadline for held in list(self._held)[:1]]
        untils = (self.opener.next_expiry, self._memory.algorithm_until, self._memory.source_until)
        return min([*times, *(time for time in untils if time is not None)], default=None)

"""A member's application messages: sealed under the group's current key, opened under it and its neighbours.

Data of a newer root key waits, for a bounded time and in a bounded room, until the Rekey arrives. Data of a later
step of the same root is opened by a ratcheted copy; only what the server has signed moves the root itself, or one
insider could push everybody's key ahead of the server's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.core.crypto import ratchet
from brokerkm.core.data import Data, Sealer, traffic_key
from brokerkm.core.events import Dropped
from brokerkm.core.opener import Opener
from brokerkm.core.policy import Policy
from brokerkm.core.welcome import NodeKey
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from brokerkm.core.events import Event, MessageReceived
    from brokerkm.core.welcome import Certificate

MAX_AHEAD: Final = 1024  # steps that a receiver ratchets a copy of its root; protocol.md section 5
MAX_HELD: Final = 256  # messages that wait for a Rekey
MAX_HELD_SIZE: Final = 1 << 20  # bytes that they have together


class _Held(NamedTuple):
    """A message that waits for its key until `deadline`."""

    deadline: float
    birth: int
    topic: str
    payload: bytes


class Traffic:
    """The application messages of one member.

    Args:
        group: group id.
        member: member id.
        server_key: checks sender certificates.
        salt: 8 bytes drawn at this start.
        reserved: what the protocol's own topics begin with.
    """

    def __init__(self, group: str, member: str, server_key: Ed25519PublicKey, salt: bytes, reserved: str) -> None:
        self._group: Final = group
        self._sealer: Final = Sealer(group, member, salt, reserved)
        self.opener: Final = Opener(group, server_key)
        self._root = NodeKey(b"", 0, 0)
        self._ahead: list[bytes] = []  # root keys of the steps after the root's, as far as they were needed
        self._held: deque[_Held] = deque()
        self._held_size = 0
        self._policy: Policy = Policy()
        self.seal: Final = self._sealer.seal

    def adopt(
        self, policy: Policy, identity: Ed25519PrivateKey, certificate: Certificate | None, clock_offset: int
    ) -> None:
        """Follow a Welcome: its policy, the certificate to sign with, and the ms that the server's clock is ahead."""
        self.opener.clock_offset = clock_offset
        self._policy = policy
        self._sealer.identity = identity
        self._sealer.certificate = certificate

    def use(self, root: NodeKey, now: float) -> list[Event]:
        """Send under `root` from now on, accept older keys for the policy's grace, and open what has waited for it."""
        version = (root.birth, root.step)
        tek = traffic_key(self._group, root)
        self.opener.retire(now + self._policy.grace)
        self.opener.accept(version, tek)
        self._sealer.use(tek, *version)
        self._root = root
        self._ahead.clear()
        return self._retry(now)

    def forget(self) -> None:
        """Drop all keys and everything that waits."""
        self.opener.clear()
        self._held.clear()
        self._held_size = 0
        self._ahead.clear()
        self._root = NodeKey(b"", 0, 0)

    def receive(self, topic: str, payload: bytes, now: float) -> list[Event]:
        """Open one Data message, or keep it until its key arrives; raises `RefusedError`."""
        if not self._policy.source_authentication:
            message = self.opener.open_plain(topic, payload)
            if message is not None:
                return [message]
        data = Data.decode(payload)
        header = data.header
        if (header.birth, header.step) not in self.opener:
            if header.birth > self._root.birth:
                return self._hold(_Held(now + self._policy.hold, header.birth, topic, payload))
            if header.birth < self._root.birth or header.step < self._root.step:
                raise RefusedError(Reason.OLD, "birth")
            return [self._open_ahead(data, topic, now)]
        return [self.opener.open(data, topic, now, signed=self._policy.source_authentication)]

    def _open_ahead(self, data: Data, topic: str, now: float) -> MessageReceived:
        """Open a message of a later step of the root; a copy is kept of what is derived, so that it is derived once."""
        distance = data.header.step - self._root.step
        if distance > MAX_AHEAD:
            raise RefusedError(Reason.OUT_OF_RANGE, "step")
        while len(self._ahead) < distance:
            self._ahead.append(ratchet(self._ahead[-1] if self._ahead else self._root.key))
        version = (data.header.birth, data.header.step)
        tek = traffic_key(self._group, NodeKey(self._ahead[distance - 1], *version))
        message = self.opener.open(data, topic, now, signed=self._policy.source_authentication, tek=tek)
        self.opener.accept(version, tek, now + self._policy.grace)
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
        return Dropped(held.topic, Reason.WRONG_BIRTH)

    def _retry(self, now: float) -> list[Event]:
        """Open all that waited for the root or an older one."""
        waiting, self._held = self._held, deque()
        self._held_size = 0
        events: list[Event] = []
        for held in waiting:
            if held.birth > self._root.birth:
                events += self._hold(held)
                continue
            try:
                events += self.receive(held.topic, held.payload, now)
            except RefusedError as error:
                events.append(Dropped(held.topic, error.reason))
        return events

    def tick(self, now: float) -> list[Event]:
        """Forget the keys and give up the messages whose time is over; each message given up is a `Dropped`."""
        self.opener.expire(now)
        events: list[Event] = []
        while self._held and self._held[0].deadline <= now:
            events.append(self._drop())
        return events

    @property
    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        times = [held.deadline for held in list(self._held)[:1]]
        if self.opener.next_expiry is not None:
            times.append(self.opener.next_expiry)
        return min(times, default=None)

"""A member's requests and which answers they may have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.core.memory import MAX_NONCES, Memory
from brokerkm.core.notice import RefusalReason
from brokerkm.core.request import Ack, Asked, Credential, Join, Leave, Sync, first_nonce
from brokerkm.core.state import State
from brokerkm.core.wire import NONCE_SIZE
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from brokerkm.core.crypto import Random


class Requester:
    """Makes the requests of one member; the nonces of the last few of each kind are kept in its memory."""

    def __init__(self, memory: Memory, identity: Ed25519PrivateKey, random: Random) -> None:
        self._memory: Final = memory
        self._identity: Final = identity
        self._random: Final = random
        self._names: Final = (memory.profile.group, memory.profile.member)
        self._sent: dict[bytes, float] = {}  # when the requests of this start went out that are not granted yet

    def join(self, now: float, credential: Credential | None) -> bytes:
        """Return a Join; one that repeats an unanswered one asks with the same KEM key, so that either answer fits."""
        memory = self._memory
        is_first = memory.state is not State.JOINING or not memory.join_seed
        if is_first:
            memory.join_seed = self._random(memory.profile.suite.seed_size)
            memory.join_nonces.clear()
        kem_public = memory.profile.suite.public_key(memory.join_seed)
        asked = self._next(now, memory.join_nonces, first_nonce(kem_public) if is_first else b"")
        return Join.seal(self._identity, *self._names, kem_public, credential=credential, asked=asked)

    def sync(self, now: float, leaf_key: bytes) -> bytes:
        """Return a Sync."""
        asked = self._next(now, self._memory.sync_nonces)
        return Sync.seal(leaf_key, *self._names, asked=asked, epoch=self._memory.epoch)

    def leave(self, now: float, leaf_key: bytes) -> bytes:
        """Return a Leave."""
        asked = self._next(now, self._memory.sync_nonces)
        return Leave.seal(leaf_key, *self._names, asked=asked)

    def ack(self, now: float, leaf_key: bytes) -> bytes:
        """Return an Ack; its nonce is not kept, for nothing answers it."""
        return Ack.seal(leaf_key, *self._names, asked=self._ask(now), epoch=self._memory.epoch)

    def _ask(self, now: float, nonce: bytes = b"") -> Asked:
        """Return what a new request says first; the time is the server's as far as known, and always grows."""
        memory = self._memory
        memory.last_request = max(int(now * 1000) + memory.clock_offset, memory.last_request + 1)
        memory.counter += 1
        return Asked(nonce or self._random(NONCE_SIZE), memory.last_request, memory.counter)

    def _next(self, now: float, nonces: list[bytes], nonce: bytes = b"") -> Asked:
        """Return what a new request says first, and expect its answer."""
        memory, asked = self._memory, self._ask(now, nonce)
        nonces.append(asked.nonce)
        del nonces[:-MAX_NONCES]
        open_nonces = {*memory.join_nonces, *memory.sync_nonces}
        self._sent = {nonce: at for nonce, at in self._sent.items() if nonce in open_nonces} | {nonces[-1]: now}
        memory.refused_nonces = [nonce for nonce in memory.refused_nonces if nonce in open_nonces]
        return asked

    def seed_for(self, nonce: bytes) -> bytes:
        """Return the KEM seed that opens the Welcome with `nonce`; raises `RefusedError` if none was asked for."""
        memory = self._memory
        if nonce in memory.join_nonces:
            return memory.join_seed
        if nonce in memory.sync_nonces:
            return memory.kem_seed
        raise RefusedError(Reason.WRONG_NONCE, "nonce")

    def welcomed(self, nonce: bytes, now: float) -> float:
        """Note that the request with `nonce` was granted; return when it went out, `now` if that is not known.

        Join nonces stay: the server seals an unasked-for Welcome, after it renewed the leaf, under the last of them.
        """
        memory = self._memory
        if nonce in memory.join_nonces:
            memory.kem_seed = memory.join_seed
        memory.sync_nonces.clear()
        return self._sent.pop(nonce, now)

    def refused(self, nonce: bytes, reason: RefusalReason) -> float | None:
        """Note that the request with `nonce` was refused; return when it went out, None if before this start.

        A Welcome may answer it all the same: anybody who sees a nonce can send a false request with it, and have the
        server refuse that. For the same reason a Join that was granted can be refused no longer, or a broker could
        keep what was said before; and no Join is answered by "not a member".

        Raises:
            RefusedError: there is no such request, or it was refused before.
        """
        memory = self._memory
        joining = memory.state is State.JOINING or memory.join_seed != memory.kem_seed
        is_join = nonce in memory.join_nonces and joining and reason is not RefusalReason.NOT_A_MEMBER
        if nonce in memory.refused_nonces or not (is_join or nonce in memory.sync_nonces):
            raise RefusedError(Reason.WRONG_NONCE, "nonce")
        memory.refused_nonces.append(nonce)
        return self._sent.get(nonce)

    def forget(self) -> None:
        """Expect no answers any longer."""
        memory = self._memory
        memory.join_seed = memory.kem_seed = b""
        memory.join_nonces.clear()
        memory.sync_nonces.clear()
        memory.refused_nonces.clear()

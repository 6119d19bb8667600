"""The receiving side of Data: the traffic keys that are still accepted, and what each sender has sent already.

A traffic key that the group has left is kept for a while, to receive only. Counters are remembered by sender and
salt, across traffic keys; nothing is remembered of a message whose tag does not hold.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from brokerkm.core.crypto import check_signature, load_verify_key
from brokerkm.core.data import MAX_TOPICS, Data, data_context, sender_key
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

WINDOW: Final = 1024  # messages of one sender that may overtake each other: topics are not ordered among each other
MAX_SENDERS: Final = 65_536  # (sender, salt) pairs remembered; the one that was silent longest makes room

_WINDOW_MASK: Final = (1 << WINDOW) - 1


class Window:
    """Which of one sender's counters were seen: the newest, and a bit for each of the 1,024 before it."""

    __slots__ = ("mask", "top")

    def __init__(self, top: int = -1, mask: int = 0) -> None:
        self.top = top
        self.mask = mask  # bit n: counter top - n was seen

    def seen(self, counter: int) -> bool:
        """Return whether `counter` was seen, or is too old to tell."""
        behind = self.top - counter
        return behind >= 0 and (behind >= WINDOW or bool(self.mask >> behind & 1))

    def mark(self, counter: int) -> None:
        """Remember `counter`, which has not been seen."""
        ahead = counter - self.top
        if ahead > 0:
            self.mask = (self.mask << ahead & _WINDOW_MASK | 1) if ahead < WINDOW else 1
            self.top = counter
        else:
            self.mask |= 1 << -ahead


class _TrafficKey:
    """One accepted TEK, the ciphers of its senders, and when it stops being accepted (None: it is current)."""

    __slots__ = ("ciphers", "expiry", "tek")

    def __init__(self, tek: bytes, expiry: float | None) -> None:
        self.tek: Final = tek
        self.ciphers: Final[dict[tuple[str, bytes], AESGCM]] = {}
        self.expiry = expiry


class Opener:
    """Opens Data of one group under the keys it was given.

    Args:
        group: group id.
        server_key: checks sender certificates.
    """

    __slots__ = ("_contexts", "_group", "_identities", "_keys", "_server_key", "windows")

    def __init__(self, group: str, server_key: Ed25519PublicKey) -> None:
        self._group: Final = group
        self._server_key: Final = server_key
        self._keys: Final[dict[tuple[int, int], _TrafficKey]] = {}
        self._contexts: Final[dict[str, bytes]] = {}
        self._identities: Final[dict[tuple[str, bytes, bytes], Ed25519PublicKey]] = {}
        self.windows: OrderedDict[tuple[str, bytes], Window] = OrderedDict()

    def __contains__(self, version: tuple[int, int]) -> bool:
        return version in self._keys

    def accept(self, version: tuple[int, int], tek: bytes, expiry: float | None = None) -> None:
        """Accept Data under `tek`, of root (birth, step) `version`, until `expiry` or for good."""
        known = self._keys.get(version)
        if known is None:
            self._keys[version] = _TrafficKey(tek, expiry)
        else:
            known.expiry = expiry

    def reject(self, version: tuple[int, int]) -> None:
        """Accept nothing under the TEK of `version` any longer."""
        del self._keys[version]

    def retire_all(self, expiry: float) -> None:
        """Accept what is current until `expiry` only."""
        for key in self._keys.values():
            if key.expiry is None:
                key.expiry = expiry

    def expire(self, now: float) -> None:
        """Forget the keys whose time is over."""
        for version in [version for version, key in self._keys.items() if key.expiry is not None and key.expiry <= now]:
            del self._keys[version]

    def clear(self) -> None:
        """Forget all keys."""
        self._keys.clear()

    @property
    def accepted(self) -> list[tuple[int, int, bytes, float | None]]:
        """What is accepted: (birth, step, TEK, expiry); secret."""
        return [(*version, key.tek, key.expiry) for version, key in self._keys.items()]

    @property
    def next_expiry(self) -> float | None:
        """When the next key is to be forgotten."""
        return min((key.expiry for key in self._keys.values() if key.expiry is not None), default=None)

    def open(self, data: Data, topic: str, now: float, *, signed: bool) -> bytes:
        """Return the plaintext of a message whose TEK is accepted, and remember its counter.

        Raises:
            RefusedError: replay, bad-seal, not-signed, bad-signature or wrong-time; nothing is remembered then.
        """
        header = data.header
        source = (header.sender, header.salt)
        window = self.windows.get(source)
        if window is not None and window.seen(header.counter):
            raise RefusedError(Reason.REPLAY, "counter")
        key = self._keys[header.birth, header.step]
        cipher = key.ciphers.get(source) or sender_key(key.tek, *source)
        context = self._contexts.get(topic)
        if context is None:
            if len(self._contexts) >= MAX_TOPICS:
                self._contexts.clear()
            context = self._contexts[topic] = data_context(self._group, topic)
        plaintext = data.open(cipher, context)
        if signed:
            self._check_source(data, context, now)
        if window is None:
            key.ciphers[source] = cipher
            window = self.windows[source] = Window()
            if len(self.windows) > MAX_SENDERS:
                self._forget(next(iter(self.windows)))
        elif source not in key.ciphers:
            key.ciphers[source] = cipher
            self.windows.move_to_end(source)
        window.mark(header.counter)
        return plaintext

    def _check_source(self, data: Data, context: bytes, now: float) -> None:
        """Check the sender's own signature; its certificate was verified before if it is known."""
        if data.certificate is None or data.signature is None:
            raise RefusedError(Reason.NOT_SIGNED, "signature")
        certificate, sender = data.certificate, data.header.sender
        known = (sender, certificate.identity, certificate.signature)
        identity = self._identities.get(known)
        if identity is None or now * 1000 > certificate.expiry:
            certificate.verify(self._server_key, self._group, sender, int(now * 1000))
            if len(self._identities) >= MAX_SENDERS:
                self._identities.clear()
            identity = self._identities[known] = load_verify_key(certificate.identity, "certificate.identity")
        check_signature(identity, data.signature, context + data.signed_part)

    def _forget(self, source: tuple[str, bytes]) -> None:
        del self.windows[source]
        for key in self._keys.values():
            key.ciphers.pop(source, None)

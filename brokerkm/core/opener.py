"""The receiving side of Data: the traffic keys that are still accepted, and what each sender has sent already.

A traffic key that the group has left is kept for a while, to receive only; so is an algorithm. Counters are remembered
by sender, salt and birth of the root key: an insider who has used up another's counters has not done so beyond its own
eviction. Nothing is remembered of a message whose tag does not hold.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from msgpack import unpackb

from brokerkm.core.crypto import Algorithm, check_signature, load_verify_key
from brokerkm.core.data import MAX_TOPICS, Data, Header, data_context, encode_header, sender_key
from brokerkm.core.events import MessageReceived
from brokerkm.core.wire import MAX_MESSAGE, pack
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from brokerkm.core.crypto import Aead
    from brokerkm.core.welcome import Certificate

WINDOW: Final = 1024  # messages of one sender that may overtake each other: topics are not ordered among each other
MAX_SENDERS: Final = 65_536  # (sender, salt) pairs remembered; the one that was silent longest makes room

_WINDOW_MASK: Final = (1 << WINDOW) - 1


class Window:
    """Which of one sender's counters were seen: the newest, and a bit for each of the 1,024 up to it."""

    __slots__ = ("mask", "top")

    def __init__(self, top: int = -1, mask: int = 0) -> None:
        self.top = top
        self.mask = mask  # bit n: counter top - n was seen

    def take(self, counter: int) -> bool:
        """Remember `counter`; return False if it was seen before, or is too old to tell."""
        ahead = counter - self.top
        if ahead > 0:
            self.mask = (self.mask << ahead | 1) & _WINDOW_MASK if ahead < WINDOW else 1
            self.top = counter
            return True
        if ahead <= -WINDOW or self.mask >> -ahead & 1:
            return False
        self.mask |= 1 << -ahead
        return True


class _Source:
    """One sender between two of its starts, under one TEK: its cipher, and how its plain messages begin."""

    __slots__ = ("algorithm", "cipher", "head", "window")

    def __init__(self, algorithm: Algorithm, cipher: Aead, head: bytes, window: Window) -> None:
        self.algorithm: Final = algorithm
        self.cipher: Final = cipher
        self.head: Final = head  # of the encoded message, up to the counter
        self.window: Final = window


class Opener:
    """Opens Data of one group under the keys it was given.

    Args:
        group: group id.
        check_certificate: raises `RefusedError` unless a certificate is good for a sender at a time in ms.

    Attributes:
        algorithm: that the policy names.
        lenient: the other one is accepted too.
        clock_offset: ms that the server's clock is ahead.
        windows: by birth of the root, sender and salt; where the root's birth is not certain, by what stands for it,
            which is negative.
    """

    __slots__ = (
        "_check_certificate",
        "_contexts",
        "_current",
        "_expiries",
        "_group",
        "_identities",
        "_sources",
        "_teks",
        "algorithm",
        "clock_offset",
        "lenient",
        "windows",
    )

    def __init__(self, group: str, check_certificate: Callable[[Certificate, str, int], None]) -> None:
        self._group: Final = group
        self._check_certificate: Final = check_certificate
        self.clock_offset = 0
        self.algorithm = Algorithm.AES_256_GCM
        self.lenient = False
        self._teks: Final[dict[tuple[int, int], bytes]] = {}
        self._expiries: Final[dict[tuple[int, int], float]] = {}  # of TEKs that are not current
        self._current: tuple[int, int] = (0, 0)
        self._sources: dict[tuple[int, int, str, bytes], _Source] = {}
        self._contexts: Final[dict[str, bytes]] = {}
        self._identities: Final[dict[tuple[str, bytes, int, bytes], Ed25519PublicKey]] = {}
        self.windows: OrderedDict[tuple[int, str, bytes], Window] = OrderedDict()

    def __contains__(self, version: tuple[int, int]) -> bool:
        return version in self._teks

    def accept(self, version: tuple[int, int], tek: bytes, expiry: float | None = None) -> None:
        """Accept Data under `tek`, of root (birth, step) `version`, until `expiry` or for good."""
        self._teks[version] = tek
        if expiry is None:
            self._expiries.pop(version, None)
            self._current = version
        else:
            self._expiries[version] = expiry

    def follow(self, algorithm: Algorithm, *, lenient: bool) -> None:
        """Accept what is sealed by `algorithm`, and if `lenient` what is sealed by the other."""
        self.algorithm, self.lenient = algorithm, lenient
        if not lenient:
            self._sources = {key: source for key, source in self._sources.items() if source.algorithm is algorithm}

    def reject(self, versions: Collection[tuple[int, int]]) -> None:
        """Accept nothing under the TEKs of `versions` any longer."""
        for version in versions:
            del self._teks[version]
            self._expiries.pop(version, None)
        self._sources = {key: source for key, source in self._sources.items() if key[:2] not in versions}
        births = {birth for birth, _ in self._teks}
        for name in [name for name in self.windows if name[0] >= 0 and name[0] not in births]:
            del self.windows[name]

    def rename(self, origin: int, birth: int | None) -> None:
        """Take what was seen under `origin` for seen under the root of `birth`; forget it if that is None."""
        for name in [name for name in self.windows if name[0] == origin]:
            window = self.windows.pop(name)
            if birth is not None:
                self.windows[birth, *name[1:]] = window

    def retire(self, expiry: float) -> None:
        """Accept what is current until `expiry` only."""
        if self._current in self._teks:
            self._expiries[self._current] = expiry

    def expire(self, now: float) -> None:
        """Forget the keys whose time is over."""
        over = {version for version, expiry in self._expiries.items() if expiry <= now}
        if over:
            self.reject(over)

    def clear(self) -> None:
        """Forget all keys."""
        self.reject(set(self._teks))

    @property
    def accepted(self) -> list[tuple[int, int, bytes, float | None]]:
        """What is accepted: (birth, step, TEK, expiry); secret."""
        return [(*version, tek, self._expiries.get(version)) for version, tek in self._teks.items()]

    @property
    def next_expiry(self) -> float | None:
        """When the next key is to be forgotten."""
        return min(self._expiries.values(), default=None)

    def open_plain(self, topic: str, payload: bytes) -> MessageReceived | None:
        """Open a message without signature from a sender that is known: the receiver's hot path.

        Returns:
            The message, or None if it is anything else, malformed or not: `Data.decode` is thorough.

        Raises:
            RefusedError: replay.
        """
        if len(payload) > MAX_MESSAGE:  # the rest costs little beside so much ciphertext
            return None
        try:
            _, _, birth, step, sender, salt, counter, ciphertext = unpackb(payload)
            source = self._sources[birth, step, sender, salt]
            context = self._contexts[topic]
        except (ValueError, TypeError, KeyError):  # msgpack's own errors are ValueErrors
            return None
        if type(counter) is not int or counter < 0 or type(ciphertext) is not bytes:
            return None
        header = source.head + pack(counter)
        if payload != header + pack(ciphertext):  # another version or type, or not the shortest encoding
            return None
        try:
            plaintext = source.cipher.decrypt(counter.to_bytes(12, "big"), ciphertext, context + header)
        except InvalidTag:
            return None  # its sender may have changed the algorithm
        if not source.window.take(counter):
            raise RefusedError(Reason.REPLAY, "counter")
        return MessageReceived(topic, sender, plaintext, birth)

    def open(
        self,
        data: Data,
        topic: str,
        now: float,
        *,
        signed: bool,
        tek: bytes | None = None,
        origin: int | None = None,
    ) -> MessageReceived | None:
        """Open a message under `tek`, or else under the accepted one that it names; remember its sender and counter.

        Args:
            data, topic, now: the message, whence it came and when.
            signed: it has to be.
            tek: of a root that its birth and step may be those of.
            origin: stands for its birth, which is then not to be believed.

        Returns:
            The message, or None if it is genuine but sealed by an algorithm that is not accepted: its sender may know a
            newer policy. Nothing is remembered then.

        Raises:
            RefusedError: replay, bad-seal, not-signed, bad-signature or wrong-time; nothing is remembered then.
        """
        header = data.header
        key, name = header[:4], (header.birth if origin is None else origin, header.sender, header.salt)
        source, window = self._sources.get(key), self.windows.get(name)
        context = self._contexts.get(topic) or data_context(self._group, topic)
        algorithm = source.algorithm if source else self.algorithm
        tek = tek or self._teks[key[:2]]
        cipher = source.cipher if source else sender_key(tek, *key[2:], algorithm)
        try:
            plaintext = data.open(cipher, context)
        except RefusedError:
            algorithm, source = algorithm.other, None
            cipher = sender_key(tek, *key[2:], algorithm)
            plaintext = data.open(cipher, context)
            if algorithm is not self.algorithm and not self.lenient:
                return None
        if signed:
            self._check_source(data, context, now)
        if window is None:
            window = self._new_window(name)
        if not window.take(header.counter):
            raise RefusedError(Reason.REPLAY, "counter")
        if source is None and origin is None:
            head = encode_header(Header(*key, 0), signed=False)[:-1]  # all but the counter
            self._sources[key] = _Source(algorithm, cipher, head, window)
            self.windows.move_to_end(name)
        if len(self._contexts) >= MAX_TOPICS:
            self._contexts.clear()
        self._contexts[topic] = context
        return MessageReceived(topic, header.sender, plaintext, header.birth)

    def _new_window(self, name: tuple[int, str, bytes]) -> Window:
        """Return a window for a sender not seen before; the one that was new longest ago makes room."""
        if len(self.windows) >= MAX_SENDERS:
            (birth, sender, salt), _ = self.windows.popitem(last=False)
            for step in [step for other, step in self._teks if other == birth]:
                self._sources.pop((birth, step, sender, salt), None)
        window = self.windows[name] = Window()
        return window

    def _check_source(self, data: Data, context: bytes, now: float) -> None:
        """Check the sender's own signature; its certificate was verified before if it is known."""
        if data.certificate is None or data.signature is None:
            raise RefusedError(Reason.NOT_SIGNED, "signature")
        certificate, sender = data.certificate, data.header.sender
        known = (sender, *certificate.fields)  # all of it: a changed expiry must not pass for the one that was verified
        identity = self._identities.get(known)
        server_time = int(now * 1000) + self.clock_offset
        if identity is None or server_time > certificate.expiry:
            self._check_certificate(certificate, sender, server_time)
            if len(self._identities) >= MAX_SENDERS:
                self._identities.clear()
            identity = self._identities[known] = load_verify_key(certificate.identity, "certificate.identity")
        check_signature(identity, data.signature, context + data.signed_part)

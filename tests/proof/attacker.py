"""Everybody who is outside, together: all keys that they ever held and every message that was ever published.

Nothing here uses brokerkm's own decoders or key derivation: messages are read by plain msgpack, keys are moved on and
unwrapped by `cryptography`. What the server wrapped for whom is in the messages; whether a key that is known opens a
wrap is found out by trying.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

if TYPE_CHECKING:
    from collections.abc import Iterable

REKEY: Final = 1
WELCOME: Final = 3


class Known(NamedTuple):
    """A key of node `(level, place)`, drawn in epoch `birth` and moved on `step` times."""

    level: int
    place: int
    birth: int
    step: int
    key: bytes


class _Wrap(NamedTuple):
    """A published key of the parent node, drawn in `epoch`, under a version of the node that `Tape` files it by."""

    birth: int
    step: int
    wrapped: bytes
    parent: tuple[int, int]
    epoch: int


class _Sealed(NamedTuple):
    """A published Welcome; who made its key can open it."""

    epoch: int
    info: bytes
    text: bytes


Version = tuple[int, int, int]  # level, index, birth


def ratchet(key: bytes, steps: int) -> bytes:
    """Move a key on."""
    for _ in range(steps):
        key = HKDFExpand(hashes.SHA256(), 32, b"brokerkm v1 ratchet").derive(key)
    return key


class Tape:
    """All that a broker saw of one group's key distribution.

    Args:
        group: group id.
        degree: of its tree.
        prefix: of its topics.
    """

    def __init__(self, group: str, degree: int, prefix: str = "bkm/1") -> None:
        self._root: Final = f"{prefix}/{group}/"
        self._group: Final = group
        self._degree: Final = degree
        self.wraps: Final[dict[tuple[int, int], list[_Wrap]]] = defaultdict(list)
        self.welcomes: Final[dict[str, list[_Sealed]]] = defaultdict(list)
        self._opened: Final[dict[tuple[str, bytes], tuple[int, list[Known]]]] = {}

    def record(self, topic: str, payload: bytes, epoch: int) -> None:
        """Take down one message, published in `epoch`."""
        kind, *place = topic.removeprefix(self._root).split("/")
        message = msgpack.unpackb(payload)
        if kind == "n" and message[1] == REKEY:
            self._record_rekey(int(place[0]), int(place[1]), message)
        elif kind == "m" and message[1] == WELCOME:
            nonce, sealed = message[2:4]
            info = b"brokerkm v1 welcome\0" + msgpack.packb([self._group, place[0], nonce])
            self.welcomes[place[0]].append(_Sealed(epoch, info, sealed))

    def _record_rekey(self, level: int, index: int, message: list[object]) -> None:
        _, _, epoch, height, entries, chain, *_ = message
        assert isinstance(epoch, int)
        assert isinstance(height, int)
        assert isinstance(entries, list)
        assert isinstance(chain, bytes)
        parent = (1, index) if level == 0 else (level + 1, index // self._degree)
        for slot, birth, step, wrapped in entries:
            node = (level, index if slot is None else slot)
            self.wraps[node].append(_Wrap(birth, step, wrapped, parent, epoch))
        for start in range(0, len(chain), 40):
            node, parent = parent, (parent[0] + 1, parent[1] // self._degree)
            self.wraps[node].append(_Wrap(epoch, 0, chain[start : start + 40], parent, epoch))
        assert parent == (height, 0)

    def open_welcomes(self, member: str, seed: bytes) -> list[Known]:
        """Return the keys in all Welcomes to `member` that the KEM key made from `seed` opens (suite 1)."""
        suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
        private = X25519PrivateKey.from_private_bytes(seed)
        tried, found = self._opened.get((member, seed), (0, list[Known]()))
        for sealed in self.welcomes[member][tried:]:
            try:
                plain = suite.decrypt(sealed.text, private, info=sealed.info)
            except (InvalidTag, ValueError):
                continue
            _, _, slot, degree, leaf, path, *_ = msgpack.unpackb(plain)
            found.append(Known(0, slot, leaf[0], 0, leaf[1]))
            found += [
                Known(level, slot // degree**level, birth, step, key)
                for level, (birth, step, key) in enumerate(path, start=1)
            ]
        self._opened[member, seed] = (len(self.welcomes[member]), found)
        return found


def closure(known: Iterable[Known], tape: Tape) -> dict[Version, tuple[int, bytes]]:
    """Return everything that follows from `known` and the tape: for each key drawn, the lowest step that is reached."""
    best: dict[Version, tuple[int, bytes]] = {}
    queue = list(known)
    while queue:
        level, index, birth, step, key = queue.pop()
        version = (level, index, birth)
        if version in best and best[version][0] <= step:
            continue
        best[version] = (step, key)
        moved = ratchet(key, 1)
        for wrap in tape.wraps.get((level, index), ()):
            steps = wrap.step - step if wrap.birth == birth else 0
            if steps < 0:
                continue
            # A key that was used under another version's name, or moved on once too little, is tried as well.
            for candidate in {ratchet(moved, steps - 1) if steps else key, key, moved}:
                with suppress(InvalidUnwrap):
                    queue.append(Known(*wrap.parent, wrap.epoch, 0, aes_key_unwrap(candidate, wrap.wrapped)))
    return best


def reaches(found: dict[Version, tuple[int, bytes]], target: Known) -> bool:
    """Return whether `target` is among what was found, by its name or by its bytes."""
    step, key = found.get((target.level, target.place, target.birth), (target.step + 1, b""))
    if step <= target.step and ratchet(key, target.step - step) == target.key:
        return True
    near = [key for (level, _, _), (_, key) in found.items() if abs(level - target.level) <= 1]
    return any(target.key in (key, ratchet(key, 1)) for key in near)


def exhaustive(known: Iterable[Known], tape: Tape, ahead: int = 4) -> set[bytes]:
    """Return every key that follows if names mean nothing: each key, moved on up to `ahead` steps, tries every wrap."""
    wraps = {wrap.wrapped for wraps in tape.wraps.values() for wrap in wraps}
    found: set[bytes] = set()
    queue = [one.key for one in known]
    while queue:
        key = queue.pop()
        for _ in range(ahead + 1):
            if key in found:
                break
            found.add(key)
            for wrapped in list(wraps):
                try:
                    queue.append(aes_key_unwrap(key, wrapped))
                except InvalidUnwrap:
                    continue
                wraps.discard(wrapped)
            key = ratchet(key, 1)
    return found

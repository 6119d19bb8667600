"""What all messages share: their types, and how the server signs one.

Each message is a msgpack array (`schemas/*.cddl`). What the topic already says is not sent again but is signed: the
signed bytes of a message are its label, a zero byte, the msgpack array of its context (group and what the topic
names), and the message's own bytes up to the first field that proves it. The classes of `rekey`, `welcome`, `notice`
and `request` each `decode` types, lengths and ranges without looking at a key: a decoded message is to be trusted
only once it has been verified.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from brokerkm.core.crypto import SIGNATURE_SIZE
from brokerkm.core.wire import binary_size, pack

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_DEGREE: Final = 64
MAX_STEP: Final = 0xFFFF  # a node that has been ratcheted this often is drawn anew instead
SIGNATURE_TAIL: Final = binary_size(SIGNATURE_SIZE)  # bytes that an encoded signature has at a message's end


class Kind(enum.IntEnum):
    """The message types, second element of every message."""

    REKEY = 1
    BEACON = 2
    WELCOME = 3
    GOODBYE = 4
    JOIN = 5
    SYNC = 6
    LEAVE = 7
    DATA = 8
    REFUSAL = 9
    SUBGROUP = 10


def encode_proved(fields: tuple[object, ...], proofs: int = 1) -> bytes:
    """Return the encoding of `fields` as the beginning of an array that has `proofs` more elements, 15 in all."""
    return bytes((0x90 | (len(fields) + proofs),)) + pack(fields)[1:]  # fixarray


def sign(key: Ed25519PrivateKey, context: bytes, fields: tuple[object, ...]) -> bytes:
    """Return the message of `fields` with its signature over `context` and all that comes before it."""
    body = encode_proved(fields)
    return body + pack(key.sign(context + body))

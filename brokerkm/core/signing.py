"""How the server signs its messages, one by one or in blocks, and how that is checked.

The last element of a signed message is the signature. Messages that a commit makes by the thousand have a `proof`
before it: nil if
the signature is over the message itself, or the hashes that lead from the message to the root of its block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.core.crypto import HASH_SIZE, SIGNATURE_SIZE, check_signature
from brokerkm.core.merkle import BLOCK_SIZE, MAX_PROOF, leaf_hash, root_and_proofs, root_from_proof
from brokerkm.core.wire import binary, binary_size, pack
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_TAIL: Final = binary_size(SIGNATURE_SIZE)  # bytes that an encoded signature has at a message's end
MAX_SINGLY_SIGNED: Final = 64  # messages; two evictions from a group of a million. Above it, signing would dominate

_BLOCK_LABEL: Final = b"brokerkm v1 block\x00"
_NIL: Final = b"\xc0"


def encode_proved(fields: tuple[object, ...], proofs: int = 1) -> bytes:
    """Return the encoding of `fields` as the beginning of an array that has `proofs` more elements, 15 in all."""
    return bytes((0x90 | (len(fields) + proofs),)) + pack(fields)[1:]  # fixarray


def sign(key: Ed25519PrivateKey, context: bytes, fields: tuple[object, ...]) -> bytes:
    """Return the message of `fields` with its signature over `context` and all that comes before it."""
    body = encode_proved(fields)
    return body + pack(key.sign(context + body))


def sign_all(key: Ed25519PrivateKey, bodies: Sequence[bytes], contexts: Sequence[bytes]) -> list[bytes]:
    """Return each of `bodies`, encoded up to its proof, with proof and signature under its context.

    Few are signed one by one: fewest bytes to each member. Many are signed in blocks: fewest signatures.
    """
    signed = [context + body for context, body in zip(contexts, bodies, strict=True)]
    if len(bodies) <= MAX_SINGLY_SIGNED:
        return [body + _NIL + pack(key.sign(data)) for body, data in zip(bodies, signed, strict=True)]
    messages: list[bytes] = []
    for start in range(0, len(bodies), BLOCK_SIZE):
        if start == len(bodies) - 1:  # a block of one has no proof to show: the message itself is signed
            messages.append(bodies[start] + _NIL + pack(key.sign(signed[start])))
            continue
        root, proofs = root_and_proofs([leaf_hash(data) for data in signed[start : start + BLOCK_SIZE]])
        signature = pack(key.sign(_BLOCK_LABEL + root))
        block = bodies[start : start + BLOCK_SIZE]
        messages += [body + pack(proof) + signature for body, proof in zip(block, proofs, strict=True)]
    return messages


def decode_proof(value: object, payload: bytes) -> tuple[bytes | None, bytes]:
    """Return the proof in `value` and the part of `payload` before it; raises `RefusedError`."""
    if value is None:
        return None, payload[: -SIGNATURE_TAIL - len(_NIL)]
    proof = binary(value, "proof", maximum=MAX_PROOF)
    if not proof or len(proof) % HASH_SIZE:
        raise RefusedError(Reason.WRONG_LENGTH, "proof")
    return proof, payload[: -SIGNATURE_TAIL - binary_size(len(proof))]


def check_proved(key: Ed25519PublicKey, signature: bytes, proof: bytes | None, signed: bytes) -> None:
    """Check that `signature` is over `signed`, or over the block that `proof` shows it in; raises `RefusedError`."""
    check_signature(
        key, signature, signed if proof is None else _BLOCK_LABEL + root_from_proof(leaf_hash(signed), proof)
    )

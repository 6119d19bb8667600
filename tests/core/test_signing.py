"""Signatures over single messages and over blocks."""

from __future__ import annotations

import hashlib

import pytest
from core.forge import SERVER, SERVER_KEY, bound, head, pack
from core.refusal import refused

from brokerkm.core import signing
from brokerkm.errors import Reason


def bodies(count: int) -> list[bytes]:
    """Return message beginnings that have proof and signature still to come."""
    return [head([1, 1, number], 2) for number in range(count)]


def contexts(count: int) -> list[bytes]:
    """Return a context for each body."""
    return [bound("label", "fleet", number) for number in range(count)]


def test_sign_appends_a_signature_over_context_and_body() -> None:
    """A single message ends in the Ed25519 signature of all before it, its context first."""
    body = head([1, 2, b"x"], 1)
    assert body + pack(SERVER.sign(b"context" + body)) == signing.sign(SERVER, b"context", (1, 2, b"x"))


@pytest.mark.parametrize("count", [0, 1, 64])
def test_few_messages_are_signed_one_by_one(count: int) -> None:
    """Up to 64 messages have no proof, and a signature each."""
    expected = [
        body + b"\xc0" + pack(SERVER.sign(context + body))
        for body, context in zip(bodies(count), contexts(count), strict=True)
    ]
    assert expected == signing.sign_all(SERVER, bodies(count), contexts(count))


@pytest.mark.parametrize("count", [65, 79, 80, 81, 95, 96])
def test_many_messages_are_signed_in_blocks(count: int) -> None:
    """Above 64 messages, 16 share a signature over the label and root of their block; one left over has its own."""
    messages = signing.sign_all(SERVER, bodies(count), contexts(count))
    assert -(-count // 16) == len({message[-66:] for message in messages})
    for message, body, context in zip(messages, bodies(count), contexts(count), strict=True):
        root = hashlib.sha256(b"\x00" + context + body).digest()[:16]
        assert message.startswith(body)
        if message[len(body)] == 0xC0:  # alone in its block
            SERVER_KEY.verify(message[-64:], context + body)
            continue
        proof = message[len(body) + 2 : -66]
        for at in range(0, len(proof), 16):
            low, high = sorted((root, proof[at : at + 16]))
            root = hashlib.sha256(b"\x01" + low + high).digest()[:16]
        SERVER_KEY.verify(message[-64:], b"brokerkm v1 block\x00" + root)


def check(message: bytes, body: bytes, context: bytes) -> None:
    """Check a message as its receiver does."""
    proof = None if message[len(body)] == 0xC0 else message[len(body) + 2 : -66]
    found, signed_part = signing.decode_proof(proof, message)
    assert body == signed_part
    signing.check_proved(SERVER_KEY, message[-64:], found, context + signed_part)


@pytest.mark.parametrize("count", [1, 64, 65, 66, 80, 81])
def test_receiver_finds_what_was_signed(count: int) -> None:
    """Every message that was signed is accepted."""
    for message, body, context in zip(
        signing.sign_all(SERVER, bodies(count), contexts(count)), bodies(count), contexts(count), strict=True
    ):
        check(message, body, context)


@pytest.mark.parametrize("count", [2, 80])
def test_signature_of_another_message_is_refused(count: int) -> None:
    """Neither a neighbour's context nor its proof makes a message good."""
    messages = signing.sign_all(SERVER, bodies(count), contexts(count))
    with refused(Reason.BAD_SIGNATURE, "signature"):
        check(messages[0], bodies(count)[0], contexts(count)[1])
    moved = bodies(count)[0] + messages[1][len(bodies(count)[1]) :]
    with refused(Reason.BAD_SIGNATURE, "signature"):
        check(moved, bodies(count)[0], contexts(count)[0])


def test_root_signed_as_a_message_is_refused() -> None:
    """What the server signs as one message does not pass for a block's root: the labels differ."""
    body = head([1, 1, 7], 2)
    signature = SERVER.sign(hashlib.sha256(b"\x00" + b"context" + body).digest()[:16])
    with refused(Reason.BAD_SIGNATURE, "signature"):
        signing.check_proved(SERVER_KEY, signature, b"", b"context" + body)


@pytest.mark.parametrize(
    ("proof", "reason"),
    [
        (b"", Reason.WRONG_LENGTH),
        (bytes(15), Reason.WRONG_LENGTH),
        (bytes(17), Reason.WRONG_LENGTH),
        (bytes(80), Reason.WRONG_LENGTH),
        (0, Reason.WRONG_TYPE),
        ("", Reason.WRONG_TYPE),
        (False, Reason.WRONG_TYPE),
    ],
)
def test_malformed_proof_is_refused(proof: object, reason: Reason) -> None:
    """A proof is nil, or one to four whole hashes."""
    with refused(reason, "proof"):
        signing.decode_proof(proof, bytes(200))


@pytest.mark.parametrize("hashes", [1, 2, 3, 4])
def test_proof_of_whole_hashes_is_accepted(hashes: int) -> None:
    """The signed part ends where the encoded proof begins."""
    proof = bytes(16 * hashes)
    assert (proof, b"body") == signing.decode_proof(proof, b"body" + pack(proof) + pack(bytes(64)))

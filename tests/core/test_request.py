"""Join, Sync, Leave and Ack."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from core.forge import DEVICE, DEVICE_PUBLIC, bound, head, maced, pack, replaced, signed
from core.refusal import refused

from brokerkm.core.crypto import Suite
from brokerkm.core.request import Ack, Asked, Join, Leave, Sync, TokenKey, request_key
from brokerkm.errors import Reason, UsageError

NONCE = b"n" * 16
KEM = b"\x09" + bytes(31)
LEAF = b"l" * 32
SECRET = b"t" * 32
TOKEN = TokenKey(b"token-id", b"k" * 32)
CONTEXT = ("fleet", "m")
ASKED = Asked(NONCE, 1000, 7)
JOIN: list[object] = [1, 5, NONCE, 1000, 7, KEM, DEVICE_PUBLIC, None, None]


class Papers:
    """Certificates that are none, and a signature that says what it is over."""

    def __init__(self, *chain: bytes) -> None:
        self.chain = chain

    def sign(self, data: bytes) -> bytes:
        """Return the hash of `data` in place of a signature."""
        return hashlib.sha512(data).digest()


def token_join() -> bytes:
    """Return a Join with a token, built by hand."""
    label = bound("brokerkm v1 join", *CONTEXT)
    body = head([*JOIN[:7], TOKEN.id], 2)
    body += pack(hmac.new(TOKEN.key, label + body, hashlib.sha256).digest())
    return body + pack(DEVICE.sign(label + body))


def test_token_key_is_derived_as_specified() -> None:
    """The MAC key is HKDF-Expand of the secret for the token's id."""
    info = b"brokerkm v1 token\0\x91\xc4\x08token-id\x01"
    expected = TokenKey(b"token-id", hmac.new(SECRET, info, hashlib.sha256).digest())
    assert expected == TokenKey.from_secret(b"token-id", SECRET)


def test_request_key_is_derived_as_specified() -> None:
    """Syncs and Leaves are keyed from the leaf key."""
    expected = hmac.new(LEAF, b"brokerkm v1 request\0\x90\x01", hashlib.sha256).digest()
    assert expected == request_key(LEAF)


def test_join_of_a_listed_device_is_encoded_as_specified() -> None:
    """Without a token, the identity's signature is the proof."""
    expected = signed("brokerkm v1 join", CONTEXT, JOIN, DEVICE)
    assert expected == Join.seal(DEVICE, *CONTEXT, KEM, credential=None, asked=ASKED)


def test_join_with_token_is_encoded_as_specified() -> None:
    """With a token there is a MAC, which the signature covers."""
    assert token_join() == Join.seal(DEVICE, *CONTEXT, KEM, credential=TOKEN, asked=ASKED)


def certified_join(*chain: bytes) -> bytes:
    """Return a Join with certificates, built by hand."""
    body = head([*JOIN[:7], list(chain)], 2)
    body += pack(hashlib.sha512(bound("brokerkm v1 possession", *CONTEXT) + body).digest())
    return body + pack(DEVICE.sign(bound("brokerkm v1 join", *CONTEXT) + body))


def test_join_with_certificates_is_encoded_as_specified() -> None:
    """The certificate's key signs under a label of its own what a token's MAC would be over."""
    papers = Papers(b"leaf", b"authority")
    assert certified_join(*papers.chain) == Join.seal(DEVICE, *CONTEXT, KEM, credential=papers, asked=ASKED)


def test_join_with_certificates_is_read() -> None:
    """The server gets the chain, and what its first key has signed."""
    join = Join.decode(certified_join(b"leaf", b"authority"), Suite.X25519)
    join.verify_signature(*CONTEXT)
    assert (None, (b"leaf", b"authority")) == (join.token, join.chain)
    assert hashlib.sha512(join.possession(*CONTEXT)).digest() == join.proof


@pytest.mark.parametrize("chain", [(), (b"x",) * 5, (b"x" * 9000, b"y" * 9000)])
def test_join_with_too_many_certificates_is_not_made(chain: tuple[bytes, ...]) -> None:
    """A Join carries one to four certificates within the size of a message."""
    with pytest.raises(UsageError, match="1 to 4 certificates and is at most 16384 bytes"):
        Join.seal(DEVICE, *CONTEXT, KEM, credential=Papers(*chain), asked=ASKED)


@pytest.mark.parametrize(
    ("chain", "proof", "reason", "field"),
    [
        ([], b"s", Reason.WRONG_LENGTH, "credential"),
        ([b"x"] * 5, b"s", Reason.WRONG_LENGTH, "credential"),
        (["x"], b"s", Reason.WRONG_TYPE, "credential"),
        ([b"x"], bytes(513), Reason.WRONG_LENGTH, "proof"),
        ([b"x"], 1, Reason.WRONG_TYPE, "proof"),
        ([b"x"], None, Reason.WRONG_TYPE, "proof"),
    ],
)
def test_malformed_certificates_are_refused(chain: list[object], proof: object, reason: Reason, field: str) -> None:
    """A chain has one to four certificates, its proof at most 512 bytes."""
    with refused(reason, field):
        Join.decode(signed("brokerkm v1 join", CONTEXT, [*JOIN[:7], chain, proof], DEVICE), Suite.X25519)


def test_join_is_read() -> None:
    """The server reads what the device wrote."""
    join = Join.decode(token_join(), Suite.X25519)
    join.verify_token(TOKEN, *CONTEXT)
    join.verify_signature(*CONTEXT)
    expected = (*ASKED, KEM, DEVICE_PUBLIC, TOKEN.id, ())
    found = (join.nonce, join.time, join.counter, join.kem_public, join.identity, join.token, join.chain)
    assert expected == found


def test_join_of_suite_2_is_read() -> None:
    """The hybrid's public key is longer."""
    fields = replaced(JOIN, 5, bytes(1216))
    assert bytes(1216) == Join.decode(signed("brokerkm v1 join", CONTEXT, fields, DEVICE), Suite(2)).kem_public


@pytest.mark.parametrize("context", [("fleet2", "m"), ("fleet", "m2")])
def test_join_of_another_is_refused(context: tuple[str, str]) -> None:
    """Group and member are bound by both proofs."""
    join = Join.decode(token_join(), Suite.X25519)
    with refused(Reason.BAD_SIGNATURE, "signature"):
        join.verify_signature(*context)
    with refused(Reason.BAD_MAC, "proof"):
        join.verify_token(TOKEN, *context)


def test_join_with_another_token_is_refused() -> None:
    """Knowing a token's id is not having its secret."""
    with refused(Reason.BAD_MAC, "proof"):
        Join.decode(token_join(), Suite.X25519).verify_token(TokenKey(TOKEN.id, LEAF), *CONTEXT)


def test_join_without_token_is_refused_where_one_is_needed() -> None:
    """A Join that names no token proves none."""
    with refused(Reason.UNKNOWN_TOKEN, "credential"):
        Join.decode(signed("brokerkm v1 join", CONTEXT, JOIN, DEVICE), Suite.X25519).verify_token(TOKEN, *CONTEXT)


def test_join_by_another_key_is_refused() -> None:
    """The signature is by the identity that the Join names."""
    fields = replaced(JOIN, 6, bytes(32))
    with refused(Reason.BAD_SIGNATURE, "signature"):
        Join.decode(signed("brokerkm v1 join", CONTEXT, fields, DEVICE), Suite.X25519).verify_signature(*CONTEXT)


@pytest.mark.parametrize(
    ("place", "value", "reason", "field"),
    [
        (2, NONCE + b"n", Reason.WRONG_LENGTH, "nonce"),
        (3, "1000", Reason.WRONG_TYPE, "time"),
        (4, -1, Reason.OUT_OF_RANGE, "counter"),
        (5, bytes(1216), Reason.WRONG_LENGTH, "kem_public"),  # of the other suite
        (6, bytes(31), Reason.WRONG_LENGTH, "identity"),
        (7, TOKEN.id, Reason.WRONG_TYPE, "proof"),
        (8, bytes(32), Reason.WRONG_TYPE, "proof"),
    ],
)
def test_malformed_join_is_refused(place: int, value: object, reason: Reason, field: str) -> None:
    """Each field has its type and length; credential and proof come together."""
    with refused(reason, field):
        Join.decode(signed("brokerkm v1 join", CONTEXT, replaced(JOIN, place, value), DEVICE), Suite.X25519)


@pytest.mark.parametrize(
    ("token", "tag", "field"), [(bytes(7), bytes(32), "credential"), (bytes(8), bytes(31), "proof")]
)
def test_malformed_token_is_refused(token: bytes, tag: bytes, field: str) -> None:
    """A token's id has 8 bytes, its MAC 32."""
    with refused(Reason.WRONG_LENGTH, field):
        Join.decode(signed("brokerkm v1 join", CONTEXT, [*JOIN[:7], token, tag], DEVICE), Suite.X25519)


SEALED = {
    "sync": ([1, 6, *ASKED, 9], Sync.seal(LEAF, *CONTEXT, asked=ASKED, epoch=9), Sync),
    "leave": ([1, 7, *ASKED], Leave.seal(LEAF, *CONTEXT, asked=ASKED), Leave),
    "ack": ([1, 12, *ASKED, 9], Ack.seal(LEAF, *CONTEXT, asked=ASKED, epoch=9), Ack),
}
"""What each request of a member is, and what it is made by."""


@pytest.mark.parametrize("kind", SEALED)
def test_requests_are_encoded_as_specified(kind: str) -> None:
    """Each ends in its MAC."""
    fields, sealed, _ = SEALED[kind]
    assert maced(f"brokerkm v1 {kind}", CONTEXT, fields, LEAF) == sealed


@pytest.mark.parametrize("kind", SEALED)
def test_requests_are_read(kind: str) -> None:
    """The server reads what the member wrote."""
    fields, sealed, request = SEALED[kind]
    found = request.decode(sealed)
    found.verify(LEAF, *CONTEXT)
    epoch = [] if isinstance(found, Leave) else [found.epoch]
    assert fields == [1, fields[1], found.nonce, found.time, found.counter, *epoch]


@pytest.mark.parametrize("kind", SEALED)
@pytest.mark.parametrize(
    ("key", "context"), [(SECRET, ("fleet", "m")), (LEAF, ("fleet2", "m")), (LEAF, ("fleet", "m2"))]
)
def test_request_of_another_is_refused(kind: str, key: bytes, context: tuple[str, str]) -> None:
    """Neither another's leaf key nor another's name makes a request good."""
    _, sealed, request = SEALED[kind]
    with refused(Reason.BAD_MAC, "mac"):
        request.decode(sealed).verify(key, *context)


def test_ack_does_not_pass_for_a_sync() -> None:
    """Each kind of request has its label, besides its type."""
    with refused(Reason.BAD_MAC, "mac"):
        Sync.decode(maced("brokerkm v1 ack", CONTEXT, [1, 6, *ASKED, 9], LEAF)).verify(LEAF, *CONTEXT)


@pytest.mark.parametrize("kind", SEALED)
@pytest.mark.parametrize(("place", "value", "field"), [(2, b"", "nonce"), (3, -1, "time"), (4, -1, "counter")])
def test_malformed_request_is_refused(kind: str, place: int, value: object, field: str) -> None:
    """Each field that all requests have has its length and range."""
    fields, _, request = SEALED[kind]
    with refused(Reason.WRONG_LENGTH if place == 2 else Reason.OUT_OF_RANGE, field):
        request.decode(maced(f"brokerkm v1 {kind}", CONTEXT, replaced(fields, place, value), LEAF))


@pytest.mark.parametrize(("kind", "epoch"), [("sync", -1), ("ack", 0)])
def test_epoch_out_of_range_is_refused(kind: str, epoch: int) -> None:
    """A Sync may come from one that has no epoch, an Ack may not."""
    fields, _, request = SEALED[kind]
    with refused(Reason.OUT_OF_RANGE, "epoch"):
        request.decode(maced(f"brokerkm v1 {kind}", CONTEXT, replaced(fields, 5, epoch), LEAF))


@pytest.mark.parametrize("kind", SEALED)
def test_short_mac_is_refused(kind: str) -> None:
    """A MAC has 32 bytes."""
    fields, _, request = SEALED[kind]
    with refused(Reason.WRONG_LENGTH, "mac"):
        request.decode(pack([*fields, bytes(31)]))

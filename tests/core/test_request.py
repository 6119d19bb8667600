"""Join, Sync and Leave."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from core.forge import DEVICE, DEVICE_PUBLIC, bound, head, maced, pack, replaced, signed
from core.refusal import refused

from brokerkm.core.crypto import Suite
from brokerkm.core.request import Join, Leave, Sync, TokenKey, request_key
from brokerkm.errors import Reason

NONCE = b"n" * 16
KEM = b"\x09" + bytes(31)
LEAF = b"l" * 32
SECRET = b"t" * 32
TOKEN = TokenKey(b"token-id", b"k" * 32)
CONTEXT = ("fleet", "m")
JOIN: list[object] = [1, 5, NONCE, 1000, KEM, DEVICE_PUBLIC, None, None]


def token_join() -> bytes:
    """Return a Join with a token, built by hand."""
    label = bound("brokerkm v1 join", *CONTEXT)
    body = head([*JOIN[:6], TOKEN.id], 2)
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
    assert expected == Join.seal(DEVICE, *CONTEXT, KEM, token=None, nonce=NONCE, time=1000)


def test_join_with_token_is_encoded_as_specified() -> None:
    """With a token there is a MAC, which the signature covers."""
    assert token_join() == Join.seal(DEVICE, *CONTEXT, KEM, token=TOKEN, nonce=NONCE, time=1000)


def test_join_is_read() -> None:
    """The server reads what the device wrote."""
    join = Join.decode(token_join(), Suite.X25519)
    join.verify_token(TOKEN, *CONTEXT)
    join.verify_signature(*CONTEXT)
    expected = (NONCE, 1000, KEM, DEVICE_PUBLIC, TOKEN.id)
    assert expected == (join.nonce, join.time, join.kem_public, join.identity, join.token)


def test_join_of_suite_2_is_read() -> None:
    """The hybrid's public key is longer."""
    fields = replaced(JOIN, 4, bytes(1216))
    assert bytes(1216) == Join.decode(signed("brokerkm v1 join", CONTEXT, fields, DEVICE), Suite(2)).kem_public


@pytest.mark.parametrize("context", [("fleet2", "m"), ("fleet", "m2")])
def test_join_of_another_is_refused(context: tuple[str, str]) -> None:
    """Group and member are bound by both proofs."""
    join = Join.decode(token_join(), Suite.X25519)
    with refused(Reason.BAD_SIGNATURE, "signature"):
        join.verify_signature(*context)
    with refused(Reason.BAD_MAC, "mac"):
        join.verify_token(TOKEN, *context)


def test_join_with_another_token_is_refused() -> None:
    """Knowing a token's id is not having its secret."""
    with refused(Reason.BAD_MAC, "mac"):
        Join.decode(token_join(), Suite.X25519).verify_token(TokenKey(TOKEN.id, LEAF), *CONTEXT)


def test_join_without_token_is_refused_where_one_is_needed() -> None:
    """A Join that names no token proves none."""
    with refused(Reason.UNKNOWN_TOKEN, "token"):
        Join.decode(signed("brokerkm v1 join", CONTEXT, JOIN, DEVICE), Suite.X25519).verify_token(TOKEN, *CONTEXT)


def test_join_by_another_key_is_refused() -> None:
    """The signature is by the identity that the Join names."""
    fields = replaced(JOIN, 5, bytes(32))
    with refused(Reason.BAD_SIGNATURE, "signature"):
        Join.decode(signed("brokerkm v1 join", CONTEXT, fields, DEVICE), Suite.X25519).verify_signature(*CONTEXT)


@pytest.mark.parametrize(
    ("place", "value", "reason", "field"),
    [
        (2, NONCE + b"n", Reason.WRONG_LENGTH, "nonce"),
        (3, "1000", Reason.WRONG_TYPE, "time"),
        (4, bytes(1216), Reason.WRONG_LENGTH, "kem_public"),  # of the other suite
        (5, bytes(31), Reason.WRONG_LENGTH, "identity"),
        (6, TOKEN.id, Reason.WRONG_TYPE, "mac"),
        (7, bytes(32), Reason.WRONG_TYPE, "mac"),
    ],
)
def test_malformed_join_is_refused(place: int, value: object, reason: Reason, field: str) -> None:
    """Each field has its type and length; token and MAC come together."""
    with refused(reason, field):
        Join.decode(signed("brokerkm v1 join", CONTEXT, replaced(JOIN, place, value), DEVICE), Suite.X25519)


@pytest.mark.parametrize(("token", "tag", "field"), [(bytes(7), bytes(32), "token"), (bytes(8), bytes(31), "mac")])
def test_malformed_token_is_refused(token: bytes, tag: bytes, field: str) -> None:
    """A token's id has 8 bytes, its MAC 32."""
    with refused(Reason.WRONG_LENGTH, field):
        Join.decode(signed("brokerkm v1 join", CONTEXT, [*JOIN[:6], token, tag], DEVICE), Suite.X25519)


def test_sync_is_encoded_as_specified() -> None:
    """A Sync ends in its MAC."""
    expected = maced("brokerkm v1 sync", CONTEXT, [1, 6, NONCE, 1000, 9], LEAF)
    assert expected == Sync.seal(LEAF, *CONTEXT, nonce=NONCE, time=1000, epoch=9)


def test_leave_is_encoded_as_specified() -> None:
    """A Leave ends in its MAC."""
    expected = maced("brokerkm v1 leave", CONTEXT, [1, 7, NONCE, 1000], LEAF)
    assert expected == Leave.seal(LEAF, *CONTEXT, nonce=NONCE, time=1000)


def test_sync_and_leave_are_read() -> None:
    """The server reads what the member wrote."""
    sync = Sync.decode(maced("brokerkm v1 sync", CONTEXT, [1, 6, NONCE, 1000, 9], LEAF))
    leave = Leave.decode(maced("brokerkm v1 leave", CONTEXT, [1, 7, NONCE, 1000], LEAF))
    sync.verify(LEAF, *CONTEXT)
    leave.verify(LEAF, *CONTEXT)
    assert (NONCE, 1000, 9, NONCE, 1000) == (sync.nonce, sync.time, sync.epoch, leave.nonce, leave.time)


@pytest.mark.parametrize(
    ("key", "context"), [(SECRET, ("fleet", "m")), (LEAF, ("fleet2", "m")), (LEAF, ("fleet", "m2"))]
)
def test_request_of_another_is_refused(key: bytes, context: tuple[str, str]) -> None:
    """Neither another's leaf key nor another's name makes a request good."""
    for request in (
        Sync.decode(maced("brokerkm v1 sync", CONTEXT, [1, 6, NONCE, 1000, 9], LEAF)),
        Leave.decode(maced("brokerkm v1 leave", CONTEXT, [1, 7, NONCE, 1000], LEAF)),
    ):
        with refused(Reason.BAD_MAC, "mac"):
            request.verify(key, *context)


def test_sync_does_not_pass_for_a_leave() -> None:
    """Each kind of request has its label, besides its type."""
    with refused(Reason.BAD_MAC, "mac"):
        Leave.decode(maced("brokerkm v1 sync", CONTEXT, [1, 7, NONCE, 1000], LEAF)).verify(LEAF, *CONTEXT)


@pytest.mark.parametrize(("place", "value", "field"), [(2, b"", "nonce"), (3, -1, "time"), (4, -1, "epoch")])
def test_malformed_sync_is_refused(place: int, value: object, field: str) -> None:
    """Each field of a Sync has its length and range."""
    with refused(Reason.WRONG_LENGTH if place == 2 else Reason.OUT_OF_RANGE, field):
        Sync.decode(maced("brokerkm v1 sync", CONTEXT, replaced([1, 6, NONCE, 1000, 9], place, value), LEAF))


@pytest.mark.parametrize(("place", "value", "field"), [(2, b"", "nonce"), (3, -1, "time")])
def test_malformed_leave_is_refused(place: int, value: object, field: str) -> None:
    """Each field of a Leave has its length and range."""
    with refused(Reason.WRONG_LENGTH if place == 2 else Reason.OUT_OF_RANGE, field):
        Leave.decode(maced("brokerkm v1 leave", CONTEXT, replaced([1, 7, NONCE, 1000], place, value), LEAF))


def test_short_mac_is_refused() -> None:
    """A MAC has 32 bytes."""
    with refused(Reason.WRONG_LENGTH, "mac"):
        Sync.decode(pack([1, 6, NONCE, 1000, 9, bytes(31)]))
    with refused(Reason.WRONG_LENGTH, "mac"):
        Leave.decode(pack([1, 7, NONCE, 1000, bytes(31)]))

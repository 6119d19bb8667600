"""Welcomes, what is sealed in them, and sender certificates."""

from __future__ import annotations

import pytest
from core.forge import DEVICE_PUBLIC, SERVER, SERVER_KEY, bound, pack, replaced, signed
from core.refusal import refused

from brokerkm.core.crypto import Suite
from brokerkm.core.policy import Policy
from brokerkm.core.welcome import Certificate, NodeKey, Recipient, Welcome, WelcomeSecrets
from brokerkm.errors import Reason

NONCE = b"n" * 16
KEY = b"k" * 32
SIGNED_CERTIFICATE = SERVER.sign(bound("brokerkm v1 certificate", "fleet", "m", DEVICE_PUBLIC, 5000))
CERTIFICATE = Certificate(DEVICE_PUBLIC, 5000, SIGNED_CERTIFICATE)
PATH: list[object] = [[8, 3, b"1" * 32], [9, 0, b"2" * 32]]
SEALED: list[object] = [
    9,
    1000,
    6,
    4,
    [7, KEY],
    PATH,
    [30, 5, 300, 1, 0, 1, 0],
    [DEVICE_PUBLIC, 5000, SIGNED_CERTIFICATE],
]
SECRETS = WelcomeSecrets(
    epoch=9,
    time=1000,
    slot=6,
    degree=4,
    leaf=NodeKey(KEY, 7, 0),
    path=(NodeKey(b"1" * 32, 8, 3), NodeKey(b"2" * 32, 9, 0)),
    policy=Policy(),
    certificate=CERTIFICATE,
)


def test_secrets_are_encoded_as_specified() -> None:
    """The sealed part is the specification's array."""
    assert pack(SEALED) == SECRETS.encode()


def test_secrets_are_decoded() -> None:
    """The member reads what the server wrote."""
    assert SECRETS == WelcomeSecrets.decode(pack(SEALED))


def test_certificate_may_be_missing() -> None:
    """A group without source authentication sends nil."""
    assert None is WelcomeSecrets.decode(pack(replaced(SEALED, 7, None))).certificate


@pytest.mark.parametrize(
    ("place", "value", "reason", "field"),
    [
        (0, 0, Reason.OUT_OF_RANGE, "epoch"),
        (1, None, Reason.WRONG_TYPE, "time"),
        (2, 16, Reason.OUT_OF_RANGE, "slot"),  # a tree of degree 4 and height 2 has 16 leaves
        (2, 1 << 24, Reason.OUT_OF_RANGE, "slot"),
        (3, 1, Reason.OUT_OF_RANGE, "degree"),
        (3, 65, Reason.OUT_OF_RANGE, "degree"),
        (4, [7], Reason.WRONG_LENGTH, "leaf"),
        (4, [0, KEY], Reason.OUT_OF_RANGE, "leaf.birth"),
        (4, [10, KEY], Reason.OUT_OF_RANGE, "leaf.birth"),  # above the epoch
        (4, [7, KEY[:-1]], Reason.WRONG_LENGTH, "leaf.key"),
        (5, [], Reason.WRONG_LENGTH, "path"),
        (5, [[8, 3, KEY]] * 25, Reason.WRONG_LENGTH, "path"),
        (5, [[8, 3]] * 2, Reason.WRONG_LENGTH, "path"),
        (5, [[0, 3, KEY]] * 2, Reason.OUT_OF_RANGE, "path.birth"),
        (5, [[10, 3, KEY]] * 2, Reason.OUT_OF_RANGE, "path.birth"),
        (5, [[8, 65536, KEY]] * 2, Reason.OUT_OF_RANGE, "path.step"),
        (5, [[8, 3, b""]] * 2, Reason.WRONG_LENGTH, "path.key"),
        (6, [30, 5, 0, 1, 0, 1, 0], Reason.OUT_OF_RANGE, "policy.max_silence"),
        (7, [DEVICE_PUBLIC, 5000], Reason.WRONG_LENGTH, "certificate"),
        (7, [KEY[1:], 5000, bytes(64)], Reason.WRONG_LENGTH, "certificate.identity"),
        (7, [KEY, -1, bytes(64)], Reason.OUT_OF_RANGE, "certificate.expiry"),
        (7, [KEY, 5000, bytes(63)], Reason.WRONG_LENGTH, "certificate.signature"),
    ],
)
def test_malformed_secrets_are_refused(place: int, value: object, reason: Reason, field: str) -> None:
    """Each sealed field has its type, length and range, though the server alone writes it."""
    with refused(reason, field):
        WelcomeSecrets.decode(pack(replaced(SEALED, place, value)))


def test_secrets_of_other_lengths_are_refused() -> None:
    """The sealed array has eight elements, in their shortest encoding."""
    with refused(Reason.WRONG_LENGTH, "sealed"):
        WelcomeSecrets.decode(pack(SEALED[:-1]))
    with refused(Reason.NOT_CANONICAL, "message"):
        WelcomeSecrets.decode(b"\xdc\x00\x08" + pack(SEALED)[1:])


@pytest.mark.parametrize("suite", Suite)
def test_welcome_reaches_its_member(suite: Suite) -> None:
    """What the server seals, the holder of the seed opens."""
    seed = b"s" * suite.seed_size
    payload = Welcome.seal(SERVER, suite, "fleet", Recipient("m", suite.public_key(seed), NONCE), SECRETS)
    welcome = Welcome.decode(payload)
    welcome.verify(SERVER_KEY, "fleet", "m")
    assert (NONCE, SECRETS) == (welcome.nonce, welcome.open(suite, seed, "fleet", "m"))


def test_welcome_is_built_as_specified() -> None:
    """A Welcome made of plain HPKE, msgpack and Ed25519 is read."""
    suite, seed = Suite.X25519, b"s" * 32
    sealed = suite.seal(suite.public_key(seed), pack(SEALED), bound("brokerkm v1 welcome", "fleet", "m", NONCE))
    welcome = Welcome.decode(signed("brokerkm v1 welcome", ("fleet", "m"), [1, 3, NONCE, sealed]))
    welcome.verify(SERVER_KEY, "fleet", "m")
    assert SECRETS == welcome.open(suite, seed, "fleet", "m")


@pytest.mark.parametrize(("group", "member"), [("fleet2", "m"), ("fleet", "m2")])
def test_welcome_of_another_is_refused(group: str, member: str) -> None:
    """Group and member are bound by the signature and again by the seal."""
    suite, seed = Suite.X25519, b"s" * 32
    welcome = Welcome.decode(
        Welcome.seal(SERVER, suite, "fleet", Recipient("m", suite.public_key(seed), NONCE), SECRETS)
    )
    with refused(Reason.BAD_SIGNATURE, "signature"):
        welcome.verify(SERVER_KEY, group, member)
    with refused(Reason.BAD_SEAL, "sealed"):
        welcome.open(suite, seed, group, member)


@pytest.mark.parametrize(
    ("place", "value", "reason", "field"),
    [
        (2, NONCE[1:], Reason.WRONG_LENGTH, "nonce"),
        (2, "n" * 16, Reason.WRONG_TYPE, "nonce"),
        (3, None, Reason.WRONG_TYPE, "sealed"),
    ],
)
def test_malformed_welcome_is_refused(place: int, value: object, reason: Reason, field: str) -> None:
    """Each outer field has its type and length."""
    with refused(reason, field):
        Welcome.decode(signed("brokerkm v1 welcome", ("fleet", "m"), replaced([1, 3, NONCE, b"sealed"], place, value)))


def test_certificate_is_issued_as_specified() -> None:
    """The server signs label, group, member, identity and expiry."""
    assert CERTIFICATE == Certificate.issue(SERVER, "fleet", "m", DEVICE_PUBLIC, 5000)


def test_certificate_holds_until_it_expires() -> None:
    """The last millisecond belongs to it."""
    CERTIFICATE.verify(SERVER_KEY, "fleet", "m", 5000)
    with refused(Reason.WRONG_TIME, "certificate.expiry"):
        CERTIFICATE.verify(SERVER_KEY, "fleet", "m", 5001)


@pytest.mark.parametrize(("group", "member"), [("fleet2", "m"), ("fleet", "m2")])
def test_certificate_of_another_is_refused(group: str, member: str) -> None:
    """A certificate is one member's in one group."""
    with refused(Reason.BAD_SIGNATURE, "certificate.signature"):
        CERTIFICATE.verify(SERVER_KEY, group, member, 0)


def test_certificate_with_longer_life_is_refused() -> None:
    """The expiry is signed."""
    with refused(Reason.BAD_SIGNATURE, "certificate.signature"):
        Certificate(DEVICE_PUBLIC, 6000, SIGNED_CERTIFICATE).verify(SERVER_KEY, "fleet", "m", 0)

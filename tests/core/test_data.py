"""Data messages: their bytes, and what is no Data message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from core.forge import DEVICE, DEVICE_PUBLIC, SERVER, bound, data, expand, pack, replaced
from core.refusal import refused

from brokerkm.core.crypto import Algorithm
from brokerkm.core.data import Data, Header, Sealer, check_data_topic, data_context, sender_key, traffic_key
from brokerkm.core.welcome import Certificate, NodeKey
from brokerkm.errors import Reason, RefusedError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ROOT = (b"r" * 32, 9, 300)
SALT = b"saltsalt"
CERTIFICATE = Certificate.issue(SERVER, "fleet", "x", DEVICE_PUBLIC, 5000)
FIELDS: list[object] = [1, 8, 9, 300, "x", SALT, 0, bytes(16)]
SIGNED: list[object] = [*FIELDS, list(CERTIFICATE.fields), bytes(64)]


def sealer(certificate: Certificate | None = None) -> Sealer:
    """Return member x's sealer under the root key."""
    made = Sealer("fleet", "x", SALT, "bkm/1/")
    made.certificate, made.identity = certificate, DEVICE
    made.use(traffic_key("fleet", NodeKey(*ROOT)), 9, 300)
    return made


def test_traffic_key_is_derived_as_specified() -> None:
    """The TEK is bound to group and version."""
    expected = expand(ROOT[0], b"brokerkm v1 tek\0\x93\xa5fleet\x09\xcd\x01\x2c")
    assert expected == traffic_key("fleet", NodeKey(*ROOT))


@pytest.mark.parametrize("size", [0, 1, 239, 240, 70_000])
def test_plain_message_is_sealed_as_specified(size: int) -> None:
    """The bytes are those that the specification leads to, counters going up by one."""
    made = sealer()
    expected = [data(ROOT, "plant/1", bytes(size), counter=counter) for counter in range(130)]
    assert expected == [made.seal("plant/1", bytes(size)) for _ in range(130)]


def test_other_algorithm_is_sealed_as_specified() -> None:
    """ChaCha20-Poly1305 has a sender's key of its own."""
    made = sealer()
    made.use(traffic_key("fleet", NodeKey(*ROOT)), 9, 300, Algorithm.CHACHA20_POLY1305)
    assert data(ROOT, "plant/1", b"21.4", algorithm=2) == made.seal("plant/1", b"21.4")


def test_signed_message_is_sealed_as_specified() -> None:
    """Certificate and signature follow the ciphertext."""
    expected = data(ROOT, "plant/1", b"21.4", source=(list(CERTIFICATE.fields), DEVICE))
    assert expected == sealer(CERTIFICATE).seal("plant/1", b"21.4")


def test_counter_goes_on_across_rekeys() -> None:
    """A new key does not begin at zero: receivers tell replays by the counter."""
    made = sealer()
    made.seal("plant/1", b"one")
    made.use(traffic_key("fleet", NodeKey(b"q" * 32, 10, 0)), 10, 0)
    assert data((b"q" * 32, 10, 0), "plant/1", b"two", counter=1) == made.seal("plant/1", b"two")


def test_message_is_decoded() -> None:
    """The header is read as it was written."""
    decoded = Data.decode(data(ROOT, "plant/1", b"21.4", counter=7))
    assert (Header(9, 300, "x", SALT, 7), None, None) == (decoded.header, decoded.certificate, decoded.signature)
    key = sender_key(traffic_key("fleet", NodeKey(*ROOT)), "x", SALT, Algorithm.AES_256_GCM)
    assert b"21.4" == decoded.open(key, data_context("fleet", "plant/1"))


@pytest.mark.parametrize(("group", "topic"), [("fleet2", "plant/1"), ("fleet", "plant/2")])
def test_message_of_another_topic_is_refused(group: str, topic: str) -> None:
    """Group and topic are bound by the tag though they are not sent."""
    key = sender_key(traffic_key("fleet", NodeKey(*ROOT)), "x", SALT, Algorithm.AES_256_GCM)
    with refused(Reason.BAD_SEAL, "ciphertext"):
        Data.decode(data(ROOT, "plant/1", b"21.4")).open(key, data_context(group, topic))


def test_signed_message_is_decoded() -> None:
    """Certificate, signature and what is signed are found."""
    payload = data(ROOT, "plant/1", b"21.4", source=(list(CERTIFICATE.fields), DEVICE))
    decoded = Data.decode(payload)
    assert (CERTIFICATE, payload[-64:], payload[:-66]) == (decoded.certificate, decoded.signature, decoded.signed_part)
    DEVICE.public_key().verify(payload[-64:], bound("brokerkm v1 data", "fleet", "plant/1") + payload[:-66])


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ([], Reason.WRONG_VERSION, "version"),
        (replaced(FIELDS, 0, 2), Reason.WRONG_VERSION, "version"),
        ([True, *FIELDS[1:]], Reason.WRONG_VERSION, "version"),
        ([1], Reason.WRONG_MESSAGE, "type"),
        (replaced(FIELDS, 1, 7), Reason.WRONG_MESSAGE, "type"),
        (replaced(FIELDS, 1, None), Reason.WRONG_MESSAGE, "type"),
        (FIELDS[:-1], Reason.WRONG_LENGTH, "message"),
        ([*FIELDS, 0], Reason.WRONG_LENGTH, "message"),
        ([*SIGNED, 0], Reason.WRONG_LENGTH, "message"),
        (replaced(FIELDS, 2, 0), Reason.OUT_OF_RANGE, "birth"),
        (replaced(FIELDS, 3, 65536), Reason.OUT_OF_RANGE, "step"),
        (replaced(FIELDS, 4, "a/b"), Reason.OUT_OF_RANGE, "sender"),
        (replaced(FIELDS, 4, b"x"), Reason.WRONG_TYPE, "sender"),
        (replaced(FIELDS, 5, SALT[1:]), Reason.WRONG_LENGTH, "salt"),
        (replaced(FIELDS, 6, -1), Reason.OUT_OF_RANGE, "counter"),
        (replaced(FIELDS, 6, 2**63), Reason.OUT_OF_RANGE, "counter"),
        (replaced(FIELDS, 7, "text"), Reason.WRONG_TYPE, "ciphertext"),
        (replaced(FIELDS, 7, bytes(15)), Reason.WRONG_LENGTH, "ciphertext"),
        (replaced(SIGNED, 8, None), Reason.WRONG_TYPE, "certificate"),
        (replaced(SIGNED, 8, [DEVICE_PUBLIC, 5000]), Reason.WRONG_LENGTH, "certificate"),
        (replaced(SIGNED, 9, bytes(63)), Reason.WRONG_LENGTH, "signature"),
    ],
)
def test_malformed_message_is_refused(fields: list[object], reason: Reason, field: str) -> None:
    """Each field has its type, length and range."""
    with refused(reason, field):
        Data.decode(pack(fields))


@pytest.mark.parametrize(
    ("place", "longer"),
    [
        (0, "dc0008" + "01"),
        (1, "cc08"),
        (2, "cc09"),
        (3, "ce0000012c"),
        (3, "d1012c"),  # as long, but signed
        (4, "d90178"),
        (5, "c50008" + SALT.hex()),
        (6, "cc00"),
        (7, "c50010" + "00" * 16),
    ],
)
def test_other_encoding_of_a_plain_message_is_refused(place: int, longer: str) -> None:
    """There is one encoding of each message, the shortest."""
    parts = [pack(field) for field in FIELDS]
    parts[0] = b"\x98" + parts[0]
    parts[place] = bytes.fromhex(longer)
    with refused(Reason.NOT_CANONICAL, "message"):
        Data.decode(b"".join(parts))


def test_longer_encoding_of_a_signed_message_is_refused() -> None:
    """Header and tail of a signed message are in their shortest encoding too."""
    parts = [pack(field) for field in SIGNED]
    for tail in (b"\xc5\x00\x40" + bytes(64), parts[9] + b""):
        head = b"\x9a" if tail != parts[9] else b"\xdc\x00\x0a"
        with refused(Reason.NOT_CANONICAL, "message"):
            Data.decode(head + b"".join(parts[:9]) + tail)


def test_oversized_message_is_refused() -> None:
    """The caller's limit holds."""
    with refused(Reason.OVERSIZED, "message"):
        Data.decode(pack(FIELDS), limit=37)


HUGE = b"\xc6\x00\x01\x00\x00" + bytes(65536)


@pytest.mark.parametrize(
    "start",
    [
        b"\x98\x01\x08" + b"\x91" * 17 + b"\xc0" + bytes(4),  # arrays in arrays
        b"\x98\x01\x08\x9f" + b"\x90" * 15 + b"\x9f" + b"\x90" * 15 + bytes(3),  # many arrays
        b"\x98\x01\x08\xdc\x00\x11" + bytes(17) + bytes(4),  # an array of 17 elements
        b"\xdc\x00\x11" + bytes(16),  # the same at the top
        b"\x98\x01\x08\x81\xa1x\x00" + bytes(4),  # a map
        b"\x98\x01\x08\xd6\x01\x00\x00\x00\x00" + bytes(4),  # an extension
    ],
)
def test_long_message_that_would_fill_the_memory_is_refused(start: bytes) -> None:
    """Beyond 16 KiB, where each byte could become a hundred in memory, there are few arrays and nothing stranger."""
    with pytest.raises(RefusedError) as caught:
        Data.decode(start + HUGE)
    assert "message" == caught.value.field


@pytest.mark.parametrize("source", [None, (list[object](CERTIFICATE.fields), DEVICE)])
def test_long_message_is_decoded(source: tuple[list[object], Ed25519PrivateKey] | None) -> None:
    """Data may be as long as the broker lets it."""
    assert 100_016 == len(Data.decode(data(ROOT, "plant/1", bytes(100_000), source=source)).ciphertext)


@pytest.mark.parametrize("topic", ["a", "/", "plant/1", "bkm/10/x", "é" * 32767])
def test_topic_is_an_applications(topic: str) -> None:
    """Applications publish anywhere outside the protocol's prefix."""
    check_data_topic(topic, "bkm/1/")


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0", "é" * 32768, "bkm/1/fleet/b", "bkm/1/x"])
def test_topic_that_no_message_goes_to_is_refused(topic: str) -> None:
    """Neither wildcards nor the protocol's own topics carry Data; the error is short."""
    with pytest.raises(UsageError, match=r"topic|belongs to the key server") as caught:
        sealer().seal(topic, b"")
    assert len(str(caught.value)) < 400


def test_topics_kept_by_a_sender_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender to ever new topics forgets the old ones, and seals for them as before."""
    monkeypatch.setattr("brokerkm.core.data.MAX_TOPICS", 3)
    made = sealer()
    expected = [data(ROOT, f"t/{number % 5}", b"", counter=number) for number in range(20)]
    assert expected == [made.seal(f"t/{number % 5}", b"") for number in range(20)]
    assert len(made._contexts) <= 3

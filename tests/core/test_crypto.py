"""The primitives as the protocol uses them, against published vectors and plain `cryptography`."""

from __future__ import annotations

import hashlib
import hmac as python_hmac
from random import Random

import pytest
from core.refusal import refused
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from brokerkm.core import crypto
from brokerkm.core.crypto import Suite
from brokerkm.errors import Reason

KEK = bytes(range(32))
DATA = bytes.fromhex("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F")
WRAPPED = bytes.fromhex("28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21")
LOW_ORDER_POINTS = [  # of Curve25519, from RFC 7748's security considerations and its references
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def test_wrap_is_rfc_3394() -> None:
    """RFC 3394, section 4.6: 256 bits of key data with a 256-bit KEK."""
    assert WRAPPED == crypto.wrap_key(KEK, DATA)


def test_unwrap_is_rfc_3394() -> None:
    """The same vector the other way."""
    assert DATA == crypto.unwrap_key(KEK, WRAPPED, "chain")


@pytest.mark.parametrize("wrapped", [WRAPPED[:-1] + b"\x20", WRAPPED[:-8], WRAPPED[:-1], b"", bytes(40)])
def test_damaged_wrap_is_refused(wrapped: bytes) -> None:
    """Neither a changed bit nor a wrong length gives a key."""
    with refused(Reason.BAD_SEAL, "chain"):
        crypto.unwrap_key(KEK, wrapped, "chain")


def expand(key: bytes, info: bytes) -> bytes:
    """Return the first block of RFC 5869's HKDF-Expand with SHA-256, by its formula."""
    return python_hmac.new(key, info + b"\x01", hashlib.sha256).digest()


def test_derive_is_hkdf_expand() -> None:
    """A derived key is HKDF-Expand over label, zero byte and msgpack context."""
    assert expand(KEK, b"some label\x00\x93\xa1m\xc4\x01\xff\x05") == crypto.derive(KEK, "some label", "m", b"\xff", 5)


def test_derive_without_context_ends_in_an_empty_array() -> None:
    """No context is an empty array, not nothing."""
    assert expand(KEK, b"some label\x00\x90") == crypto.derive(KEK, "some label")


def test_hkdf_expand_is_rfc_5869() -> None:
    """RFC 5869, appendix A.3: its PRK expanded with no info, checks the formula that this file computes with."""
    prk = bytes.fromhex("19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04")
    assert bytes.fromhex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d") == expand(prk, b"")


def test_ratchet_is_hkdf_expand_with_its_label() -> None:
    """A step of the ratchet is the specification's."""
    assert expand(KEK, b"brokerkm v1 ratchet") == crypto.ratchet(KEK)


def test_ratchet_counts_its_steps() -> None:
    """Three steps are three times one; none changes nothing."""
    once = expand(KEK, b"brokerkm v1 ratchet")
    twice = expand(once, b"brokerkm v1 ratchet")
    assert [KEK, once, twice] == [crypto.ratchet(KEK, steps) for steps in range(3)]


def test_mac_is_hmac_sha256() -> None:
    """RFC 4231, test case 2."""
    expected = bytes.fromhex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
    assert expected == crypto.mac(b"Jefe", b"what do ya want for nothing?")


def test_mac_is_checked() -> None:
    """A tag passes for its key and data only."""
    tag = python_hmac.new(KEK, b"data", hashlib.sha256).digest()
    crypto.check_mac(KEK, b"data", tag, "mac")
    for key, data, wrong in ((DATA, b"data", tag), (KEK, b"Data", tag), (KEK, b"data", tag[:-1])):
        with refused(Reason.BAD_MAC, "mac"):
            crypto.check_mac(key, data, wrong, "mac")


def test_labelled_hash_is_cut_sha256() -> None:
    """A labelled hash is the first half of SHA-256 over label and data, each time anew."""
    digest = crypto.labelled_hash(b"\x07")
    assert [hashlib.sha256(b"\x07" + data).digest()[:16] for data in (b"a", b"b")] == [digest(b"a"), digest(b"b")]


def test_signature_is_ed25519() -> None:
    """RFC 8032, section 7.1, test 2: seed, public key and signature of one byte."""
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert signature == crypto.load_signing_key(seed).sign(b"\x72")
    key = crypto.load_verify_key(public, "identity")
    crypto.check_signature(key, signature, b"\x72")
    with refused(Reason.BAD_SIGNATURE, "certificate"):
        crypto.check_signature(key, signature, b"\x73", "certificate")


def test_verify_key_of_wrong_length_is_refused() -> None:
    """31 bytes are no Ed25519 key."""
    with refused(Reason.WRONG_LENGTH, "identity"):
        crypto.load_verify_key(bytes(31), "identity")


@pytest.mark.parametrize(
    ("suite", "seed_size", "public_size"), [(Suite.X25519, 32, 32), (Suite.MLKEM768_X25519, 96, 1216)]
)
def test_suite_has_its_sizes(suite: Suite, seed_size: int, public_size: int) -> None:
    """Seeds and public keys are as long as the specification says."""
    public = suite.public_key(Random(1).randbytes(seed_size))
    assert (seed_size, public_size, public_size) == (suite.seed_size, suite.public_size, len(public))


@pytest.mark.parametrize("suite", Suite)
def test_sealed_text_opens(suite: Suite) -> None:
    """What is sealed to a public key opens with its seed, and with the same info only."""
    seed = Random(1).randbytes(suite.seed_size)
    sealed = suite.seal(suite.public_key(seed), b"keys", b"info")
    assert b"keys" == suite.open(seed, sealed, b"info")
    with refused(Reason.BAD_SEAL, "sealed"):
        suite.open(seed, sealed, b"Info")
    with refused(Reason.BAD_SEAL, "sealed"):
        suite.open(Random(2).randbytes(suite.seed_size), sealed, b"info")


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("end", [0, 1, 31, 32, 47, -1])
def test_cut_seal_is_refused(suite: Suite, end: int) -> None:
    """A sealed text that is cut anywhere is refused."""
    seed = Random(1).randbytes(suite.seed_size)
    with refused(Reason.BAD_SEAL, "sealed"):
        suite.open(seed, suite.seal(suite.public_key(seed), b"", b"info")[:end], b"info")


def test_x25519_suite_is_hpke() -> None:
    """Suite 1 is RFC 9180 with DHKEM(X25519), HKDF-SHA256 and AES-256-GCM."""
    plain = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    private = X25519PrivateKey.from_private_bytes(KEK)
    public = private.public_key()
    assert public.public_bytes_raw() == Suite.X25519.public_key(KEK)
    assert b"keys" == Suite.X25519.open(KEK, plain.encrypt(b"keys", public, info=b"info"), b"info")
    sealed = Suite.X25519.seal(public.public_bytes_raw(), b"keys", b"info")
    assert b"keys" == plain.decrypt(sealed, private, info=b"info")


def test_hybrid_suite_is_hpke() -> None:
    """Suite 2 is RFC 9180 with MLKEM768-X25519; a seed is ML-KEM's first, then X25519's."""
    plain = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    seed = Random(3).randbytes(96)
    mlkem, x25519 = MLKEM768PrivateKey.from_seed_bytes(seed[:64]), X25519PrivateKey.from_private_bytes(seed[64:])
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    assert public == Suite.MLKEM768_X25519.public_key(seed)
    sealed = Suite.MLKEM768_X25519.seal(public, b"keys", b"info")
    assert b"keys" == plain.decrypt(sealed, hpke.MLKEM768X25519PrivateKey(mlkem, x25519), info=b"info")


@pytest.mark.parametrize("suite", Suite)
def test_good_public_key_is_accepted(suite: Suite) -> None:
    """A key of the suite passes the check."""
    suite.check_public(suite.public_key(Random(1).randbytes(suite.seed_size)))


@pytest.mark.parametrize("top", [0, 0x80])
@pytest.mark.parametrize("point", LOW_ORDER_POINTS)
def test_low_order_point_is_refused(point: bytes, top: int) -> None:
    """A point that would make the shared secret zero is no key, though it loads; its unused bit changes nothing."""
    point = point[:-1] + bytes((point[-1] | top,))
    for use in (Suite.X25519.check_public, lambda key: Suite.X25519.seal(key, b"", b"")):
        with refused(Reason.OUT_OF_RANGE, "kem_public"):
            use(point)


@pytest.mark.parametrize("number", [2, 9, 2**255 - 21, 2**255 - 17, 2**255 - 1])
def test_neighbours_of_low_order_points_can_be_sealed_to(number: int) -> None:
    """What the check lets pass can be used, however odd it is."""
    point = number.to_bytes(32, "little")
    Suite.X25519.check_public(point)
    assert Suite.X25519.seal(point, b"", b"")


def test_low_order_point_in_the_hybrid_is_refused() -> None:
    """The same half hidden behind a good ML-KEM key."""
    suite = Suite.MLKEM768_X25519
    with refused(Reason.OUT_OF_RANGE, "kem_public"):
        suite.check_public(suite.public_key(KEK * 3)[:1184] + bytes(32))


def test_mlkem_key_out_of_range_is_refused() -> None:
    """FIPS 203's modulus check: coefficients of 4095 are above q."""
    with refused(Reason.OUT_OF_RANGE, "kem_public"):
        Suite.MLKEM768_X25519.check_public(b"\xff" * 1184 + Suite.X25519.public_key(KEK))


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("change", [-1, 1])
def test_public_key_of_wrong_length_is_refused(suite: Suite, change: int) -> None:
    """One byte too few or too many is refused before it is looked at."""
    with refused(Reason.WRONG_LENGTH, "kem_public"):
        suite.check_public(bytes(suite.public_size + change))


def test_signing_key_is_made_from_its_seed() -> None:
    """The private key of a seed is RFC 8032's."""
    expected = Ed25519PrivateKey.from_private_bytes(KEK).public_key().public_bytes_raw()
    assert expected == crypto.load_signing_key(KEK).public_key().public_bytes_raw()

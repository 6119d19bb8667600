"""Device certificates from files: what a Join shows, and which files are not taken."""

from __future__ import annotations

import datetime as dt
import os
import time
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

import brokerkm
from brokerkm.admission.certificates import CertificateFiles, DeviceCertificates
from brokerkm.core.admission import check_join
from brokerkm.core.crypto import Suite
from brokerkm.core.member import Member
from brokerkm.core.memory import Profile
from brokerkm.core.request import Join
from brokerkm.descriptor import Descriptor
from brokerkm.errors import Reason, RefusedError, UsageError
from brokerkm.sdk.certificate import CertificateFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHORT = rsa.generate_private_key(65537, 1024)  # noqa: S505 - too short on purpose
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

KEYS: dict[str, Callable[[], Key]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


def certify(name: str, key: Key, issuer: str, by: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Return a certificate that is good for a day."""
    now = dt.datetime.now(dt.UTC)
    names = [x509.Name.from_rfc4514_string(f"CN={one}") for one in (name, issuer)]
    is_ca = name == issuer
    usage = x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )
    builder = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
    builder = builder.not_valid_after(now + dt.timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    return builder.add_extension(usage, critical=True).sign(by, hashes.SHA256())


class Workshop:
    """An authority, and the files of a device."""

    def __init__(self, path: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.authority = certify("Workshop", self.key, "Workshop", self.key)
        self.anchors, self.certificate, self.private = path / "ca.pem", path / "device.pem", path / "device.key"
        self.anchors.write_bytes(self.authority.public_bytes(Encoding.PEM))

    def make(self, key: Key, count: int = 1) -> None:
        """Write the files of a device with `key`."""
        chain = [certify("pump", key, "Workshop", self.key)] + [self.authority] * (count - 1)
        self.certificate.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
        self.private.touch(0o600)
        self.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def read(self) -> CertificateFile:
        """Return what the files hold."""
        return CertificateFile.read(self.certificate, self.private)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """Return an authority with room for a device's files."""
    return Workshop(tmp_path)


class Checker:
    """The admission of a server that trusts one authority."""

    def __init__(self, anchors: Path) -> None:
        self.certificates = DeviceCertificates(CertificateFiles(str(anchors)))

    def check(self, member: str, chain: tuple[bytes, ...], signed: bytes, signature: bytes, now: int) -> None:
        """Refuse who is not certified as `member`."""
        if member not in self.certificates.verify(chain, signed, signature, now / 1000).members:
            raise RefusedError(Reason.BAD_CERTIFICATE, "credential")


@pytest.mark.parametrize("make", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("count", [1, 2])
def test_a_join_with_a_certificate_is_admitted(workshop: Workshop, make: Callable[[], Key], count: int) -> None:
    """With each kind of key, what the device signs is what the server verifies, and only for this member."""
    workshop.make(make(), count)
    member = Member.create(Profile("plant", "pump", bytes(32)), os.urandom)
    join = Join.decode(member.join(time.time(), workshop.read()), Suite.X25519)
    now, checker = int(time.time() * 1000) + 1000, Checker(workshop.anchors)
    check_join(join, "plant", "pump", now=now, last_time=0, identity=None, token=None, certificates=checker)
    for group, name in (("plant", "valve"), ("other", "pump")):
        with pytest.raises(RefusedError):
            check_join(join, group, name, now=now, last_time=0, identity=None, token=None, certificates=checker)


def test_a_key_that_others_may_read_is_not_used(workshop: Workshop) -> None:
    """The message says what to do."""
    workshop.make(KEYS["p256"]())
    workshop.private.chmod(0o640)
    with pytest.raises(UsageError, match=r"others than its owner may use it: chmod 600"):
        workshop.read()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda it: it.certificate.unlink(), "No such file"),
        (lambda it: it.private.unlink(), "No such file"),
        (lambda it: it.certificate.write_bytes(b"nothing"), "not a list of X.509 certificates in PEM"),
        (lambda it: it.certificate.write_bytes(it.certificate.read_bytes() * 5), "5 certificates, at most 4"),
        (lambda it: it.certificate.write_bytes(b" " * 70_000), "longer than 65536 bytes"),
        (lambda it: it.private.write_bytes(b"nothing"), "not a private key in PEM"),
        (lambda it: it.private.write_bytes(pem(KEYS["p256"]())), "not that of the first certificate"),
        (lambda it: it.private.write_bytes(pem(ec.generate_private_key(ec.SECP384R1()))), "P-256, RSA of 2048 to"),
        (lambda it: it.private.write_bytes(pem(SHORT)), "P-256, RSA of 2048 to"),
        (lambda it: it.private.write_bytes(pem(KEYS["p256"](), b"secret")), "it is encrypted"),
    ],
)
def test_files_that_cannot_be_used_are_named(workshop: Workshop, spoil: Callable[[Workshop], None], words: str) -> None:
    """Each error says which file it is and what is wrong with it."""
    workshop.make(KEYS["p256"]())
    spoil(workshop)
    with pytest.raises(UsageError, match=f"(certificate|key) {workshop.certificate.parent}.*{words}"):
        workshop.read()


def pem(key: Key, password: bytes | None = None) -> bytes:
    """Return a private key as a file has it."""
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def test_a_certificate_without_its_key_is_half(tmp_path: Path) -> None:
    """Both or neither."""
    group = Descriptor(broker="memory://x", group="plant", suite=Suite.X25519, server_key=bytes(32))
    with pytest.raises(UsageError, match="both or neither"):
        brokerkm.connect(None, group, member="pump", state_dir=tmp_path, certificate="device.pem")

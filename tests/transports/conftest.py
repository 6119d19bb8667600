"""Fixtures for transports: a certificate authority and what it signed."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

_NOW = dt.datetime.now(tz=dt.UTC)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    common: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, *, authority: bool
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(common))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW - dt.timedelta(days=1))
        .not_valid_after(_NOW + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _pem(key: ec.EllipticCurvePrivateKey, protection: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make ca.crt, other.crt (of another authority), broker and alice (.crt and .key), protected.key (alice's)."""
    directory = tmp_path_factory.mktemp("certificates")
    authority, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    (directory / "ca.crt").write_bytes(_certificate("ca", authority, "ca", authority, authority=True))
    (directory / "other.crt").write_bytes(_certificate("other", other, "other", other, authority=True))
    for common in ("broker", "alice"):
        key = ec.generate_private_key(ec.SECP256R1())
        (directory / f"{common}.crt").write_bytes(_certificate(common, key, "ca", authority, authority=False))
        (directory / f"{common}.key").write_bytes(_pem(key, serialization.NoEncryption()))
    protection = serialization.BestAvailableEncryption(b"passphrase")
    (directory / "protected.key").write_bytes(_pem(key, protection))
    return directory

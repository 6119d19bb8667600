"""Certificate authorities for the tests, good ones and bad ones."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

NOW = 1_790_000_000  # seconds since 1970
DAY = dt.timedelta(days=1)
AT = dt.datetime.fromtimestamp(NOW, dt.UTC)

DER = serialization.Encoding.DER
PEM = serialization.Encoding.PEM


def ec_key() -> ec.EllipticCurvePrivateKey:
    """Return a key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def name(*common: str) -> x509.Name:
    """Return a name with these common names."""
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "plant")
    return x509.Name([organisation, *(x509.NameAttribute(NameOID.COMMON_NAME, one) for one in common)])


def usage(**chosen: bool) -> x509.KeyUsage:
    """Return a key usage with only what is chosen."""
    all_of_them = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign "
        "crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{one: chosen.get(one, False) for one in all_of_them.split()})


AUTHORITY = (
    (x509.BasicConstraints(ca=True, path_length=None), True),
    (usage(key_cert_sign=True, crl_sign=True), True),
)
CLIENT = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)


@dataclass
class Device:
    """A certificate, its key and those above it, the root left out."""

    key: Key
    certificate: x509.Certificate
    above: list[x509.Certificate] = field(default_factory=list[x509.Certificate])

    @property
    def chain(self) -> list[bytes]:
        """The chain as a Join shows it."""
        return [one.public_bytes(DER) for one in (self.certificate, *self.above)]

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data` as a Join has it."""
        match self.key:
            case ec.EllipticCurvePrivateKey():
                return self.key.sign(data, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPrivateKey():
                return self.key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
            case _:
                return self.key.sign(data)


class Authority:
    """Something that signs certificates and revocation lists; a root, unless `parent` signs it."""

    def __init__(
        self,
        common: str = "root",
        *,
        key: Key | None = None,
        parent: Authority | None = None,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = AUTHORITY,
        valid: tuple[dt.datetime, dt.datetime] = (AT - 100 * DAY, AT + 100 * DAY),
    ) -> None:
        self.key = key or ec_key()
        self.name = name(common)
        self.parent = parent
        signer = parent or self
        self.certificate = signer.certify(self.key, self.name, extensions=extensions, valid=valid)

    def certify(
        self,
        key: Key,
        subject: x509.Name,
        *,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
        valid: tuple[dt.datetime, dt.datetime] = (AT - 10 * DAY, AT + 10 * DAY),
        serial: int | None = None,
    ) -> x509.Certificate:
        """Return a certificate for `key`."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(valid[0])
            .not_valid_after(valid[1])
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, _digest(self.key))

    def device(
        self,
        *common: str,
        key: Key | None = None,
        names: Sequence[x509.GeneralName] = (),
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (CLIENT,),
        **options: object,
    ) -> Device:
        """Return a device with a certificate of this authority, its chain up to the root."""
        key = key or ec_key()
        more = [(x509.SubjectAlternativeName(names), False)] if names else []
        certificate = self.certify(key, name(*common), extensions=[*extensions, *more], **options)  # type: ignore[arg-type]
        above: list[x509.Certificate] = []
        authority = self
        while authority.parent is not None:
            above.append(authority.certificate)
            authority = authority.parent
        return Device(key, certificate, above)

    def revoke(
        self,
        *certificates: x509.Certificate,
        since: dt.datetime = AT - DAY,
        until: dt.datetime = AT + DAY,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> x509.CertificateRevocationList:
        """Return a list that revokes `certificates`."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(since).next_update(until)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        for certificate in certificates:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(AT - 2 * DAY)
                .build()
            )
        return builder.sign(self.key, _digest(self.key))

    @property
    def pem(self) -> bytes:
        """Its certificate, as a bundle has it."""
        return self.certificate.public_bytes(PEM)


def _digest(key: Key) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()

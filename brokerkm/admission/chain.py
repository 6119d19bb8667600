"""Whether a chain of X.509 certificates leads from a device to a trusted authority: what is needed of RFC 5280.

`cryptography.x509.verification` follows the web's rules, which know neither Ed25519 nor certificates without a name in
the web's sense; devices have both. So the path is walked here, with the library's parser and signatures only. What this
walk does not understand it refuses: critical extensions, name constraints, hashes and keys that are not on its lists.
It looks at neither member ids (`brokerkm.admission.subject`) nor revocation (`brokerkm.admission.revocation`).
"""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

from brokerkm.core.request import MAX_CHAIN
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_CERTIFICATE: Final = 8 * 1024  # bytes; an RSA-4096 device certificate with all its extensions takes 2 KB
BAD: Final = (Reason.BAD_CERTIFICATE, "credential")
SKEW: Final = dt.timedelta(minutes=5)  # by which the clocks of authority and server may differ
_RSA_BITS: Final = range(2048, 4096 + 1)  # below: NIST SP 800-131A; above: a proof may not be that long
_RSA_EXPONENTS: Final = range(65537, 1 << 33, 2)  # NIST FIPS 186-5; a huge one makes the server work

_SIGNATURES: Final = frozenset(
    {
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512,
        SignatureAlgorithmOID.RSA_WITH_SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA512,
        SignatureAlgorithmOID.ED25519,
    }
)
_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_CLIENT: Final = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})

DeviceKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def parse(der: bytes) -> x509.Certificate:
    """Return the certificate in `der`, whose form is right; raises `RefusedError`."""
    if len(der) > MAX_CERTIFICATE:
        message = f"a certificate of {len(der)} bytes, at most {MAX_CERTIFICATE}"
        raise RefusedError(*BAD, message)
    try:
        certificate = x509.load_der_x509_certificate(der)
        if certificate.serial_number <= 0:
            raise RefusedError(*BAD, "a serial number that is not positive")
        _ = certificate.issuer, certificate.subject, certificate.signature_hash_algorithm  # parsed only when asked for
        _check_extensions(certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, Warning) as error:  # -W error
        raise RefusedError(*BAD, "not a certificate") from error
    return certificate


def build_path(chain: Sequence[bytes], anchors: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    """Return the path from the device's certificate, which `chain` begins with, to an anchor, which ends it.

    The chain is in order, with or without the anchor. Signatures are not checked yet: whoever made it up costs
    the server no more than parsing it.

    Raises:
        RefusedError: a certificate is malformed, none of the anchors issued the last one, or one did not issue the
            one before it.
    """
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise RefusedError(*BAD, "too many certificates")
    path = [parse(der) for der in chain]
    for issued, issuer in itertools.pairwise(path):
        if issued.issuer != issuer.subject:
            raise RefusedError(*BAD, "not in order, each issued by the next")
    trusted = list(anchors)
    if path[-1] in trusted:
        if len(path) == 1:
            raise RefusedError(*BAD, "the certificate of an authority, not of a device")
        return path
    for anchor in trusted:
        if anchor.subject == path[-1].issuer and _same_key(path[-1], anchor):
            return [*path, anchor]
    raise RefusedError(*BAD, "its issuer is not trusted")


def check_path(path: Sequence[x509.Certificate], now: dt.datetime) -> DeviceKey:
    """Return the device's public key if all of `path` holds at `now`; raises `RefusedError`."""
    for certificate in path:
        if not certificate.not_valid_before_utc - SKEW <= now <= certificate.not_valid_after_utc + SKEW:
            raise RefusedError(*BAD, "not yet valid, or no longer")
    for below, authority in enumerate(path[1:]):  # `below`: how many authorities stand between it and the device
        check_authority(authority, below)
    _check_device(path[0])
    key = check_key(path[0], device=True)
    for issuer, issued in itertools.pairwise(reversed(path)):
        _check_signed(issued, issuer)  # from the top: a made-up chain costs one check
    return key


def check_authority(certificate: x509.Certificate, below: int = 0) -> None:
    """Refuse the certificate of an authority that may not certify, with `below` others between it and a device."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise RefusedError(*BAD, "an issuer that is no authority") from None
    if not constraints.ca:
        raise RefusedError(*BAD, "an issuer that is no authority")
    if constraints.path_length is not None and below > constraints.path_length:
        raise RefusedError(*BAD, "longer than an authority's path length allows")
    usage = _key_usage(certificate)
    if usage is not None and not usage.key_cert_sign:
        raise RefusedError(*BAD, "an authority whose key may not sign certificates")
    _check_purpose(certificate)
    check_key(certificate)


def check_key(certificate: x509.Certificate, *, device: bool = False) -> DeviceKey:
    """Return the public key in `certificate` if it is of a kind that is accepted; raises `RefusedError`."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RefusedError(*BAD, "a key of an unknown kind") from error
    match key:
        case ec.EllipticCurvePublicKey():
            curves = (ec.SECP256R1,) if device else (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
            if isinstance(key.curve, curves):
                return key
        case rsa.RSAPublicKey():
            if key.key_size in _RSA_BITS and key.public_numbers().e in _RSA_EXPONENTS:
                return key
        case ed25519.Ed25519PublicKey():
            return key
        case _:
            pass
    raise RefusedError(*BAD, "a key that is neither EC P-256, RSA with 2048 to 4096 bits, nor Ed25519")


def _check_extensions(certificate: x509.Certificate) -> None:
    for extension in certificate.extensions:
        if extension.oid == ExtensionOID.NAME_CONSTRAINTS or (extension.critical and extension.oid not in _UNDERSTOOD):
            message = f"extension {extension.oid.dotted_string} is not understood"
            raise RefusedError(*BAD, message)


def _check_device(certificate: x509.Certificate) -> None:
    try:
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise RefusedError(*BAD, "the certificate of an authority, not of a device")
    except x509.ExtensionNotFound:
        pass
    usage = _key_usage(certificate)
    if usage is not None and not usage.digital_signature:
        raise RefusedError(*BAD, "a key that is not for signatures")
    _check_purpose(certificate)


def _check_purpose(certificate: x509.Certificate) -> None:
    try:
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if _CLIENT.isdisjoint(purposes):
        raise RefusedError(*BAD, "not for the authentication of clients")


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _same_key(issued: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Return whether the key identifiers, as far as there are any, allow that `issuer` signed `issued`."""
    try:
        wanted = issued.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        found = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return True
    return wanted is None or wanted == found


def _check_signed(issued: x509.Certificate, issuer: x509.Certificate) -> None:
    if issued.signature_algorithm_oid not in _SIGNATURES:
        raise RefusedError(*BAD, "signed by an algorithm that is not accepted")
    try:
        issued.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise RefusedError(*BAD, "a signature in it does not hold") from error

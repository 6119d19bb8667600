"""A device's X.509 certificate and its private key, from PEM files: what lets an unlisted device in.

Which algorithms count is the specification's word, section "Requests and admission".
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from brokerkm.core.request import MAX_CHAIN
from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

MAX_FILE: Final = 64 * 1024  # bytes; four certificates and their texts are a tenth of it
_PSS: Final = padding.PSS(padding.MGF1(hashes.SHA256()), 32)  # as rsa_pss_rsae_sha256 in RFC 8446
_RSA_SIZES: Final = range(2048, 4096 + 1)

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class CertificateFile:
    """A certificate that was read; its key does not leave it."""

    def __init__(self, chain: tuple[bytes, ...], key: _Key) -> None:
        self.chain: Final = chain
        self._key: Final = key

    @classmethod
    def read(cls, certificate: str | os.PathLike[str], key: str | os.PathLike[str]) -> Self:
        """Return what two PEM files hold: the device's certificate with those that lead on, and its private key.

        Raises:
            UsageError: one cannot be read, others may read the key, or the two do not belong together.
        """
        try:
            certificates = x509.load_pem_x509_certificates(_content(certificate, "certificate"))
        except ValueError as error:
            message = f"certificate {certificate}: it is not a list of X.509 certificates in PEM: {error}"
            raise UsageError(message) from None
        if len(certificates) > MAX_CHAIN:
            message = f"certificate {certificate}: {len(certificates)} certificates, at most {MAX_CHAIN} may be shown"
            raise UsageError(message)
        private = _usable(_private(key), key)
        if _raw(private.public_key()) != _raw(certificates[0].public_key()):
            message = f"key {key}: it is not that of the first certificate in {certificate}"
            raise UsageError(message)
        return cls(tuple(one.public_bytes(Encoding.DER) for one in certificates), private)

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data` by the device's key."""
        match self._key:
            case ec.EllipticCurvePrivateKey():
                return self._key.sign(data, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPrivateKey():
                return self._key.sign(data, _PSS, hashes.SHA256())
            case _:
                return self._key.sign(data)


def _private(path: str | os.PathLike[str]) -> PrivateKeyTypes:
    content = _content(path, "key", secret=True)
    try:
        return load_pem_private_key(content, None)
    except TypeError:
        message = f"key {path}: it is encrypted, and nobody is there to ask for its password: store it in clear, 0600"
        raise UsageError(message) from None
    except (ValueError, UnsupportedAlgorithm):
        message = f"key {path}: it is not a private key in PEM"
        raise UsageError(message) from None


def _usable(key: PrivateKeyTypes, path: str | os.PathLike[str]) -> _Key:
    match key:
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()) | ed25519.Ed25519PrivateKey():
            return key
        case rsa.RSAPrivateKey() if key.key_size in _RSA_SIZES:
            return key
        case _:
            message = f"key {path}: a device certificate is of ECDSA P-256, RSA of 2048 to 4096 bits, or Ed25519"
            raise UsageError(message)


def _raw(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _content(path: str | os.PathLike[str], what: str, *, secret: bool = False) -> bytes:
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        message = f"{what} {path}: {error.strerror}"
        raise UsageError(message) from error
    if secret and os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        message = f"{what} {path}: others than its owner may use it: chmod 600 {path}"
        raise UsageError(message)
    if len(content) > MAX_FILE:
        message = f"{what} {path}: longer than {MAX_FILE} bytes"
        raise UsageError(message)
    return content

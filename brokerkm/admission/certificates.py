"""Admission by X.509 device certificate: whether a chain certifies a device, and its key has signed.

Trusted authorities and revocation lists are files, read again when they change. A file that has become unreadable
leaves what was read before in force, with a warning: a revocation list runs out by itself.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from brokerkm.admission.chain import DeviceKey, build_path, check_authority, check_path
from brokerkm.admission.revocation import Revocations, read_lists
from brokerkm.admission.subject import MemberName
from brokerkm.errors import Reason, RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger(__name__)

_PSS: Final = padding.PSS(padding.MGF1(hashes.SHA256()), 32)  # as rsa_pss_rsae_sha256 in RFC 8446
MAX_FILE: Final = 64 * 1024 * 1024  # bytes; a list of a million revoked certificates takes 40 MB


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where a group's authorities are.

    Args:
        authorities: file with the certificates, in PEM, of those who certify devices.
        lists: files with revocation lists, in PEM or DER; if there is one, every issuer needs one.
        member: where a certificate names its member.
    """

    authorities: str
    lists: tuple[str, ...] = ()
    member: MemberName = field(default_factory=MemberName)


class Verified(NamedTuple):
    """A device whose certificate holds.

    Args:
        members: the ids that it may join as.
        fingerprint: SHA-256 of its public key as X.509 encodes it (RFC 7469, section 2.4). Not of the certificate:
            anybody can encode the same one in several ways, an ECDSA signature for one, and escape a rule by that.
        expiry: of its certificate, ms since 1970.
        subject, issuer: their names, as RFC 4514 writes them.
    """

    members: frozenset[str]
    fingerprint: bytes
    expiry: int
    subject: str
    issuer: str


class _Trust(NamedTuple):
    anchors: tuple[x509.Certificate, ...]
    revocations: Revocations | None


_Stamp = tuple[tuple[int, int, int], ...]


class DeviceCertificates:
    """Verifies the devices of a group; raises `UsageError` if its files cannot be used.

    Files are looked at before each verification, which blocks: callers on an event loop use a thread.
    """

    def __init__(self, files: CertificateFiles) -> None:
        self._files: Final = files
        self._stamp: _Stamp = self._look()
        self._trust = self._read()

    def verify(self, chain: Sequence[bytes], signed: bytes, signature: bytes, now: float) -> Verified:
        """Return whom `chain`, in DER and the device's certificate first, certifies at `now`, seconds since 1970.

        Raises:
            RefusedError: bad-certificate, or bad-signature if the device's key has not signed.
        """
        self._refresh()
        trust, at = self._trust, dt.datetime.fromtimestamp(now, dt.UTC)
        path = build_path(chain, trust.anchors)
        members = self._files.member.members(path[0])
        key = check_path(path, at)
        if trust.revocations is not None:
            trust.revocations.check(path, at)
        _check_possession(key, signature, signed)
        device = path[0]
        return Verified(
            members,
            _fingerprint(key),
            int(device.not_valid_after_utc.timestamp() * 1000),
            device.subject.rfc4514_string(),
            device.issuer.rfc4514_string(),
        )

    def _refresh(self) -> None:
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._trust, self._stamp = self._read(), stamp
                _log.info("read again: %s", self._files.authorities)
        except UsageError as error:
            _log.warning("%s: what was read before stays in force", error)

    def _look(self) -> _Stamp:
        """Return what changes when a file does."""
        try:
            stats = [Path(path).stat() for path in (self._files.authorities, *self._files.lists)]
        except OSError as error:
            message = f"{error.filename}: {error.strerror}: without it no device certificate can be checked"
            raise UsageError(message) from error
        return tuple((found.st_mtime_ns, found.st_size, found.st_ino) for found in stats)

    def _read(self) -> _Trust:
        anchors = _read_authorities(self._files.authorities)
        lists = [one for path in self._files.lists for one in _read_lists(path)]
        return _Trust(anchors, Revocations(lists) if self._files.lists else None)


def _fingerprint(key: DeviceKey) -> bytes:
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()


def _contents(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        message = f"{path}: {error.strerror}"
        raise UsageError(message) from error
    if len(data) > MAX_FILE:
        message = f"{path}: more than {MAX_FILE} bytes"
        raise UsageError(message)
    return data


def _read_authorities(path: str) -> tuple[x509.Certificate, ...]:
    try:
        anchors = x509.load_pem_x509_certificates(_contents(path))
    except (ValueError, x509.InvalidVersion) as error:
        if isinstance(error, UsageError):
            raise
        message = f"{path}: it has to hold certificates in PEM"
        raise UsageError(message) from error
    for anchor in anchors:
        try:
            check_authority(anchor)
        except RefusedError as error:
            message = f"{path}: {anchor.subject.rfc4514_string()}: {error.detail}"
            raise UsageError(message) from error
    return tuple(anchors)


def _read_lists(path: str) -> list[x509.CertificateRevocationList]:
    try:
        return read_lists(_contents(path))
    except UsageError as error:
        message = f"{path}: {error}"
        raise UsageError(message) from error


def _check_possession(key: DeviceKey, signature: bytes, signed: bytes) -> None:
    try:
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPublicKey():
                key.verify(signature, signed, _PSS, hashes.SHA256())
            case _:
                key.verify(signature, signed)
    except InvalidSignature:
        raise RefusedError(Reason.BAD_SIGNATURE, "proof") from None

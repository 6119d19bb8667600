"""Which certificates have been revoked: certificate revocation lists (RFC 5280, section 5) from files.

Once a list is configured, every issuer in a path needs one: signed by it, of today. One that is missing, late or not
understood lets nobody in; that is what revocation is for.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from brokerkm.admission.chain import BAD, SKEW
from brokerkm.errors import RefusedError, UsageError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence

_PEM_END: Final = b"-----END X509 CRL-----"


class _List(NamedTuple):
    crl: x509.CertificateRevocationList
    serials: frozenset[int]
    since: dt.datetime
    until: dt.datetime | None


def read_lists(data: bytes) -> list[x509.CertificateRevocationList]:
    """Return the lists in `data`, one in DER or any number in PEM; raises `UsageError`."""
    try:
        if _PEM_END not in data:
            return [x509.load_der_x509_crl(data)]
        parts = data.split(_PEM_END)[:-1]
        return [x509.load_pem_x509_crl(part + _PEM_END + b"\n") for part in parts]
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        message = "this is no certificate revocation list in PEM or DER"
        raise UsageError(message) from error


class Revocations:
    """The certificates that some lists revoke."""

    def __init__(self, lists: Iterable[x509.CertificateRevocationList]) -> None:
        self._by_issuer: Final[dict[x509.Name, list[_List]]] = {}
        for crl in lists:
            found = _read(crl)
            self._by_issuer.setdefault(crl.issuer, []).append(found)

    def check(self, path: Sequence[x509.Certificate], now: dt.datetime) -> None:
        """Refuse a path, device first and anchor last, of which something is revoked or may be, for all we know."""
        for issued, issuer in itertools.pairwise(path):
            current = [
                found
                for found in self._by_issuer.get(issuer.subject, ())
                if found.since - SKEW <= now
                and (found.until is not None and now <= found.until)
                and _is_signed(found.crl, issuer)
            ]
            if not current:
                raise RefusedError(*BAD, "no valid revocation list of its issuer")
            if any(issued.serial_number in found.serials for found in current):
                raise RefusedError(*BAD, "revoked")


def _read(crl: x509.CertificateRevocationList) -> _List:
    """Return what is needed of `crl`; raises `UsageError` for one that says more than what to refuse."""
    try:
        critical = [one.oid.dotted_string for one in crl.extensions if one.critical]
        critical += [one.oid.dotted_string for entry in crl for one in entry.extensions if one.critical]
        serials = frozenset(entry.serial_number for entry in crl)
        _ = crl.issuer, crl.last_update_utc, crl.next_update_utc  # parsed only when asked for
    except (ValueError, TypeError) as error:
        message = "a certificate revocation list cannot be read"
        raise UsageError(message) from error
    if critical:
        message = f"a certificate revocation list has the extension {critical[0]}: partial lists are not supported"
        raise UsageError(message)
    return _List(crl, serials, crl.last_update_utc, crl.next_update_utc)


def _is_signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
        if not usage.crl_sign:
            return False
    except x509.ExtensionNotFound:
        pass
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type] # check_path has seen its kind
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False

"""How webhooks are signed, in both directions.

``Brokerkm-Timestamp`` holds the seconds since 1970, ``Brokerkm-Signature`` ``v1=`` and the hexadecimal HMAC-SHA256,
under the 32 bytes that both sides know, of ``v1:``, the timestamp, ``:`` and the body. In a shell:

    printf 'v1:%s:%s' "$time" "$body" | openssl dgst -sha256 -mac HMAC -macopt hexkey:"$key"
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final

from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMESTAMP: Final = "Brokerkm-Timestamp"
SIGNATURE: Final = "Brokerkm-Signature"
WINDOW: Final = 300  # s; how far the clocks may differ, and how long a request may be under way
_FORM: Final = re.compile(r"v1=([0-9a-f]{64})")
_TIME: Final = re.compile(r"[0-9]{1,12}")


def sign(secret: bytes, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a request."""
    return {TIMESTAMP: str(timestamp), SIGNATURE: f"v1={_mac(secret, str(timestamp), body).hex()}"}


def verify(secret: bytes, headers: Mapping[str, str], body: bytes, now: float) -> tuple[str, int]:
    """Return the mark by which a repetition of this request is known, and its timestamp in seconds.

    Raises:
        RefusedError: it is not signed, not with this secret, or not now.
    """
    timestamp, signature = headers.get(TIMESTAMP, ""), headers.get(SIGNATURE, "")
    found = _FORM.fullmatch(signature)
    if found is None or not _TIME.fullmatch(timestamp):
        raise RefusedError(Reason.NOT_SIGNED, "signature")
    mac = _mac(secret, timestamp, body)
    if not hmac.compare_digest(mac, bytes.fromhex(found[1])):
        raise RefusedError(Reason.BAD_MAC, "signature")
    if abs(int(timestamp) - now) > WINDOW:
        raise RefusedError(Reason.WRONG_TIME, "timestamp")
    return mac[:16].hex(), int(timestamp)


def _mac(secret: bytes, timestamp: str, body: bytes) -> bytes:
    return hmac.digest(secret, b"v1:" + timestamp.encode() + b":" + body, hashlib.sha256)

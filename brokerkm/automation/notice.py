"""Outgoing webhooks: one signed POST, with a bound on all that the other side can cost.

The body's ``id`` is the same when a notice is sent again, so that its receiver can tell. Redirects are not followed:
what was configured is what is told.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

from brokerkm.automation.signature import sign
from brokerkm.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENCE: Final = 10.0  # s for each step of the exchange
_ACCEPTED: Final = range(200, 300)


def send(url: str, secret: bytes, fields: Mapping[str, Any], now: float) -> None:
    """Tell `url`; returns when it has said that it took it.

    Raises:
        TransportError: it could not be reached, or did not say so.
    """
    body = json.dumps(fields, sort_keys=True).encode()
    parts = urllib.parse.urlsplit(url)
    place = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    headers = {"Content-Type": "application/json", "User-Agent": "brokerkm", **sign(secret, int(now), body)}
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=PATIENCE, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=PATIENCE)
    try:
        connection.request("POST", place, body, headers)
        status = connection.getresponse().status  # the body is not read: nothing in it is our business
    except (OSError, http.client.HTTPException) as error:
        message = f"{parts.scheme}://{parts.netloc}: {error or type(error).__name__}"
        raise TransportError(message) from error
    finally:
        connection.close()
    if status not in _ACCEPTED:
        message = f"{parts.scheme}://{parts.netloc} answered {status}"
        raise TransportError(message)

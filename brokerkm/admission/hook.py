"""An HTTP hook that is asked whether a device may join: somebody's inventory, in whatever language it is written.

    POST /admit HTTP/1.0
    Brokerkm-Time: 1790000000
    Brokerkm-Signature: sha256=HMAC-SHA256(secret, time + "." + body), in hex

    {"group": "plant", "member": "pump-7", "proof": "token", "identity": "64 hex digits", ...}

It answers 200 with `{"allow": true}` or `{"allow": false}`. All else, redirections and silence included, lets nobody
in: the device is told to try later. Answers are kept for a short time; no more than a few questions are open at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import ssl
import time
import urllib.parse
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from brokerkm.admission.lookup import LOOKUPS
from brokerkm.config.secret import parse
from brokerkm.errors import BrokerkmError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.admission.rules import Applicant

_log = logging.getLogger(__name__)

MAX_ANSWER: Final = 8192  # bytes, header and all
MAX_OPEN: Final = 32  # questions at once
_MAX_KEPT: Final = 10_000  # answers
_OK: Final = 200


class HookError(BrokerkmError):
    """The hook could not be asked, or did not answer yes or no."""


@dataclass(frozen=True, slots=True)
class HookSettings:
    """Where the hook is.

    Args:
        secret: a reference to the key of the signature, such as ``file:/etc/brokerkm/hook.key``; empty for none.
        timeout: seconds for the whole question.
        cache: seconds for which an answer holds.
        authorities: file with those who certify the hook, in PEM; the system's own if empty.
    """

    url: str
    secret: str = ""
    timeout: float = 2.0
    cache: float = 30.0
    authorities: str = ""


class Hook:
    """Asks one hook; raises `UsageError` if its secret or its file cannot be read.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, settings: HookSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings: Final = settings
        self._clock: Final = clock
        self._secret: Final = parse(settings.secret).read().encode() if settings.secret else b""
        self._parts: Final = urllib.parse.urlsplit(settings.url)
        self._tls: Final = _trust(settings.authorities) if self._parts.scheme == "https" else None
        self._kept: Final[OrderedDict[tuple[str, str, bytes, str], tuple[float, bool]]] = OrderedDict()
        self._open = 0

    async def allows(self, who: Applicant) -> bool:
        """Return whether the hook says yes; raises `HookError` if it says neither yes nor no."""
        key = (who.member, who.proof, who.identity, who.credential)
        now = asyncio.get_running_loop().time()
        kept = self._kept.get(key)
        if kept is not None and now - kept[0] < self._settings.cache:
            return kept[1]
        if self._open >= MAX_OPEN:
            message = f"{MAX_OPEN} questions are open already"
            raise HookError(message)
        self._open += 1
        try:
            async with asyncio.timeout(self._settings.timeout):
                answer = _verdict(await self._ask(_question(who)))
        except TimeoutError:
            message = f"no answer within {self._settings.timeout} s"
            raise HookError(message) from None
        except (OSError, EOFError, ValueError) as error:  # an ssl.SSLError is an OSError
            message = f"{type(error).__name__}: {error}"
            raise HookError(message) from error
        finally:
            self._open -= 1
        self._kept[key] = (now, answer)
        self._kept.move_to_end(key)
        if len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
        return answer

    async def _ask(self, body: bytes) -> bytes:
        host, port = self._parts.hostname, self._parts.port or (443 if self._tls else 80)
        reader, writer = await self._connect(str(host), port)
        try:
            writer.write(self._head(body) + body)
            await writer.drain()
            answer = bytearray()
            while chunk := await reader.read(MAX_ANSWER):
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    message = f"an answer of more than {MAX_ANSWER} bytes"
                    raise ValueError(message)
            return bytes(answer)
        finally:
            writer.transport.abort()  # nothing is left to be said, and a slow peer is not waited for

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first address that answers; raises `OSError`."""
        name = host if self._tls else None
        failure: OSError = OSError(f"{host} has no address")
        for address in await LOOKUPS.addresses(host, port):
            try:
                return await asyncio.open_connection(
                    address, port, ssl=self._tls, server_hostname=name, limit=MAX_ANSWER
                )
            except OSError as error:
                failure = error
        raise failure

    def _head(self, body: bytes) -> bytes:
        moment = str(int(self._clock()))
        path = urllib.parse.urlunsplit(("", "", self._parts.path or "/", self._parts.query, ""))
        lines = [
            f"POST {path} HTTP/1.0",  # 1.0: no chunks, and the connection ends with the answer
            f"Host: {self._parts.netloc}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"Brokerkm-Time: {moment}",
        ]
        if self._secret:
            signature = hmac.new(self._secret, moment.encode() + b"." + body, hashlib.sha256).hexdigest()
            lines.append(f"Brokerkm-Signature: sha256={signature}")
        return "\r\n".join([*lines, "", ""]).encode()


def _trust(authorities: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authorities or None)
    except OSError as error:  # an ssl.SSLError is one
        message = f"{authorities}: {error.strerror or 'it has to hold certificates in PEM'}"
        raise UsageError(message) from error


def _question(who: Applicant) -> bytes:
    values: dict[str, object] = {
        "group": who.group,
        "member": who.member,
        "proof": who.proof.value,
        "identity": who.identity.hex(),
        "returning": who.returning.name.lower(),
    }
    if who.token:
        values["token"] = who.token.hex()
    if who.certificate is not None:
        shown = who.certificate
        values["certificate"] = {
            "subject": shown.subject,
            "issuer": shown.issuer,
            "sha256": shown.fingerprint.hex(),
            "expires": shown.expiry // 1000,
        }
    return json.dumps(values).encode()


def _verdict(answer: bytes) -> bool:
    """Return the yes or no in an HTTP answer; raises `ValueError`."""
    head, end, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    status = first.split(b" ", 2)
    if not end or not first.startswith(b"HTTP/1.") or len(status) < 2 or status[1] != str(_OK).encode():  # noqa: PLR2004 - version and status
        message = f"it answered {first[:60]!r}, not {_OK}"
        raise ValueError(message)
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip() != str(len(body)).encode():
            message = "its answer was cut off"
            raise ValueError(message)
    found: object = json.loads(body)
    allow = cast("dict[str, object]", found).get("allow") if isinstance(found, dict) else None
    if not isinstance(allow, bool):
        message = 'its answer is not {"allow": true} or {"allow": false}'
        raise ValueError(message)  # noqa: TRY004 - all that is wrong with an answer is one class
    return allow

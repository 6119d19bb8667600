"""RabbitMQ's management API (https://www.rabbitmq.com/docs/management#http-api), as far as a guard needs it."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import ssl
import urllib.parse
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from brokerkm.errors import TransportError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ANSWER: Final = 256 << 20  # bytes; each connection takes some hundreds
REASON: Final = "the key server has cut this client off"
_PORTS: Final = {"http": 15672, "https": 15671}


class Management:
    """The API of one broker, over one connection; for one caller at a time.

    Args:
        url: ``http://HOST:15672`` or ``https://HOST:15671``.
        options: of a guard; see `brokerkm.guard.seam.BrokerGuard`.
    """

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        parts = urllib.parse.urlsplit(url)
        try:
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            port = 0
        if not (port and parts.hostname) or parts.path.strip("/") or parts.query:
            message = f"[guard] url: RabbitMQ's management is at http://HOST:15672 or https://, not {url[:200]!r}"
            raise UsageError(message)
        if not {"username", "password"} <= options.keys():
            message = "RabbitMQ's management needs a user with the tag administrator: [guard] username and password"
            raise UsageError(message)
        self._host: Final = parts.hostname
        self._port: Final = port
        self._context: Final = _context(options) if parts.scheme == "https" else None
        self._timeout: Final = float(options.get("timeout", "10"))
        login = f"{options['username']}:{options['password']}".encode()
        self._headers: Final = {"authorization": f"Basic {base64.b64encode(login).decode()}"}
        self._connection: http.client.HTTPConnection | None = None
        self._lock: Final = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Management({self._host!r}, {self._port})"

    async def check(self) -> None:
        """Raise `TransportError` if it does not answer, or not to this user."""
        found = await self._ask("GET", "/api/whoami")
        (who, *_) = [*_objects([found]), {}]
        tags = who.get("tags", ())  # a list, before 3.9 a text
        if "administrator" not in (tags.split(",") if isinstance(tags, str) else tags):
            message = (
                "RabbitMQ's management lets only users with the tag administrator disconnect others: set_user_tags"
            )
            raise TransportError(message)

    async def users(self) -> set[str]:
        """Return the names under which clients are connected."""
        found = await self._ask("GET", "/api/connections?columns=user")
        return {str(one["user"]) for one in _objects(found) if "user" in one}

    async def disconnect(self, username: str) -> None:
        """End all connections of a user."""
        await self._ask("DELETE", f"/api/connections/username/{urllib.parse.quote(username, safe='')}")

    async def close(self) -> None:
        """Hang up."""
        async with self._lock:
            self._drop()

    async def _ask(self, method: str, path: str) -> Any:  # noqa: ANN401 - JSON
        async with self._lock:
            try:
                status, answer = await asyncio.to_thread(self._twice, method, path)
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                message = f"RabbitMQ's management at {self._host}:{self._port} does not answer: {error}"
                raise TransportError(message) from error
        if status == HTTPStatus.NOT_FOUND and method == "DELETE":
            return None
        if status >= HTTPStatus.BAD_REQUEST:
            hint = ": check [guard] username and password" if status == HTTPStatus.UNAUTHORIZED else ""
            message = f"RabbitMQ's management at {self._host}:{self._port} refuses {method} {path}: {status}{hint}"
            raise TransportError(message)
        try:
            return json.loads(answer) if answer else None
        except (ValueError, RecursionError) as error:
            message = f"what answers at {self._host}:{self._port} is not RabbitMQ's management"
            raise TransportError(message) from error

    def _twice(self, method: str, path: str) -> tuple[int, bytes]:
        """Ask; once more if the connection, which may have been idle for long, breaks."""
        if self._connection is not None:
            try:
                return self._once(self._connection, method, path)
            except (OSError, http.client.HTTPException):
                self._drop()
        if self._context is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        else:
            self._connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout, context=self._context
            )
        return self._once(self._connection, method, path)

    def _once(self, connection: http.client.HTTPConnection, method: str, path: str) -> tuple[int, bytes]:
        headers = self._headers | ({"x-reason": REASON} if method == "DELETE" else {})
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        answer = response.read(MAX_ANSWER + 1)
        if len(answer) > MAX_ANSWER:
            message = f"more than {MAX_ANSWER} bytes"
            raise http.client.HTTPException(message)
        return response.status, answer

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _context(options: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ca_file"))
        if "cert_file" in options:
            context.load_cert_chain(options["cert_file"], options.get("key_file"))
    except OSError as error:
        message = f"TLS files of RabbitMQ's management: {error}"
        raise UsageError(message) from error
    return context


def _objects(found: object) -> list[dict[str, Any]]:
    """Return the objects in a list."""
    items = cast("list[object]", found) if isinstance(found, list) else []
    return [cast("dict[str, Any]", one) for one in items if isinstance(one, dict)]

"""HTTP connections of the client: over a Unix socket, or TLS with a token or a client certificate."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from brokerkm.errors import TransportError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

MAX_PATH: Final = 107  # bytes; sockaddr_un
MAX_TOKEN_FILE: Final = 4096  # bytes


def check_path(path: Path) -> None:
    """Raise `UsageError` if the path is too long for a Unix socket."""
    if len(os.fsencode(path)) > MAX_PATH:
        message = f"control socket {path}: the path is longer than {MAX_PATH} bytes; use a shorter state directory"
        raise UsageError(message)


class Target(Protocol):
    """Where a server is, and how to show who asks."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        ...

    def open(self, timeout: float) -> http.client.HTTPConnection:
        """Return a connection that has been made; raises `OSError`."""
        ...

    def headers(self) -> dict[str, str]:
        """Return what each request carries."""
        ...


@dataclass(frozen=True, slots=True)
class Local:
    """The server's Unix socket."""

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def open(self, timeout: float) -> http.client.HTTPConnection:
        """Connect."""
        check_path(self.path)
        connection = http.client.HTTPConnection("localhost", timeout=timeout)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(timeout)
            connection.sock.connect(os.fspath(self.path))
        except OSError:
            connection.close()
            raise
        return connection

    def headers(self) -> dict[str, str]:
        """Return nothing: the kernel says who asks."""
        return {}


@dataclass(frozen=True, slots=True)
class Remote:
    """A server's TLS listener.

    Args:
        url: ``https://HOST:PORT``.
        token: bearer token, if there is one.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context, repr=False)

    @classmethod
    def from_files(
        cls,
        url: str,
        token_file: Path | None = None,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
    ) -> Remote:
        """Return the target that URL and files describe; raises `UsageError`."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/") or parts.query:
            message = f"the server's URL is https://HOST:PORT, not {url[:200]!r}"
            raise UsageError(message)
        try:
            context = ssl.create_default_context(cafile=ca_file)
            if cert_file is not None:
                context.load_cert_chain(cert_file, key_file)
        except (OSError, ssl.SSLError) as error:
            message = f"TLS files of the client: {error}"
            raise UsageError(message) from error
        return cls(url, None if token_file is None else _read_token(token_file), context)

    @property
    def name(self) -> str:
        """The URL."""
        return self.url

    def open(self, timeout: float) -> http.client.HTTPConnection:
        """Connect."""
        parts = urllib.parse.urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            message = f"the server's URL is https://HOST:PORT, not {self.url[:200]!r}"
            raise UsageError(message) from None
        connection = http.client.HTTPSConnection(
            parts.hostname or "", port or 443, timeout=timeout, context=self.context
        )
        connection.connect()
        return connection

    def headers(self) -> dict[str, str]:
        """Return the token's header."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}


def connect(target: Target, timeout: float) -> http.client.HTTPConnection:
    """Return an open connection; raises `TransportError` that says what to do."""
    try:
        connection = target.open(timeout)
    except ssl.SSLError as error:
        message = (
            f"TLS with the key server at {target.name} failed: {error.reason or error}: check --ca-file and the URL"
        )
        raise TransportError(message) from error
    except OSError as error:
        message = f"no key server answers at {target.name}: {error.strerror or error}"
        raise TransportError(message) from error
    connection.auto_open = 0  # a lost connection is noticed, not replaced behind our back
    return connection


def _read_token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            token = file.read(MAX_TOKEN_FILE).decode("ascii").strip()
    except OSError as error:
        message = f"token file {path}: {error.strerror}"
        raise UsageError(message) from error
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        message = f"token file {path}: it has to hold one token, bka1_..., and nothing else"
        raise UsageError(message)
    return token

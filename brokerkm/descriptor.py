"""The group descriptor, `fleet.join`: all that a device needs to ask for a place in a group.

A JSON object of at most 16 KiB with exactly these members, the last two optional:

    {"brokerkm": 1, "broker": "mqtt://broker.example", "group": "plant", "prefix": "bkm/1", "suite": "x25519",
     "server_key": "64 hex digits", "token": "bkt1_...", "token_expires": 1790000000}

Where a line is easier to pass on than a file, `to_line` gives the same as ``bkd1_`` and base64url.

`server_key` is the group's Ed25519 public key, which the device trusts from then on. `token` lets whoever holds it
join, so the file is written for its owner alone; it is never sent, it keys a MAC.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import os
import re
import tempfile
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar, cast

from brokerkm.core.crypto import PUBLIC_KEY_SIZE, Suite
from brokerkm.core.names import DEFAULT_PREFIX, Topics
from brokerkm.core.request import TOKEN_ID_SIZE, TokenKey
from brokerkm.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION: Final = 1
MAX_SIZE: Final = 16 * 1024  # bytes of a descriptor
TOKEN_SECRET_SIZE: Final = 32  # bytes
_MAX_URL: Final = 2048  # characters
_MAX_TIME: Final = 1 << 40  # seconds since 1970
_LINE_PREFIX: Final = "bkd1_"
_TOKEN_PREFIX: Final = "bkt1_"  # noqa: S105 - what every token begins with
_SUITES: Final = {suite.name.lower().replace("_", "-"): suite for suite in Suite}
_NAMES: Final = ("brokerkm", "broker", "group", "prefix", "suite", "server_key", "token", "token_expires")
_OPTIONAL: Final = frozenset({"token", "token_expires"})
_HEX_KEY: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)

Raw = TypeVar("Raw")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class EnrollmentToken:
    """An enrollment token as a person passes it on: `str` gives ``bkt1_`` and 54 characters of base64url."""

    id: bytes
    secret: bytes = field(repr=False)

    def __str__(self) -> str:
        return _TOKEN_PREFIX + base64.urlsafe_b64encode(self.id + self.secret).rstrip(b"=").decode()

    @property
    def key(self) -> TokenKey:
        """What the server keeps and what keys the MAC of a Join."""
        return TokenKey.from_secret(self.id, self.secret)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the token in `text`; raises `UsageError`, which does not repeat it."""
        size = TOKEN_ID_SIZE + TOKEN_SECRET_SIZE
        encoded = text.removeprefix(_TOKEN_PREFIX)
        try:
            if encoded == text or not re.fullmatch(r"[A-Za-z0-9_-]{54}", encoded, re.ASCII):
                raise binascii.Error  # noqa: TRY301 - one message for all that can be wrong
            data = base64.urlsafe_b64decode(encoded + "==")
        except binascii.Error:
            message = f"a token is {_TOKEN_PREFIX} and 54 letters, digits, - or _: was it cut off?"
            raise UsageError(message) from None
        return cls(data[:TOKEN_ID_SIZE], data[TOKEN_ID_SIZE:size])


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What `fleet.join` says; `token_expires` in seconds since 1970. The URL may hold a password: not in the repr."""

    broker: str = field(repr=False)
    group: str
    prefix: str = DEFAULT_PREFIX
    suite: Suite
    server_key: bytes
    token: EnrollmentToken | None = None
    token_expires: int | None = None

    def __post_init__(self) -> None:
        _check_url(self.broker)
        Topics(self.group, self.prefix)
        if len(self.server_key) != PUBLIC_KEY_SIZE:
            message = f"server_key: {PUBLIC_KEY_SIZE} bytes, not {len(self.server_key)}"
            raise UsageError(message)

    def to_json(self) -> str:
        """Return the text of the file."""
        values: dict[str, object] = {
            "brokerkm": VERSION,
            "broker": self.broker,
            "group": self.group,
            "prefix": self.prefix,
            "suite": self.suite.name.lower().replace("_", "-"),
            "server_key": self.server_key.hex(),
        }
        if self.token is not None:
            values["token"] = str(self.token)
        if self.token_expires is not None:
            values["token_expires"] = self.token_expires
        return json.dumps(values, indent=2) + "\n"

    def to_line(self) -> str:
        """Return the same as one line without blanks, to be pasted or scanned; as secret as the file."""
        text = json.dumps(json.loads(self.to_json()), separators=(",", ":"))
        return _LINE_PREFIX + base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Return what `text` describes, be it the file's or a line's; raises `UsageError`, which does not repeat it."""
        line = text.strip()
        prefix = _LINE_PREFIX if isinstance(line, str) else _LINE_PREFIX.encode()
        if len(text) > 2 * MAX_SIZE or not line.startswith(prefix):  # type: ignore[arg-type] # of the same type
            return cls.from_json(text)
        encoded = line[len(prefix) :]
        data = encoded.encode() if isinstance(encoded, str) else encoded
        try:
            if not re.fullmatch(rb"[A-Za-z0-9_-]+", data):
                raise binascii.Error  # noqa: TRY301 - one message for all that can be wrong
            decoded = base64.urlsafe_b64decode(data + b"=" * (-len(data) % 4))
        except binascii.Error:
            message = f"an invitation is {_LINE_PREFIX} and letters, digits, - or _ without blanks: was it cut off?"
            raise UsageError(message) from None
        return cls.from_json(decoded)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return what `text` describes; raises `UsageError` that names the member which is wrong."""
        if len(text) > MAX_SIZE:
            message = f"a descriptor has at most {MAX_SIZE} bytes, this one {len(text)}"
            raise UsageError(message)
        values = _object(text)
        _check_names(values)
        if type(values["brokerkm"]) is not int or values["brokerkm"] != VERSION:
            message = f"brokerkm: this program reads descriptors of version {VERSION}, not {values['brokerkm']!r:.20}"
            raise UsageError(message)
        token = values.get("token")
        return cls(
            broker=_take(values, "broker", str, lambda text: text),
            group=_take(values, "group", str, lambda text: text),
            prefix=_take(values, "prefix", str, lambda text: text),
            suite=_take(values, "suite", str, _suite),
            server_key=_take(values, "server_key", str, _key),
            token=None if token is None else _take(values, "token", str, EnrollmentToken.parse),
            token_expires=None if "token_expires" not in values else _take(values, "token_expires", int, _time),
        )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Return what the file describes; raises `UsageError` that names file and member."""
        try:
            with Path(path).open("rb") as file:
                text = file.read(2 * MAX_SIZE + 1)
            return cls.parse(text)
        except OSError as error:
            message = f"group descriptor {os.fspath(path)}: {error.strerror}"
            raise UsageError(message) from error
        except UsageError as error:
            message = f"group descriptor {os.fspath(path)}: {error}"
            raise UsageError(message) from error

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file, mode 0600, in place of an older one; raises `StoreError`."""
        target = Path(path)
        try:
            descriptor, name = tempfile.mkstemp(prefix=".join-", dir=target.parent)  # mode 0600
            try:
                with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - it is open already
                    file.write(self.to_json())
                    file.flush()
                    os.fsync(descriptor)
                Path(name).replace(target)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            message = f"group descriptor {target}: {error.strerror}: nothing was written"
            raise StoreError(message) from error


def _object(text: str | bytes) -> dict[str, object]:
    try:
        values = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        message = f"it is not JSON: {error}"
        raise UsageError(message) from None
    if not isinstance(values, dict):
        message = "it is not a JSON object"
        raise UsageError(message)
    return cast("dict[str, object]", values)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        message = "a member is there twice"
        raise ValueError(message)
    return values


def _check_names(values: dict[str, object]) -> None:
    for name in values:
        if name not in _NAMES:
            near = difflib.get_close_matches(name, _NAMES, 1)
            message = f"{name[:40]!r} is unknown" + (f": did you mean {near[0]!r}?" if near else "")
            raise UsageError(message)
    for name in _NAMES:
        if name not in values and name not in _OPTIONAL:
            message = f"{name!r} is missing"
            raise UsageError(message)


def _take(values: dict[str, object], name: str, kind: type[Raw], convert: Callable[[Raw], Value]) -> Value:
    value = values[name]
    if type(value) is not kind:
        message = f"{name}: it has to be {'text' if kind is str else 'a whole number'}"
        raise UsageError(message)
    try:
        return convert(value)
    except UsageError as error:
        message = f"{name}: {error}"
        raise UsageError(message) from None


def _suite(name: str) -> Suite:
    if name not in _SUITES:
        message = f"{name[:40]!r} is not one of {', '.join(_SUITES)}"
        raise UsageError(message)
    return _SUITES[name]


def _key(text: str) -> bytes:
    if not _HEX_KEY.fullmatch(text):
        message = "it has to be 64 hex digits"
        raise UsageError(message)
    return bytes.fromhex(text)


def _time(seconds: int) -> int:
    if not 0 < seconds < _MAX_TIME:
        message = "it has to be seconds since 1970"
        raise UsageError(message)
    return seconds


def _check_url(url: str) -> None:
    parts = urllib.parse.urlsplit(url) if len(url) <= _MAX_URL and url.isprintable() else None
    if parts is None or not (parts.scheme and (parts.netloc or parts.path)):
        message = "broker: it has to be a URL such as mqtts://broker.example:8883"
        raise UsageError(message)

"""Enrollment of a device that has never been online (RFC 2627, section 5.1): two files, carried there and back.

The device writes a *request*: its Join, which proves nothing but that it has the keys it names; whoever carries the
file vouches for the device. The server's answer is a *bundle*: the group's descriptor, and the Welcome sealed to the
device. A bundle is of use to that device only; a request is no secret.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final, Self, cast

from brokerkm.core.names import is_identifier
from brokerkm.core.wire import MAX_MESSAGE
from brokerkm.descriptor import Descriptor
from brokerkm.errors import UsageError

VERSION: Final = 1
MAX_SIZE: Final = 128 * 1024  # bytes; two messages in hex and a descriptor take less


@dataclass(frozen=True, slots=True)
class OfflineRequest:
    """A device's wish to be a member: the bytes of its Join."""

    group: str
    member: str
    join: bytes = field(repr=False)

    def to_json(self) -> str:
        """Return the text of the file."""
        values = {"brokerkm_request": VERSION, "group": self.group, "member": self.member, "join": self.join.hex()}
        return json.dumps(values, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return what `text` says; raises `UsageError`."""
        values = _object(text, "brokerkm_request", {"group", "member", "join"})
        return cls(_name(values, "group"), _name(values, "member"), _message(values, "join"))


@dataclass(frozen=True, slots=True)
class OfflineBundle:
    """What makes the device a member: the group's descriptor and its Welcome."""

    descriptor: Descriptor
    member: str
    welcome: bytes = field(repr=False)

    def to_json(self) -> str:
        """Return the text of the file."""
        descriptor = json.loads(self.descriptor.to_json())
        values = {"brokerkm_bundle": VERSION, "member": self.member, "welcome": self.welcome.hex()}
        return json.dumps({**values, "descriptor": descriptor}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return what `text` says; raises `UsageError`."""
        values = _object(text, "brokerkm_bundle", {"member", "welcome", "descriptor"})
        descriptor = Descriptor.from_json(json.dumps(values["descriptor"]))
        return cls(descriptor, _name(values, "member"), _message(values, "welcome"))


def _object(text: str | bytes, kind: str, names: set[str]) -> dict[str, object]:
    if len(text) > MAX_SIZE:
        message = f"the file has more than {MAX_SIZE} bytes: it is not one of ours"
        raise UsageError(message)
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        message = "the file is not JSON: it was damaged on the way"
        raise UsageError(message) from None
    if not isinstance(found, dict) or set(cast("dict[str, object]", found)) != {kind, *names}:
        message = f"the file does not have exactly the members {', '.join(sorted({kind, *names}))}"
        raise UsageError(message)
    values = cast("dict[str, object]", found)
    if type(values[kind]) is not int or values[kind] != VERSION:
        message = f"{kind}: this program reads version {VERSION}"
        raise UsageError(message)
    return values


def _name(values: dict[str, object], name: str) -> str:
    value = values[name]
    if not isinstance(value, str) or not is_identifier(value):
        message = f"{name}: it is not 1 to 64 characters of A-Z a-z 0-9 . _ -"
        raise UsageError(message)
    return value


def _message(values: dict[str, object], name: str) -> bytes:
    value = values[name]
    try:
        payload = bytes.fromhex(cast("str", value))
    except (TypeError, ValueError):
        message = f"{name}: it is not hexadecimal"
        raise UsageError(message) from None
    if not 0 < len(payload) <= MAX_MESSAGE:
        message = f"{name}: a message has 1 to {MAX_MESSAGE} bytes"
        raise UsageError(message)
    return payload

"""What a broker asks and what it is answered, whatever its dialect."""

from __future__ import annotations

import json
import urllib.parse
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from brokerkm.guard.authorizer.judge import Judge

MAX_BODY: Final = 64 * 1024  # bytes of a question; whole messages are no part of one
MAX_TEXT: Final = 65_535  # characters; no string of MQTT is longer
_MAX_FIELDS: Final = 32
PLAIN: Final = "text/plain"
JSON: Final = "application/json"
KEPT: Final = 30  # seconds for which a broker may remember that a topic was allowed


class MalformedError(Exception):
    """A question is none; the text names the field."""


class Reply(NamedTuple):
    """What the broker reads.

    Args:
        max_age: seconds for which it may be remembered; 0: not at all.
    """

    body: bytes
    media_type: str
    max_age: int = 0


Answerer: TypeAlias = "Callable[[Judge, Mapping[str, str], bytes], Awaitable[Reply]]"
"""Answers a question with these headers (their names in small letters) and this body; raises `MalformedError`."""


class Dialect(NamedTuple):
    """How one kind of broker asks.

    Args:
        answers: what answers, by path.
        denial: the reply to a question that cannot be understood.
    """

    answers: Mapping[str, Answerer]
    denial: Reply


def form(body: bytes) -> dict[str, str]:
    """Return the fields of a form; raises `MalformedError`."""
    try:
        text = body.decode("ascii")
        pairs = urllib.parse.parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError as error:
        message = f"form: {error}"
        raise MalformedError(message) from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        message = "form: a field is there twice"
        raise MalformedError(message)
    return fields


def document(body: bytes) -> dict[str, Any]:
    """Return the fields of a JSON object; raises `MalformedError`."""
    try:
        found = json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        message = f"body: {error}"
        raise MalformedError(message) from None
    if not isinstance(found, dict):
        message = "body: no JSON object"
        raise MalformedError(message)
    return cast("dict[str, Any]", found)


def text(fields: Mapping[str, object], name: str) -> str:
    """Return a field that has to be a string; raises `MalformedError`."""
    value = fields.get(name)
    if not isinstance(value, str) or len(value) > MAX_TEXT or "\0" in value:
        message = f"{name}: no text of at most {MAX_TEXT} characters"
        raise MalformedError(message)
    return value


def truth(fields: Mapping[str, object], name: str) -> bool:
    """Return a field that has to be true or false, also in words, as templates of some brokers have it."""
    match fields.get(name):
        case bool(value):
            return value
        case "true":
            return True
        case "false":
            return False
        case _:
            message = f"{name}: neither true nor false"
            raise MalformedError(message)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        message = "a name is there twice"
        raise ValueError(message)
    return found

"""Topic names and topic filters: MQTT's rules (version 5, section 4.7), for every transport.

A topic is exact. A filter may use ``+`` for one level and, as its last level, ``#`` for the rest.
A filter that begins with a wildcard does not match topics that begin with ``$``.
"""

from __future__ import annotations

from typing import Final

from brokerkm.errors import UsageError

TOPIC_SIZE: Final = 65535  # bytes of UTF-8; MQTT 5, section 1.5.4
_WILDCARDS: Final = frozenset("+#")


def check_topic(topic: str) -> str:
    """Return `topic` if a payload may be published under it.

    Raises:
        UsageError: it is empty or too long, has a wildcard or a NUL, or is not UTF-8.
    """
    _check_name(topic, "topic")
    if _WILDCARDS.intersection(topic):
        message = f"topic {topic!r} has a wildcard: a payload is published under one exact topic"
        raise UsageError(message)
    return topic


def check_filter(pattern: str) -> str:
    """Return `pattern` if it may be subscribed.

    Raises:
        UsageError: it is empty or too long, has a NUL or a misplaced wildcard, or is not UTF-8.
    """
    _check_name(pattern, "filter")
    levels = pattern.split("/")
    alone = all(len(level) == 1 or not _WILDCARDS.intersection(level) for level in levels)
    if not alone or "#" in levels[:-1]:
        message = f"filter {pattern!r}: + and # each take a whole level, and # only the last"
        raise UsageError(message)
    return pattern


def is_exact(pattern: str) -> bool:
    """Tell whether the filter names one topic and no more."""
    return not _WILDCARDS.intersection(pattern)


def matches(pattern: str, topic: str) -> bool:
    """Tell whether a checked filter takes in `topic`."""
    if is_exact(pattern):
        return pattern == topic
    if topic.startswith("$") and pattern[0] in _WILDCARDS:
        return False
    wanted, levels = pattern.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(want in ("+", level) for want, level in zip(wanted, levels, strict=True))


def _check_name(name: str, kind: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        message = f"{kind} {name!r} cannot be written as UTF-8"
        raise UsageError(message) from None
    if not 1 <= size <= TOPIC_SIZE:
        message = f"a {kind} has 1 to {TOPIC_SIZE} bytes, this one {size}"
        raise UsageError(message)
    if "\0" in name:
        message = f"{kind} {name!r} has a NUL"
        raise UsageError(message)

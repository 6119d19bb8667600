"""Who may do what at the hub, told by topic names and the member ids that CURVE keys stand for.

`user` is the member id of the connection's key, or None if the hub has no list of keys: then
nobody is known, and only what holds for everybody is refused.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from brokerkm import topics
from brokerkm_zmq.keys import FORWARDER

if TYPE_CHECKING:
    import logging

_QUIET: Final = 10.0  # seconds between two warnings of one kind


def is_below(prefix: str, topic: str) -> bool:
    """Return whether a topic belongs to key management."""
    return topic == prefix or topic.startswith(prefix + "/")


def why_not_submit(prefix: str, topic: str, user: str | None) -> str | None:
    """Return why a member may not submit under `topic`, or None if it may.

    Below the prefix only ``GROUP/r/ID`` is for members, and only for the one with that id.
    """
    if not is_below(prefix, topic):
        return None
    match topic.removeprefix(prefix).split("/"):
        case ["", _, "r", member]:
            if user in (None, FORWARDER, member):
                return None
            return f"requests of {member} are {member}'s alone"
        case _:
            return f"only the key server publishes below {prefix}/"


def may_subscribe(prefix: str, pattern: str, user: str | None) -> bool:
    """Return whether a member may subscribe a filter: ``PREFIX/GROUP/m/ID`` is for that member alone.

    A wildcard is always allowed: what is for one member is sent under a prefix of its own, which no
    other's subscription matches.
    """
    if user in (None, FORWARDER) or not is_below(prefix, pattern) or not topics.is_exact(pattern):
        return True
    match pattern.removeprefix(prefix).split("/"):
        case ["", _, "m", member]:
            return user == member
        case _:
            return True


class Warner:
    """Logs a warning of each kind at most every ten seconds and counts the rest: peers may send many.

    Args:
        logger: where the warnings go.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._last: dict[str, float] = {}
        self._silent: dict[str, int] = {}

    def warn(self, kind: str, detail: object) -> None:
        """Log `kind`, of which there are few, with a detail that a peer may choose."""
        now = time.monotonic()
        if now - self._last.get(kind, -_QUIET) < _QUIET:
            self._silent[kind] = self._silent.get(kind, 0) + 1
            return
        self._last[kind] = now
        self._logger.warning("%s: %.200r (%d more before)", kind, detail, self._silent.pop(kind, 0))

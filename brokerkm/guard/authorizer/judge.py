"""Yes or no, for one who connects, subscribes or publishes; whatever cannot be decided is a no."""

from __future__ import annotations

import enum
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from brokerkm.errors import StoreError, TransportError
from brokerkm.guard.authority import DeniedError

if TYPE_CHECKING:
    from brokerkm.guard.authority import Authority
    from brokerkm.guard.rules import Grant

_log = logging.getLogger(__name__)

_BETWEEN_LINES: Final = 1.0  # seconds; whoever is refused again and again fills no log


class Action(enum.StrEnum):
    """What somebody wants with a topic."""

    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"


class Judge:
    """Decides for brokers.

    Attributes:
        verdicts: how many there were, by what was asked and what was said.
    """

    def __init__(self, authority: Authority) -> None:
        self._authority: Final = authority
        self._next_line = 0.0
        self._untold = 0
        self.verdicts: Final[Counter[tuple[str, bool]]] = Counter()

    async def connects(self, username: str, password: str) -> bool:
        """Return whether somebody may connect."""
        try:
            await self._authority.login(username, password)
        except (DeniedError, StoreError, TransportError) as error:
            return self.refuse("connect", username, str(error))
        return self._allow("connect")

    async def exists(self, username: str) -> bool:
        """Return whether somebody who has connected may still be there."""
        return await self._grant("stay", username) is not None and self._allow("stay")

    async def may(self, username: str, action: Action, topic: str, *, retain: bool = False) -> bool:
        """Return whether somebody who has connected may publish on a topic, or subscribe a filter."""
        grant = await self._grant(action, username)
        if grant is None:
            return False
        subscribes = action is Action.SUBSCRIBE
        if grant.may_subscribe(topic) if subscribes else grant.may_publish(topic, retain=retain):
            return self._allow(action)
        return self.refuse(action, username, f"{topic[:200]!r} is not for it")

    def refuse(self, action: str, username: str, reason: str) -> bool:
        """Return False, and say why in the log, once in a while."""
        self.verdicts[action, False] += 1
        self._untold += 1
        now = time.monotonic()
        if now >= self._next_line:
            others = f"; {self._untold - 1} others since the last such line" if self._untold > 1 else ""
            _log.info("%.129r may not %s: %s%s", username, action, reason, others)
            self._next_line, self._untold = now + _BETWEEN_LINES, 0
        return False

    async def _grant(self, action: str, username: str) -> Grant | None:
        try:
            return await self._authority.grant(username)
        except (DeniedError, StoreError, TransportError) as error:
            self.refuse(action, username, str(error))
            return None

    def _allow(self, action: str) -> bool:
        self.verdicts[action, True] += 1
        return True

"""What happens in the key server, told as it happens: to metrics and traces at once, to whoever follows from a queue.

Nothing is kept: the audit log in the store is the record, the feed is the news. It refuses bytes in its details,
because whatever is secret here is bytes. All of it belongs to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

_log = logging.getLogger(__name__)

FOLLOWER_LIMIT: Final = 1000  # happenings; about 0.5 MB for one who does not read
MAX_TEXT: Final = 256  # characters of a text in the details; what peers choose is bounded


class Kind(enum.StrEnum):
    """What can happen; the details of each kind are named beside it."""

    COMMIT = "commit"  # epoch, seated, removed, rekeys, sequence, prepare_seconds, store_seconds, waited_seconds
    PUBLISHED = "published"  # sequence, messages, seconds
    JOIN_REQUESTED = "join-requested"
    JOIN_REFUSED = "join-refused"  # reason
    SEATED = "seated"  # epoch
    EVICTED = "evicted"  # epoch
    LEFT = "left"  # epoch
    STANDING = "standing"  # status, which has changed without a commit
    SYNC = "sync"  # behind: epochs that the member had missed, where that is known
    REQUEST_REFUSED = "request-refused"  # reason
    ACK = "ack"  # epoch
    CLONE_SUSPECTED = "clone-suspected"
    QUARANTINED = "quarantined"
    BROKER_LOST = "broker-lost"  # reason
    BROKER_BACK = "broker-back"
    STORE_FAILED = "store-failed"  # reason
    RETAINED_LOST = "retained-lost"  # messages
    LEAD = "lead"  # fence
    YIELD = "yield"
    UNSERVED = "unserved"  # reason
    POLICY = "policy"
    ROTATE = "rotate"  # epoch
    DATA_TOPICS = "data-topics"
    HANDOVER = "handover"
    DESTROYED = "destroyed"  # and forgotten
    RULE_RUN = "rule-run"  # rule
    MISSED = "missed"  # count: only a follower that was too slow hears it


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened.

    Args:
        time: seconds since 1970.
        group, member: empty where it concerns none.
        details: short values, none of them secret; see `Kind`.
    """

    time: float
    kind: Kind
    group: str = ""
    member: str = ""
    details: Mapping[str, str | float] = field(default_factory=dict[str, str | float])


class Follower:
    """The happenings from now on, as an async iterator; one that is not read loses the oldest and is told how many."""

    def __init__(self, clock: Callable[[], float], limit: int) -> None:
        self._clock: Final = clock
        self._queue: Final[deque[Happening]] = deque(maxlen=limit)
        self._arrived: Final = asyncio.Event()
        self._missed = 0
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Happening:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        if self._missed:
            missed, self._missed = self._missed, 0
            return Happening(self._clock(), Kind.MISSED, details={"count": missed})
        return self._queue.popleft()

    def take(self, happening: Happening) -> None:
        """Queue one; if there is no room, the oldest goes."""
        self._missed += len(self._queue) == self._queue.maxlen
        self._queue.append(happening)
        self._arrived.set()

    def close(self) -> None:
        """End the iteration after what is queued."""
        self._closed = True
        self._arrived.set()


class Feed:
    """Where the key server's parts say what happens, and where others hear it.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock: Final = clock
        self._listeners: Final[list[Callable[[Happening], None]]] = []
        self._followers: Final[list[Follower]] = []

    def emit(self, kind: Kind, group: str = "", member: str = "", **details: str | float) -> None:
        """Tell all listeners and followers; costs nothing if there are none.

        Raises:
            TypeError: a detail is neither text nor number; it might be a key.
        """
        if not self._listeners and not self._followers:
            return
        given = cast("Mapping[str, object]", details)
        for name, value in given.items():
            if not isinstance(value, str | int | float):
                message = f"detail {name} of {kind}: {type(value).__name__} is neither text nor number"
                raise TypeError(message)
        short = {name: value[:MAX_TEXT] if isinstance(value, str) else value for name, value in details.items()}
        happening = Happening(self._clock(), kind, group, member, short)
        for listener in tuple(self._listeners):
            try:
                listener(happening)
            except Exception:  # noqa: BLE001 - who listens must not harm the key server
                _log.exception("a listener failed at %s", kind)
        for follower in self._followers:
            follower.take(happening)

    def listen(self, callback: Callable[[Happening], None]) -> Callable[[], None]:
        """Call `callback` at each happening, before `emit` returns; the returned function ends that."""
        self._listeners.append(callback)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(callback)

        return end

    @contextlib.contextmanager
    def follow(self, limit: int = FOLLOWER_LIMIT) -> Generator[Follower]:
        """Give an async iterator over what happens from now on, which holds up to `limit` happenings."""
        follower = Follower(self._clock, limit)
        self._followers.append(follower)
        try:
            yield follower
        finally:
            self._followers.remove(follower)
            follower.close()

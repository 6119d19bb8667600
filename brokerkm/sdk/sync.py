"""The fleet for scripts without asyncio: the same names, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Final, Generic, ParamSpec, Self, TypeVar

from brokerkm.errors import UsageError
from brokerkm.sdk.fleet import Fleet, connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
    from pathlib import Path
    from types import TracebackType

    from brokerkm.core.events import MessageReceived
    from brokerkm.core.state import State
    from brokerkm.errors import Reason
    from brokerkm.sdk.events import FleetEvent

_Item = TypeVar("_Item")
_T = TypeVar("_T")
_P = ParamSpec("_P")


class _LoopThread:
    """An event loop that runs in a daemon thread until `stop`."""

    def __init__(self) -> None:
        self._loop: Final = asyncio.new_event_loop()
        self._thread: Final = threading.Thread(target=self._loop.run_forever, name="brokerkm", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[None, None, _T]) -> _T:
        """Return what the coroutine returns; an interrupt of the caller cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End loop and thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


class SyncIterator(Generic[_Item]):
    """An iterator that waits in the calling thread.

    Args:
        run: runs a coroutine to its end.
        source: what is iterated over.
        timeout: seconds without an item after which it ends, None for never.
    """

    def __init__(
        self, run: Callable[[Coroutine[None, None, _Item]], _Item], source: AsyncIterator[_Item], timeout: float | None
    ) -> None:
        self._run: Final = run
        self._source: Final = source
        self._timeout: Final = timeout

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Item:
        """Return the next item."""
        try:
            return self._run(self._next())
        except (StopAsyncIteration, TimeoutError):
            raise StopIteration from None

    async def _next(self) -> _Item:
        async with asyncio.timeout(self._timeout):
            return await anext(self._source)


class SyncFleet:
    """A `Fleet` to be used by ``with``; errors and rules are its own. Its methods may be called from any thread."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet: Final = fleet
        self._thread: _LoopThread | None = None

    def __repr__(self) -> str:
        return f"Sync{self._fleet!r}"

    def __enter__(self) -> Self:
        thread = _LoopThread()
        try:
            thread.run(self._fleet.__aenter__())
        except BaseException:
            thread.stop()
            raise
        self._thread = thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread, self._thread = self._running(), None
        try:
            thread.run(self._fleet.__aexit__(kind, error, trace))
        finally:
            thread.stop()

    def _running(self) -> _LoopThread:
        if self._thread is None:
            message = "enter the fleet first: with brokerkm.connect_sync(...) as fleet"
            raise UsageError(message)
        return self._thread

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, timeout: float | None = None) -> None:
        """Send `payload` to the members of the group; see `Fleet.publish`."""
        self._running().run(self._fleet.publish(topic, payload, retain=retain, timeout=timeout))

    def messages(self, pattern: str, *, timeout: float | None = None) -> SyncIterator[MessageReceived]:
        """Return an iterator over messages, subscribed at once; it ends after `timeout` seconds without one."""
        thread = self._running()

        async def begin() -> AsyncIterator[MessageReceived]:
            return await self._fleet.messages(pattern).__aenter__()

        return SyncIterator(thread.run, thread.run(begin()), timeout)

    def events(self, *, timeout: float | None = None) -> SyncIterator[FleetEvent]:
        """Return an iterator over what happens from now on; it ends after `timeout` seconds without an event."""
        return SyncIterator(self._running().run, self._fleet.events(), timeout)

    def leave(self, timeout: float | None = None) -> None:
        """Leave the group for good; see `Fleet.leave`."""
        self._running().run(self._fleet.leave(timeout))

    @property
    def group(self) -> str:
        """Group id."""
        return self._fleet.group

    @property
    def member(self) -> str:
        """Member id."""
        return self._fleet.member

    @property
    def state_dir(self) -> Path:
        """Where the state is kept."""
        return self._fleet.state_dir

    @property
    def state(self) -> State:
        """Where the member stands."""
        return self._fleet.state

    @property
    def epoch(self) -> int:
        """The newest epoch whose keys the member has."""
        return self._fleet.epoch

    @property
    def slot(self) -> int | None:
        """The member's leaf in the tree, if it has one."""
        return self._fleet.slot

    @property
    def silent(self) -> bool:
        """Whether the server has not been heard for longer than the group's policy allows."""
        return self._fleet.silent

    @property
    def connected(self) -> bool:
        """Whether the broker is connected."""
        return self._fleet.connected

    @property
    def identity(self) -> bytes:
        """The device's Ed25519 public key, 32 bytes."""
        return self._fleet.identity

    @property
    def refused(self) -> Mapping[Reason, int]:
        """How many messages were refused or given up since entering, by reason."""
        return self._fleet.refused


def _wrapped(make: Callable[_P, Fleet]) -> Callable[_P, SyncFleet]:
    def connect_sync(*args: _P.args, **kwargs: _P.kwargs) -> SyncFleet:
        return SyncFleet(make(*args, **kwargs))

    connect_sync.__doc__ = "Return the fleet to enter by ``with``; the arguments are those of `brokerkm.connect`."
    return connect_sync


connect_sync: Final = _wrapped(connect)

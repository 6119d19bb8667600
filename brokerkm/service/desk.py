"""The one thread that uses the store."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from brokerkm.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

_WRITES: Final = frozenset({"write", "settle", "touch", "mark_published", "create_group", "destroy_group"})

P = ParamSpec("P")
T = TypeVar("T")


class StoreDesk:
    """Runs calls on the store one after the other, in a thread of their own.

    One thread, because a store's transactions must not interleave, and because the order in which calls are made is
    then the order in which they happen. A thread at all, because an fsync or a commit of ten thousand changes must
    not stall the event loop.

    Attributes:
        care: held by whoever copies, checks or seals the whole store, which takes long.
        failure: why a call failed that touched the storage; None once one of its kind, or one that writes, succeeded.
        timed: called in the desk's thread after each call: name of the function, seconds, whether the storage failed.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="brokerkm-store")
        self.failure: StoreError | None = None
        self._writing_fails = False
        self.care: Final = asyncio.Lock()
        self.timed: Callable[[str, float, bool], None] | None = None

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns; if the caller is cancelled, the call happens all the same."""
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._executor, lambda: self._run(function, *args, **kwargs)))

    def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        began, failure = time.perf_counter(), None
        try:
            return function(*args, **kwargs)
        except StoreError as error:
            failure = error
            raise
        finally:
            name = getattr(function, "__name__", "call")
            self._note(failure, writes=name in _WRITES)
            if self.timed is not None:
                self.timed(name, time.perf_counter() - began, failure is not None)

    def _note(self, failure: StoreError | None, *, writes: bool) -> None:
        """Remember a failure, or forget it: a full disk can be read, and that it can be read says nothing."""
        if failure is not None:
            self.failure = failure
            self._writing_fails |= writes
        elif writes or not self._writing_fails:
            self.failure = None
            self._writing_fails = False

    async def close(self) -> None:
        """Wait for what was asked for, and end the thread."""
        await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)

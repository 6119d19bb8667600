"""How far something long is, told while it is done: one JSON object a line, the last one with its result or problem.

Who asks for it by ``Accept: application/jsonl`` gets lines of ``{"done": 3, "total": 10}``, at least one every
few seconds, then ``{"result": ...}``, or ``{"problem": ...}`` as an error of the API has it; its status is 200 whatever
comes of it. Who hangs up has it given up, as the server has when it stops: what is not done then is not done at all.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from litestar import Request
from litestar.response import Stream

from brokerkm.api.problems import describe
from brokerkm.errors import StoreError
from brokerkm.store.protocol import Progress, ignore

MEDIA_TYPE: Final = "application/jsonl"
KEEP_ALIVE: Final = 5.0  # seconds after which a line comes even if nothing moves
_PACE: Final = 0.1  # seconds between two lines

_T = TypeVar("_T")
_under_way: Final[set[asyncio.Future[Any]]] = set()  # so that what nobody waits for is not collected before its end


async def answer(request: Request[Any, Any, Any], work: Callable[[Progress], Awaitable[_T]]) -> Any:  # noqa: ANN401 - a result or a Stream, which Litestar tells apart
    """Return the result of `work`, or a stream of how far it is, whichever the request asks for."""
    if MEDIA_TYPE not in request.headers.get("accept", ""):
        return await work(ignore)
    return Stream(_lines(work, request.app.state.stopping), media_type=MEDIA_TYPE)


class _Gauge:
    """Tells an event loop what a thread says of its progress, and the thread that it is to give up."""

    def __init__(self) -> None:
        self.moved: Final = asyncio.Event()
        self.state = (0, 0)
        self._loop: Final = asyncio.get_running_loop()
        self._given_up = False
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Note progress; in the thread that makes it."""
        if self._given_up:
            message = "it was given up: nothing has changed"
            raise StoreError(message)
        now = time.monotonic()
        if now >= self._next or done == total:
            self._next = now + _PACE
            self._loop.call_soon_threadsafe(self._move, done, total)

    def give_up(self) -> None:
        """Have the work end with an error at its next step."""
        self._given_up = True

    def _move(self, done: int, total: int) -> None:
        self.state = (done, total)
        self.moved.set()


async def _lines(work: Callable[[Progress], Awaitable[_T]], stopping: asyncio.Event) -> AsyncIterator[bytes]:
    gauge = _Gauge()
    task = asyncio.ensure_future(work(gauge))
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    task.add_done_callback(lambda one: one.exception())  # it may have nobody to tell
    ended = asyncio.ensure_future(stopping.wait())
    try:
        while not task.done():
            gauge.moved.clear()
            yield _line(dict(zip(("done", "total"), gauge.state, strict=True)))
            moved = asyncio.ensure_future(gauge.moved.wait())
            try:
                await asyncio.wait({task, moved, ended}, timeout=KEEP_ALIVE, return_when=asyncio.FIRST_COMPLETED)
            finally:
                moved.cancel()
            if ended.done():
                gauge.give_up()
                await asyncio.wait({task})
        yield _line(dict(zip(("done", "total"), gauge.state, strict=True)))
        error = task.exception()
        if error is None:
            yield _line({"result": task.result()})
        else:
            yield _line({"problem": describe(error)})
    finally:
        gauge.give_up()
        ended.cancel()


def _line(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"

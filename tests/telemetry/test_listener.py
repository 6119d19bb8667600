"""The metrics listener: three paths, GET alone, and nothing that a stranger sends harms it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from brokerkm.config.address import Address
from brokerkm.errors import TransportError
from brokerkm.telemetry import health
from brokerkm.telemetry.listener import MAX_CLIENTS, MAX_HEAD, Answer, Listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LOOPBACK = Address("127.0.0.1", 0)


async def _hello() -> Answer:
    return Answer(b"hello", "text/plain")


async def _fail() -> Answer:
    raise RuntimeError


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    """Give a listener that says hello."""
    async with Listener(LOOPBACK, {"/hello": _hello, "/fail": _fail}) as listener:
        yield listener


async def ask(listener: Listener, head: bytes) -> bytes:
    """Return all that the listener says to `head`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        writer.write(head)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_path_answers(listener: Listener) -> None:
    """With its type and its length, and the connection ends."""
    head, _, body = (await ask(listener, b"GET /hello?a=b HTTP/1.1\r\nHost: x\r\n\r\n")).partition(b"\r\n\r\n")
    assert (b"HTTP/1.1 200 OK", b"hello", True) == (head.split(b"\r\n")[0], body, b"Content-Length: 5" in head)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /absent HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /hello HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /hello\r\n\r\n", b"400"),
        (b"\xff\xfe\r\n\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /hello HTTP/1.1\r\nX: " + b"x" * 4 * MAX_HEAD + b"\r\n\r\n", b"431"),
    ],
)
async def test_what_is_no_good_request_is_told_so(listener: Listener, head: bytes, status: bytes) -> None:
    """With the status that HTTP has for it; or, where more was sent than is read, with a reset."""
    answer = await ask(listener, head)
    assert status in answer.split(b"\r\n")[0] or (status == b"431" and answer == b"")
    assert b"hello" in await ask(listener, b"GET /hello HTTP/1.1\r\n\r\n")


async def test_a_failure_ends_one_connection_only(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next request is answered."""
    assert b"" == await ask(listener, b"GET /fail HTTP/1.1\r\n\r\n")
    assert b"hello" in await ask(listener, b"GET /hello HTTP/1.1\r\n\r\n")
    assert ["a request to the metrics listener failed"] == [record.message for record in caplog.records]


async def test_silent_clients_do_not_keep_others_out_for_ever(listener: Listener) -> None:
    """There is room for so many; the next one is hung up on, and once they go, there is room again."""
    idle = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(MAX_CLIENTS)]
    async with asyncio.timeout(5):
        while await ask(listener, b"GET /hello HTTP/1.1\r\n\r\n"):
            pass
    for _, writer in idle:
        writer.close()
    async with asyncio.timeout(5):
        while b"hello" not in await ask(listener, b"GET /hello HTTP/1.1\r\n\r\n"):
            pass


async def test_it_ends_with_clients_connected() -> None:
    """A scraper that hangs does not hold a stop up."""
    async with asyncio.timeout(5):
        async with Listener(LOOPBACK, {}) as listener:
            _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.close()


async def test_a_port_in_use_is_said(listener: Listener) -> None:
    """With the key that names it."""
    with pytest.raises(TransportError, match=r"telemetry.listen 127\.0\.0\.1:\d+: .*take another port"):
        await Listener(Address("127.0.0.1", listener.port), {}).__aenter__()


async def test_a_check_that_fails_is_a_503() -> None:
    """With its report as the body."""
    answer = Answer.of_check(False, {"status": "not ready"})  # noqa: FBT003 - the first half of a pair
    assert (503, {"status": "not ready"}) == (answer.status.value, json.loads(answer.body))


async def test_a_stall_of_the_event_loop_shows() -> None:
    """The watch is late as long as something else runs; health says so beyond a limit."""
    watch = health.LoopWatch()
    task = asyncio.ensure_future(watch.run())
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    until = loop.time() + health.PERIOD + 0.2
    while loop.time() < until:
        pass  # what a stall is
    async with asyncio.timeout(5):
        while watch.lag < 0.2:  # noqa: ASYNC110 - the watch looks by itself and tells nobody
            await asyncio.sleep(0)
    task.cancel()
    assert (True, "ok") == (health.alive(watch)[0], health.alive(watch)[1]["status"])
    watch._lags.append(health.MAX_LAG)
    assert (False, "stalled") == (health.alive(watch)[0], health.alive(watch)[1]["status"])

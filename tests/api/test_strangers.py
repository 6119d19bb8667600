"""What somebody without any credential can take of the listener, and what a web page can have a browser do."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from brokerkm.api import peer
from brokerkm.api.door import MAX_OF_ADDRESS, Door
from brokerkm.api.gate import MAX_UNLOCKED

if TYPE_CHECKING:
    from collections.abc import Generator

    from api.running import Running

PATIENCE = 20.0  # seconds


@contextlib.contextmanager
def stranger(running: Running) -> Generator[ssl.SSLSocket]:
    """Connect by TLS without any credential."""
    context = ssl.create_default_context(cafile=running.authority.path)
    with (
        socket.create_connection(("127.0.0.1", running.port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        yield tls


@pytest.mark.parametrize(
    "rest",
    [b"", b"GET /v1/status HTTP/1.1\r\nX: ", b"\r\n\r\nGET"],
    ids=["nothing", "half a head", "half a line"],
)
def test_half_a_second_request_is_not_waited_for(
    running: Running, monkeypatch: pytest.MonkeyPatch, rest: bytes
) -> None:
    """A connection that was answered once does not stay open by a few bytes more."""
    monkeypatch.setattr(peer, "REQUEST_TIME", 0.1)
    monkeypatch.setattr(peer, "IDLE_TIME", 0.1)
    with stranger(running) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 401 " in tls.recv(65536)
        tls.sendall(rest)
        while tls.recv(65536):
            pass


def test_a_body_that_nobody_wants_is_not_waited_for(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused request whose body goes on for ever, a little at a time, holds no connection."""
    monkeypatch.setattr(peer, "REQUEST_TIME", 0.1)
    monkeypatch.setattr(peer, "IDLE_TIME", 0.1)
    with stranger(running) as tls:
        tls.sendall(b"POST /v1/groups HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        tls.settimeout(0.02)
        answer, ended = b"", False
        for _ in range(int(PATIENCE / 0.02)):
            try:
                tls.sendall(b" ")
                piece = tls.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                ended = True
                break
            answer += piece
            ended = not piece
            if ended:
                break
        assert b" 401 " in answer
        assert ended


def test_a_webhook_has_a_bounded_body(running: Running) -> None:
    """It is read before anything is known of who sends it."""
    answer = running.ask("POST", "/v1/hooks/plant/rule", b" " * (MAX_UNLOCKED + 1))
    assert (413, "urn:brokerkm:problem:too-large") == (answer.status, answer.value["type"])
    assert 401 == running.ask("POST", "/v1/hooks/plant/rule", b" " * MAX_UNLOCKED).status


def test_one_address_does_not_take_all_connections(running: Running) -> None:
    """Connections that never begin their TLS are counted too, and their places are free again once they end."""
    with contextlib.ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port), PATIENCE))
            for _ in range(MAX_OF_ADDRESS + 1)
        ]
        with contextlib.suppress(ConnectionResetError):
            assert b"" == idle[-1].recv(1)
        for one in idle[:-1]:
            one.close()
        assert _answers(running)


def _answers(running: Running) -> bool:
    """Return whether a stranger is answered, perhaps not at the first try: the server notices an end a little later."""
    for _ in range(1000):
        with contextlib.suppress(OSError), stranger(running) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return b" 401 " in tls.recv(65536)
    return False


def test_a_door_has_room_for_so_many() -> None:
    """The limit of all holds beside that of one address, and counts who is still there."""
    with Door(socket.AF_INET, most=2, most_of_address=5) as door, contextlib.ExitStack() as stack:
        door.bind(("127.0.0.1", 0))
        door.listen()
        for _ in range(4):
            stack.enter_context(socket.create_connection(door.getsockname(), PATIENCE))
        first, _ = door.accept()
        second, _ = door.accept()
        with pytest.raises(ConnectionAbortedError):
            door.accept()
        first.close()
        third, _ = door.accept()
        for one in (second, third):
            one.close()


@pytest.mark.parametrize(("name", "value"), [("origin", "https://evil.example"), ("sec_fetch_site", "cross-site")])
def test_a_web_page_cannot_use_a_browser_with_a_certificate(running: Running, name: str, value: str) -> None:
    """A browser shows its certificate for every page's request; a token it does not have."""
    running.ask("POST", "/v1/groups", {"name": "plant"})
    console = running.authority.issue("console")
    header: Any = {name: value}
    answer = running.ask("POST", "/v1/groups/plant/rotate", {}, certificate=console, **header)
    assert (403, "urn:brokerkm:problem:forbidden") == (answer.status, answer.value["type"])
    assert 200 == running.ask("GET", "/v1/status", certificate=console).status
    assert 200 == running.ask("GET", "/v1/status", token=running.tokens["viewer"], **header).status


def test_a_viewer_writes_no_answers(running: Running) -> None:
    """An idempotency key of somebody who may change nothing leaves nothing in the store."""
    before = len(running.server.store.documents("", "answer"))
    refused = running.ask("POST", "/v1/groups", {"name": "x"}, token=running.tokens["viewer"], idempotency_key="k")
    assert 403 == refused.status
    assert before == len(running.server.store.documents("", "answer"))

"""A change that is asked for again is made once, whatever breaks in between."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from brokerkm.api import ApiServer, RemoteAdmin
from brokerkm.api.idempotency import KIND, LIFETIME, Idempotency
from brokerkm.errors import StoreError, UsageError
from brokerkm.store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from api.running import Answer, Running

    from brokerkm.service import KeyServer


def _problem(answer: Answer) -> str:
    return str(answer.value["type"]).rpartition(":")[2]


def test_a_change_is_made_once(running: Running) -> None:
    """The same request with its key gets the same answer; another with that key is refused, and so is a stranger's."""
    running.ask("POST", "/v1/groups", {"name": "once"})
    first = running.ask("POST", "/v1/groups/once/rotate", {}, idempotency_key="k1")
    again = running.ask("POST", "/v1/groups/once/rotate", {}, idempotency_key="k1")
    assert (200, first.value) == (again.status, again.value)
    assert ("true", None) == (again.headers["idempotency-replayed"], first.headers.get("idempotency-replayed"))
    other = running.ask("POST", "/v1/groups/once/rotate", {"everything": True}, idempotency_key="k1")
    assert (422, "key-reused") == (other.status, _problem(other))
    theirs = running.ask("POST", "/v1/groups/once/rotate", {}, token=running.tokens["admin"], idempotency_key="k1")
    assert first.value["epoch"] + 1 == theirs.value["epoch"]


def test_a_secret_answer_is_given_once(running: Running) -> None:
    """Nobody can have a token shown again, but nobody makes two by mistake either."""
    body = {"name": "once", "role": "viewer"}
    assert 201 == running.ask("POST", "/v1/credentials", body, idempotency_key="k2").status
    again = running.ask("POST", "/v1/credentials", body, idempotency_key="k2")
    assert (409, "answered-once") == (again.status, _problem(again))


def test_requests_with_one_key_wait_for_each_other(running: Running) -> None:
    """Many at the same time are one change, and all get its answer."""
    running.ask("POST", "/v1/groups", {"name": "crowd"})
    answers: list[Answer] = []

    def ask() -> None:
        answers.append(running.ask("POST", "/v1/groups/crowd/rotate", {}, idempotency_key="k3"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [(200, 1)] * 8 == [(answer.status, answer.value["epoch"]) for answer in answers]
    assert 7 == sum("idempotency-replayed" in answer.headers for answer in answers)


def test_an_answer_is_kept_for_a_day(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """After that the key is as good as new."""
    running.ask("POST", "/v1/groups", {"name": "days"})
    now = running.server.clock()
    epochs: list[int] = []
    for passed in (0, LIFETIME / 1000 - 1, LIFETIME / 1000 + 1):
        monkeypatch.setattr(running.server, "clock", lambda passed=passed: now + passed)
        epochs.append(running.ask("POST", "/v1/groups/days/rotate", {}, idempotency_key="k4").value["epoch"])
    assert [1, 1, 2] == epochs


async def test_a_crash_between_change_and_answer_is_told(
    tmp_path: Path, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows the outcome then, and the change is not made a second time."""
    path = tmp_path / "control.sock"
    monkeypatch.setattr("brokerkm.api.exchange.secrets.token_hex", lambda _size: "same")
    async with ApiServer(server, path) as api:
        admin = await RemoteAdmin.connect(path)
        await server.admin.create_group("plant")

        async def die(*_: object, **__: object) -> None:
            """Stand for the end of the process: the answer is neither kept nor sent."""
            for connection in list(api._running[0][0].server_state.connections):
                connection.transport.abort()
            raise asyncio.CancelledError

        with monkeypatch.context() as patch:
            patch.setattr(Idempotency, "_keep", die)
            with pytest.raises(UsageError, match="look whether it was done"):
                await admin.rotate("plant")  # the client asks twice by itself
    async with ApiServer(server, path):
        with pytest.raises(UsageError, match="look whether it was done"):
            await admin.rotate("plant")
    assert 1 == (await server.admin.show("plant")).epoch
    await admin.close()


async def test_answers_outlive_the_api(tmp_path: Path, server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in the store, not in the process."""
    path = tmp_path / "control.sock"
    monkeypatch.setattr("brokerkm.api.exchange.secrets.token_hex", lambda _size: "same")
    await server.admin.create_group("plant")
    epochs: list[int] = []
    for _ in range(2):
        async with ApiServer(server, path):
            admin = await RemoteAdmin.connect(path)
            epochs.append((await admin.rotate("plant")).epoch)
            await admin.close()
    assert [1, 1] == epochs


async def test_what_could_not_be_stored_may_be_asked_again(
    tmp_path: Path, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing store is a 503, after which the same key serves."""
    path = tmp_path / "control.sock"
    monkeypatch.setattr("brokerkm.api.exchange.secrets.token_hex", lambda _size: "same")
    await server.admin.create_group("plant")
    store = server.store
    assert isinstance(store, MemoryStore)
    write: Callable[..., int] = store.write

    def fail(group: str, change: object) -> int:
        if group:
            message = "the disk is full"
            raise StoreError(message)
        return write(group, change)

    async with ApiServer(server, path):
        admin = await RemoteAdmin.connect(path)
        with monkeypatch.context() as patch:
            patch.setattr(store, "write", fail)
            with pytest.raises(StoreError, match="the disk is full"):
                await admin.add_member("plant", "pump", bytes(32))
        assert [] == store.documents("", KIND)
        assert "listed" == (await admin.add_member("plant", "pump", bytes(32))).status
        await admin.close()

"""What takes long tells how far it is, to whoever asks, and ends with its result or an error, or when one hangs up."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING

import pytest
from api.running import UnixConnection
from store.planted import Planted

from brokerkm.api import ApiServer, RemoteAdmin
from brokerkm.api.storekeeping import RemoteStore
from brokerkm.errors import StoreError, TransportError, UsageError
from brokerkm.service import KeyServer
from brokerkm.service.storekeeping import StoreKeeping
from brokerkm.store import AuditEntry, Change, SqliteStore

if TYPE_CHECKING:
    import http.client
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from brokerkm.service.api import MemberInfo

KEY = bytes(32)
PATIENCE = 30.0  # seconds


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncGenerator[KeyServer]:
    """Start a server with a store of some megabytes and its API."""
    store = SqliteStore(tmp_path / "brokerkm.sqlite", KEY)
    for number in range(40):
        filler = "x" * 100_000
        store.write("", Change(audit=[AuditEntry(number, "operator", "note", "", {"text": filler})]))
    async with KeyServer(store, interval=0, broker="memory://x") as server:
        await server.admin.create_group("plant")
        async with ApiServer(server, tmp_path / "control.sock"):
            yield server
    store.close()


@pytest.fixture
async def remote(kept: KeyServer, tmp_path: Path) -> AsyncGenerator[RemoteStore]:
    """Connect to it."""
    assert kept.groups
    admin = await RemoteAdmin.connect(tmp_path / "control.sock")
    yield RemoteStore(admin)
    await admin.close()


async def test_it_says_how_far_it_is(remote: RemoteStore, tmp_path: Path) -> None:
    """A copy, a check, and a new key: each ends with all done, and is what it is without progress."""
    told: list[tuple[int, int]] = []
    await remote.backup(tmp_path / "copy", lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] > 100
    assert [] == await remote.verify(lambda done, total: told.append((done, total)))
    assert (1, 1) == told[-1]
    (tmp_path / "new.key").write_text("11" * 32)
    (tmp_path / "new.key").chmod(0o600)
    await remote.rewrap("file:new.key", tmp_path, deep=True, progress=lambda done, total: told.append((done, total)))
    assert [] == await remote.verify()


async def test_errors_are_raised_as_they_were_there(remote: RemoteStore, tmp_path: Path) -> None:
    """Those before the work begins, and those that come of it."""
    await remote.backup(tmp_path / "copy")
    with pytest.raises(UsageError, match="there is a file already"):
        await remote.backup(tmp_path / "copy")
    with pytest.raises(StoreError, match="it cannot be written"):
        await remote.backup(tmp_path / "absent" / "copy")
    with pytest.raises(UsageError, match="path"):
        await remote.backup(tmp_path.relative_to("/"))


async def test_an_eviction_commits_during_a_check(kept: KeyServer) -> None:
    """The check waits for it; and nobody else copies, checks or seals meanwhile."""
    await kept.admin.add_member("plant", "pump", bytes(32))
    keeping = StoreKeeping(kept, "operator")
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def report(done: int, total: int) -> None:
        if (done, total) == (0, 1):
            loop.call_soon_threadsafe(begun.set)
            assert go_on.wait(PATIENCE)

    checking = asyncio.ensure_future(keeping.verify(report))
    try:
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
            assert "evicted" == (await evict(kept)).status
        with pytest.raises(UsageError, match="wait until that is done"):
            await keeping.verify()
        assert not checking.done()
    finally:
        go_on.set()
    assert [] == await checking


async def evict(server: KeyServer) -> MemberInfo:
    """Cut the pump off, and return what is known of it then."""
    await server.admin.evict("plant", "pump")
    return await server.admin.show_member("plant", "pump")


async def test_what_nobody_waits_for_is_given_up(kept: KeyServer, tmp_path: Path) -> None:
    """Who hangs up leaves no half copy and no lock; the server goes on."""
    connection = UnixConnection(tmp_path / "control.sock")
    body = json.dumps({"path": str(tmp_path / "copy")})
    headers = {"Accept": "application/jsonl", "Content-Type": "application/json"}
    await asyncio.to_thread(connection.request, "POST", "/v1/store/backup", body, headers)
    response: http.client.HTTPResponse = await asyncio.to_thread(connection.getresponse)
    assert "total" in json.loads(await asyncio.to_thread(response.readline))
    response.close()
    connection.close()
    async with asyncio.timeout(PATIENCE):
        async with kept.desk.care:  # once it is free, nobody copies any more
            assert not (tmp_path / "copy.part").exists()
    assert [] == await StoreKeeping(kept, "operator").verify()


async def test_a_server_that_stops_says_so(tmp_path: Path) -> None:
    """It gives up what is under way, and whoever waits for it is told."""
    store = SqliteStore(tmp_path / "brokerkm.sqlite", KEY)
    Planted(store)
    async with KeyServer(store, interval=0) as server:
        api = ApiServer(server, tmp_path / "control.sock")
        await api.start()
        admin = await RemoteAdmin.connect(tmp_path / "control.sock")
        hold, held = threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait(_store: object) -> None:
            loop.call_soon_threadsafe(held.set)
            assert hold.wait(PATIENCE)

        holding = asyncio.ensure_future(server.desk.call(wait, store))
        await held.wait()  # the thread of the store is taken: a new key has to wait
        (tmp_path / "new.key").write_text("11" * 32)
        (tmp_path / "new.key").chmod(0o600)
        told = asyncio.Event()
        asking = asyncio.ensure_future(
            RemoteStore(admin).rewrap("file:new.key", tmp_path, deep=True, progress=lambda _done, _total: told.set())
        )
        async with asyncio.timeout(PATIENCE):
            await told.wait()  # a sign of life
            stopping = asyncio.ensure_future(api.stop())
            for _ in range(20):  # turns of the loop, in which the stream hears of it
                await asyncio.sleep(0)
            hold.set()
            with pytest.raises((StoreError, TransportError)):
                await asking
            await stopping
            await holding
        await admin.close()
    store.close()

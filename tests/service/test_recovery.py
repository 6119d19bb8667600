"""A real store is put back to an earlier day, and the fleet goes on: over a real broker, with members of the SDK."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING

import pytest

import brokerkm
from brokerkm.core.state import State
from brokerkm.errors import EvictedError, StoreError, UsageError
from brokerkm.sdk.recovery import Pace
from brokerkm.service import KeyServer
from brokerkm.service.recovery import MARGIN, Recovery, recover
from brokerkm.store import MemoryStore, SqliteStore
from brokerkm.transport import Options, Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from brokers.mqtt import Mosquitto

PACE = Pace(retained=0.2, repeat=0.4, ceiling=1.0, syncs=1, settle=0.3, windows=0.1, save=0.05)
OPTIONS = Options(role=Role.SERVER)


class Site:
    """A store in a file, a server over it, and members with directories of their own."""

    def __init__(self, url: str, path: Path) -> None:
        self.url, self.path = url, path
        self.store, self.backup = path / "store" / "brokerkm.sqlite", path / "backup"
        self.store.parent.mkdir()
        self.invitation = path / "plant.join"

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncGenerator[KeyServer]:
        """Run the server."""
        with contextlib.closing(SqliteStore(self.store)) as store:
            async with KeyServer(store, create(self.url, OPTIONS), interval=0, broker=self.url) as server:
                yield server

    def member(self, name: str, *, rejoin: bool = False) -> brokerkm.Fleet:
        """Return a member that comes with the group's invitation."""
        return brokerkm.connect(
            None, self.invitation, member=name, state_dir=self.path / name, pace=PACE, timeout=15, rejoin=rejoin
        )

    async def recover(self, *evicted: str, force: bool = False) -> Recovery:
        """Recover the group as the command does."""
        with contextlib.closing(SqliteStore(self.store)) as store:
            transport = create(self.url, OPTIONS)
            return await recover(
                store,
                transport,
                "plant",
                evicted=evicted,
                actor="operator:test",
                clock=time.time,
                random=os.urandom,
                patience=2,
                force=force,
            )


@pytest.fixture
async def site(mosquitto: Mosquitto, tmp_path: Path) -> Site:
    """Return a site whose group has members a, b and c, and whose store has been copied then."""
    site = Site(mosquitto.url, tmp_path)
    async with site.serve() as server:
        await server.admin.create_group("plant")
        (await server.admin.invite("plant", uses=9)).write(site.invitation)
        async with contextlib.AsyncExitStack() as stack:
            for name in "abc":
                await stack.enter_async_context(site.member(name))
    shutil.copytree(site.store.parent, site.backup)
    return site


async def test_a_fleet_goes_on_after_its_server_was_restored(site: Site) -> None:
    """The server refuses to start until it has recovered; then all talk again but the one that was evicted."""
    async with site.serve() as server:
        await server.admin.evict("plant", "b")
        async with site.member("d"):
            newest = server.groups["plant"].group.epoch
    shutil.rmtree(site.store.parent)
    shutil.copytree(site.backup, site.store.parent)
    with pytest.raises(StoreError, match="brokerkm group recover plant"):
        async with site.serve():
            pass
    options = ("--evict", "b", "--broker", site.url, "--state", site.store.parent, "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "brokerkm", "group", "recover", "plant", *options, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    expected = Recovery(before=3, broker=newest, epoch=newest + MARGIN, welcomed=2, evicted=1)
    assert {"group": "plant", **expected._asdict()} == json.loads(output)
    async with site.serve() as server, site.member("a") as a, site.member("c") as c:
        with pytest.raises(EvictedError):
            await site.member("b").__aenter__()
        async with site.member("d", rejoin=True) as d:
            for fleet in (a, c, d):
                assert State.ACTIVE is fleet.state
            async with asyncio.timeout(15), c.messages("plant/#") as one, d.messages("plant/#") as other:
                await a.publish("plant/pump", b"21.4")
                assert [b"21.4", b"21.4"] == [(await anext(one)).payload, (await anext(other)).payload]
        known = {info.member: info.status for info in await server.admin.list_members("plant")}
        assert {"a": "seated", "b": "evicted", "c": "seated", "d": "seated"} == known


async def test_a_store_that_is_not_behind_is_left_alone(site: Site) -> None:
    """Nothing shows that it was restored; whoever wants new keys all the same says so."""
    with pytest.raises(UsageError, match=r"nothing shows that the store is behind.*--force"):
        await site.recover()
    done = await site.recover(force=True)
    assert (3, 3, 3 + MARGIN, 3, 0) == done
    async with site.serve(), site.member("a") as a:
        assert State.ACTIVE is a.state


async def test_what_cannot_be_recovered_is_named() -> None:
    """A group that there is not, and an id that is none."""
    for group, evicted, words in (("depot", (), "no group 'depot'"), ("plant", ("a b",), "'a b' is not 1 to 64")):
        with pytest.raises(UsageError, match=words):
            await recover(
                MemoryStore(),
                create("memory://recovery", OPTIONS),
                group,
                evicted=evicted,
                actor="operator:test",
                clock=time.time,
                random=os.urandom,
            )

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
from service.witness import Witness

import brokerkm
from brokerkm.core.names import Topics
from brokerkm.core.state import State
from brokerkm.errors import BehindError, EvictedError, StoreError, UsageError
from brokerkm.sdk.recovery import Pace
from brokerkm.service import KeyServer
from brokerkm.service import restored as restored_groups
from brokerkm.service.desk import StoreDesk
from brokerkm.service.recovery import MARGIN, Recovery, recover
from brokerkm.store import Change, GroupRecord, MemoryStore, SqliteStore
from brokerkm.store.records import Document
from brokerkm.store.restored import KIND, NAME, mark, marked
from brokerkm.transport import Options, Outgoing, Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from brokers.mqtt import Mosquitto

    from brokerkm.transport import Delivery

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


class Restored:
    """A site whose server went on after the backup, and whose store was then restored by the command."""

    def __init__(self, site: Site) -> None:
        self.site = site

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Return the exit code of a command on the server's machine, and what it printed."""
        options = ("--state", str(self.site.store.parent))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "brokerkm", *arguments, *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    async def succeed(self, *arguments: str) -> str:
        """Return what a command printed that has to succeed."""
        code, output = await self.run(*arguments)
        assert 0 == code, output
        return output

    async def forget(self) -> None:
        """Have the broker lose what it retained of the group's Beacon."""
        transport = create(self.site.url, OPTIONS)
        await transport.open()
        await transport.publish(Outgoing(Topics("plant").beacon, b"", retain=True))
        await transport.close()

    def mark(self) -> int | None:
        """Return what the store's mark says."""
        with contextlib.closing(SqliteStore(self.site.store)) as store:
            return marked(store, "plant")


@pytest.fixture
async def restored(site: Site) -> Restored:
    """Return a site with a backup of epoch 3."""
    await Restored(site).succeed("store", "backup", str(site.path / "copy"))
    return Restored(site)


async def test_a_restored_store_repeats_no_epoch_of_which_the_broker_shows_nothing(restored: Restored) -> None:
    """The server refuses the group until it is recovered, so that whoever listens sees each epoch once."""
    site, witness = restored.site, Watch("plant")
    async with witness.watching(site.url) as watching:
        await witness.saw(3)
        async with site.serve() as server:
            for _ in range(3):
                outcome = await server.admin.rotate("plant")
            await witness.saw(outcome.epoch)
        await restored.forget()
        await restored.succeed("store", "restore", str(site.path / "copy"), "--force")
        assert 3 == restored.mark()
        for _ in range(2):  # and by itself that does not change
            with pytest.raises(BehindError, match=r"no Beacon of the group.*epochs twice.*group recover plant"):
                async with site.serve():
                    pass
        done = json.loads(await restored.succeed("group", "recover", "--broker", site.url, "--json"))
        assert ("plant", 3, 0, 3 + MARGIN) == tuple(done[name] for name in ("group", "before", "broker", "epoch"))
        assert restored.mark() is None
        async with site.serve() as server, site.member("a") as a:
            last = (await server.admin.rotate("plant")).epoch
            await witness.saw(last)
            assert State.ACTIVE is a.state
        assert not watching.done()
    assert {outcome.epoch, 3 + MARGIN, last} <= set(witness.epochs)


class Watch(Witness):
    """A witness that can be waited for."""

    def __init__(self, group: str) -> None:
        super().__init__(group)
        self._seen = asyncio.Event()

    async def saw(self, epoch: int) -> None:
        """Return once a Beacon of this epoch has been seen."""
        async with asyncio.timeout(15):
            while epoch not in self.epochs:
                self._seen.clear()
                await self._seen.wait()

    def see(self, item: Delivery) -> None:
        """Note one message; an empty one clears what was retained, and other tests have left some at the nodes."""
        if item.payload and (not item.retained or item.topic == self.topics.beacon):
            super().see(item)
            self._seen.set()


async def test_an_older_beacon_does_not_let_a_restored_store_go_on(restored: Restored) -> None:
    """A broker that was put back as well knows no more than the backup; nor is a local change a proof of anything."""
    site = restored.site
    async with site.serve() as server:
        await server.admin.rotate("plant")
    await restored.succeed("store", "restore", str(site.path / "copy"), "--force")
    await restored.succeed("group", "rotate", "plant")  # at the epoch that the broker has, with other keys
    with pytest.raises(BehindError, match="the broker's Beacon is of epoch 4"):
        async with site.serve():
            pass


async def test_the_mark_goes_when_the_broker_shows_the_very_epoch(restored: Restored) -> None:
    """A store that was restored at once has missed nothing, and needs no new keys."""
    site = restored.site
    await restored.succeed("store", "restore", str(site.path / "copy"), "--force")
    code, output = await restored.run("group", "recover", "--broker", site.url)
    assert (2, True) == (code, "nothing shows that the store is behind" in output), output
    async with site.serve() as server, site.member("a") as a:
        assert (3, State.ACTIVE) == (server.groups["plant"].group.epoch, a.state)
    assert restored.mark() is None
    await restored.forget()
    async with site.serve() as server:
        assert 3 == server.groups["plant"].group.epoch


async def test_a_mark_stays_while_the_broker_cannot_be_asked() -> None:
    """One of several servers may come to lead a group at such a time; and one that cannot be read is no absent one."""
    store, desk = MemoryStore(), StoreDesk()
    store.create_group(GroupRecord("plant", bytes(32), 4), Change())
    store.create_group(GroupRecord("depot", bytes(32), 4), Change())
    mark(store, 1, "operator:test")
    judge = restored_groups.Restored(store, desk)
    marks = await judge.marks(["plant", "depot"])
    assert {"plant": 0, "depot": 0} == marks
    with pytest.raises(BehindError, match="is not reached"):
        await judge.judge(marks, None)
    with pytest.raises(BehindError, match="group depot"):
        await judge.judge(marks, {"plant": 0})
    assert {"depot": 0} == await judge.marks(["plant", "depot"])
    store.write("depot", Change(documents=[Document(KIND, NAME, b"{}")]))
    with pytest.raises(StoreError, match="is damaged"):
        await judge.marks(["depot"])
    await desk.close()


async def test_serve_says_how_to_recover_with_the_same_options(restored: Restored) -> None:
    """Whoever is refused is told the command that helps, whole; without a broker to ask it has to be forced."""
    site = restored.site
    await restored.succeed("store", "restore", str(site.path / "copy"), "--force")
    code, output = await restored.run("serve", "--port", "0")
    command = f"brokerkm group recover plant --state {site.store.parent} --force"
    assert (1, True) == (code, command in output), output
    code, output = await restored.run("group", "recover")
    assert (2, True) == (code, "which forgets all when it stops: --force" in output), output
    output = await restored.succeed("group", "recover", "--force", "--evict", "b")
    assert "2 members get new keys and 1 is out" in output
    assert f"brokerkm serve --state {site.store.parent}" in output


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

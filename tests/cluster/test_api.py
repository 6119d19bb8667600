"""Two `brokerkm serve` on one PostgreSQL: whichever is asked, the server that leads the group answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final

import pytest
from api.certificates import Authority
from brokers.process import free_port

from brokerkm.api import Remote, RemoteAdmin
from brokerkm.api.connection import Local
from brokerkm.api.rules import RemoteRules
from brokerkm.automation.signature import sign
from brokerkm.core.policy import Policy
from brokerkm.errors import StoreError, UnknownNameError, UsageError
from brokerkm.service.api import ImportRow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from brokers.mqtt import MqttBroker
    from databases.postgresql import Postgres

    from brokerkm.store.lease import ServerRecord

PATIENCE: Final = 30.0  # seconds
SECRET: Final = bytes(range(32))
_CONFIGURATION: Final = """
[server]
state = "{home}/{name}"
[store]
url = "{database}"
key = "file:{home}/store.key"
[broker]
url = "{broker}"
[api]
listen = "127.0.0.1:{port}"
cert_file = "{home}/server-cert.pem"
key_file = "{home}/server-key.pem"
client_ca = "{home}/authority.pem"
client_roles = "console=operator"
[telemetry]
listen = "127.0.0.1:0"
[cluster]
lease = 1.5
advertise = "https://{name}.example:8443"
"""


class Server:
    """One server's process, and the operators at it: root on its socket, `console` by certificate."""

    def __init__(self, home: Path, name: str, database: str, broker: str) -> None:
        self.home = home
        self.name = name
        self.state = home / name
        self.state.mkdir()
        self.port = free_port()
        login, _, place = database.removeprefix("postgresql://").partition("@")
        user, _, password = login.partition(":")
        text = _CONFIGURATION.format(
            home=home, name=name, database=f"postgresql://{user}@{place}", broker=broker, port=self.port
        )
        self.file = home / f"{name}.toml"
        self.file.write_text(text)
        self.environment = {**os.environ, "BROKERKM_STORE_PASSWORD": "env:DATABASE_PASSWORD"}
        self.process: asyncio.subprocess.Process | None = None
        self.environment |= {"DATABASE_PASSWORD": password, "BROKERKM_CONFIG": str(self.file)}

    async def start(self) -> None:
        """Return when it serves."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "brokerkm", "serve", "--json"), stdout=asyncio.subprocess.PIPE, env=self.environment
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = json.loads(await self.process.stdout.readline())
        self.metrics = line["metrics"]
        self.admin = await RemoteAdmin.reach(Local(self.state / "control.sock"))
        certificate = [self.home / one for one in ("console-cert.pem", "console-key.pem")]
        target = Remote.from_files(f"https://127.0.0.1:{self.port}", None, self.home / "authority.pem", *certificate)
        self.console = await RemoteAdmin.reach(target)
        self.id = next(one.id for one in await self.admin.servers() if self.name in one.url)

    async def stop(self) -> None:
        """End it."""
        await self.admin.close()
        await self.console.close()
        assert self.process is not None
        self.process.terminate()
        async with asyncio.timeout(PATIENCE):
            assert 0 == await self.process.wait()

    def kill(self) -> None:
        """End it, if it still runs."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()

    async def run(self, *arguments: str) -> str:
        """Return what a command printed."""
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "brokerkm", *arguments, "--state", str(self.state)],
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout

    async def leads(self, group: str) -> None:
        """Return when it leads a group."""
        await until(self, lambda servers: any(one.id == self.id and group in one.groups for one in servers))

    async def holds(self, *, leases: bool) -> None:
        """Return when /readyz says so of the leases; asked again and again, because nobody tells."""
        async with asyncio.timeout(PATIENCE):
            while leases is not (await asyncio.to_thread(self._checks))["leases"]:  # noqa: ASYNC110 - of a process
                await asyncio.sleep(0.05)

    def _checks(self) -> dict[str, bool]:
        url = self.metrics.removesuffix("/metrics") + "/readyz"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310 - our own server's
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                found = json.load(error)
        return {one["name"]: one["ok"] for one in found["checks"]}


async def until(server: Server, holds: Callable[[list[ServerRecord]], bool]) -> None:
    """Return when the servers are as they should be; asked again and again, because nobody tells."""
    async with asyncio.timeout(PATIENCE):
        while not holds(await server.admin.servers()):  # noqa: ASYNC110 - of a process
            await asyncio.sleep(0.05)


@pytest.fixture
async def pair(tmp_path: Path, database: str, mosquitto: MqttBroker) -> AsyncGenerator[tuple[Server, Server]]:
    """Run two servers; the second one leads the group `plant`."""
    authority = Authority(tmp_path, "authority")
    authority.issue("server")
    authority.issue("console")
    for name, key in (("store.key", bytes(32)), ("hook.key", SECRET)):
        (tmp_path / name).write_bytes(key)
        (tmp_path / name).chmod(0o600)
    north, south = (Server(tmp_path, name, database, mosquitto.url) for name in ("north", "south"))
    async with contextlib.AsyncExitStack() as stack:
        for server in (north, south):
            stack.callback(server.kill)
            await server.start()
        await north.admin.create_group("plant")
        await north.run("group", "move", "plant", "--to", south.id)
        await south.leads("plant")
        yield north, south
        await asyncio.gather(north.stop(), south.stop())


async def test_a_server_answers_for_the_leader_of_a_group(pair: tuple[Server, Server], postgres: Postgres) -> None:
    """All that is asked about a group reaches its leader, with the name and the role of who asks."""
    north, south = pair
    shown = [json.loads(line) for line in (await north.run("server", "list", "--json")).splitlines()]
    assert {north.id, south.id} == {one["id"] for one in shown if one["live"]}
    for server in pair:
        assert {"fleet", "plant"} == {info.name for info in await server.admin.list_groups()}
    await _administer(north)
    await _run_rules(north, south)
    actors = {(one.action, one.actor) for one in await north.admin.audit("plant")}
    assert {("list", "operator:certificate:console"), ("invite", "operator:certificate:console")} <= actors
    await north.holds(leases=True)
    await _lapse(pair, postgres)
    await north.admin.destroy("plant")
    with pytest.raises(UnknownNameError, match="no group 'plant'"):
        await north.admin.show("plant")
    await until(south, lambda servers: all("plant" not in one.groups for one in servers))
    await south.admin.create_group("plant")
    assert 0 == (await north.admin.show("plant")).members


async def _administer(north: Server) -> None:
    """Do in another server's group what operators do, and be refused what they are refused."""
    admin, console = north.admin, north.console
    epoch = (await admin.show("plant")).epoch
    assert epoch + 1 == (await admin.rotate("plant")).epoch
    descriptor = await console.invite("plant", uses=2)
    assert ["plant", 1] == [descriptor.group, len(await admin.list_tokens("plant"))]
    assert "listed" == (await console.add_member("plant", "pump", bytes(range(1, 33)))).status
    done = await admin.import_members("plant", [ImportRow(f"valve-{n}", bytes([n]) * 32) for n in range(1, 4)])
    assert ["added"] * 3 == [one.result for one in done]
    assert ["pump", "valve-1", "valve-2", "valve-3"] == [one.member for one in await admin.list_members("plant")]
    await admin.set_policy("plant", Policy(grace=7))
    assert 7 == (await admin.show("plant")).policy["grace"]
    with pytest.raises(UnknownNameError, match="not a member of group plant"):
        await admin.evict("plant", "nobody")
    with pytest.raises(UsageError, match="this needs the role admin"):
        await console.destroy("plant")
    with pytest.raises(UnknownNameError, match="no group 'planet'"):
        await admin.show("planet")
    with pytest.raises(UsageError, match="no server 'east' running"):
        await admin.move("plant", "east")


async def _run_rules(north: Server, south: Server) -> None:
    """Add a rule to another server's group, run it, and have a webhook run it."""
    rules = RemoteRules(north.admin)
    trigger = {"on": "webhook", "secret": f"file:{north.home}/hook.key"}
    await rules.add_rule("plant", {"name": "hook", "trigger": trigger, "action": {"do": "rotate"}})
    assert "new keys: root" == (await rules.run_rule("plant", "hook", dry=False)).done
    epoch = (await south.admin.show("plant")).epoch
    request = urllib.request.Request(
        f"https://127.0.0.1:{north.port}/v1/hooks/plant/hook",
        b"{}",
        sign(SECRET, int(time.time()), b"{}") | {"Content-Type": "application/json"},
    )
    context = Remote.from_files("https://127.0.0.1", None, north.home / "authority.pem").context
    with await asyncio.to_thread(urllib.request.urlopen, request, context=context, timeout=PATIENCE) as answer:
        assert {"done": "new keys: root", "members": []} == json.load(answer)
    assert epoch + 1 == (await south.admin.show("plant")).epoch


async def _lapse(pair: tuple[Server, Server], postgres: Postgres) -> None:
    """Be without a database: no server is ready before it is back, and each says why."""
    north, _ = pair
    epoch = (await north.admin.show("plant")).epoch
    postgres.process.stop()
    try:
        await asyncio.gather(*(server.holds(leases=False) for server in pair))
        with pytest.raises(StoreError):
            await north.admin.rotate("plant")
    finally:
        postgres.process.start()
    await asyncio.gather(*(server.holds(leases=True) for server in pair))
    async with asyncio.timeout(PATIENCE):
        while (await north.admin.show("plant")).epoch == epoch:
            with contextlib.suppress(StoreError):  # while the lease is had again
                await north.admin.rotate("plant")

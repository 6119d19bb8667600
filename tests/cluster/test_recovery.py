"""`brokerkm group recover` on a database that servers share: under the group's lease, or not at all."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from psycopg.sql import SQL, Identifier

from brokerkm.core.events import Evicted
from brokerkm.errors import StoreError
from brokerkm.service.recovery import MARGIN
from cluster.harness import LEASE, PATIENCE, cluster, witnessed
from cluster.test_servers import join

if TYPE_CHECKING:
    from pathlib import Path

    from brokers.mqtt import MqttBroker
    from databases.postgresql import Postgres

_numbers = itertools.count(1)
_CONFIGURATION = """
[store]
url = "{database}"
key = "file:{home}/store.key"
[broker]
url = "{broker}"
[cluster]
lease = {lease}
"""


@pytest.fixture
def group() -> str:
    """Give a name that no other test uses at the same broker."""
    return f"restored-{next(_numbers)}"


class Operator:
    """Somebody who runs the command on the host of a server."""

    def __init__(self, home: Path, broker: str) -> None:
        self.home, self.broker = home, broker
        (home / "store.key").write_bytes(bytes(32))
        (home / "store.key").chmod(0o600)

    async def recover(self, database: str, group: str, *options: str) -> tuple[int, str]:
        """Return the exit code and what was printed."""
        login, _, place = database.removeprefix("postgresql://").partition("@")
        user, _, password = login.partition(":")
        text = _CONFIGURATION.format(
            home=self.home, database=f"postgresql://{user}@{place}", broker=self.broker, lease=LEASE
        )
        (self.home / "brokerkm.toml").write_text(text)
        environment = {**os.environ, "BROKERKM_STORE_PASSWORD": "env:DATABASE_PASSWORD", "DATABASE_PASSWORD": password}
        command = ("group", "recover", group, "--config", str(self.home / "brokerkm.toml"), "--json", *options)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "brokerkm", *command),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    async def recovers(self, database: str, group: str, *options: str) -> dict[str, int]:
        """Return what was done, as soon as no lease stands in the way; asked again and again, because nobody tells."""
        async with asyncio.timeout(PATIENCE):
            while True:
                code, output = await self.recover(database, group, *options)
                if code == 0:
                    done: dict[str, int] = json.loads(output)
                    return done
                assert "is led by the server" in output, output


@pytest.fixture
def operator(tmp_path: Path, mosquitto: MqttBroker) -> Operator:
    """Return an operator with the store's key."""
    return Operator(tmp_path, mosquitto.url)


def copy_database(postgres: Postgres, database: str) -> str:
    """Return the URL of a copy of a database that nobody is connected to."""
    source = database.rpartition("/")[2]
    with postgres.connect("postgres") as connection:
        names = SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(f"{source}_copy"), Identifier(source))
        connection.execute(names)
    return postgres.url(f"{source}_copy")


async def test_a_restored_database_is_recovered(
    postgres: Postgres, database: str, mosquitto: MqttBroker, operator: Operator, group: str
) -> None:
    """Refused while a server leads the group; then the epoch jumps, and a server that is started goes on from there."""
    async with witnessed(group, mosquitto.url), cluster(database, mosquitto.url, 1) as servers:
        (server,) = servers.servers
        await server.call(group, "create", beacon_interval=1)
        await server.leads(group)
        pump = await join(await servers.invite(server, group), "pump")
        code, output = await operator.recover(database, group, "--force")
        assert code > 0
        assert f"is led by the server {server.id} on host" in output
        await server.stop()
        backup = copy_database(postgres, database)
        again = await servers.start()
        await again.leads(group)
        newest = max([await again.call(group, "rotate") for _ in range(3)])
        await pump.reaches(newest)
        await again.kill()
        code, output = await operator.recover(backup, "depot")
        assert code > 0
        assert "no group 'depot'" in output
        done = await operator.recovers(backup, group)
        assert newest - 3 == done["before"]
        assert (newest, newest + MARGIN, 1) == (done["broker"], done["epoch"], done["welcomed"])
    async with cluster(backup, mosquitto.url, 1) as servers:
        (server,) = servers.servers
        await server.leads(group)
        await pump.reaches(newest + MARGIN)
        assert newest + MARGIN + 1 == await server.call(group, "rotate")
        await pump.reaches(newest + MARGIN + 1)
        await pump.close()


async def test_a_paused_leader_commits_nothing_afterwards(
    database: str, mosquitto: MqttBroker, operator: Operator, group: str
) -> None:
    """Its lease has to end before the group is recovered; when it wakes up it stores nothing that it was about to."""
    async with witnessed(group, mosquitto.url), cluster(database, mosquitto.url, 1) as servers:
        (server,) = servers.servers
        await server.call(group, "create", beacon_interval=1)
        await server.leads(group)
        descriptor = await servers.invite(server, group)
        pump, thief = [await join(descriptor, name) for name in ("pump", "thief")]
        before = await server.call(group, "show")
        asked = asyncio.create_task(server.call(group, "evict", member="thief", urgent=False))  # commits in 0.2 s
        await asyncio.sleep(0.05)  # on its way, and not due
        server.signal(signal.SIGSTOP)
        done = await operator.recovers(database, group, "--force")
        assert (before, before + MARGIN, 2) == (done["before"], done["epoch"], done["welcomed"])
        server.signal(signal.SIGCONT)
        with pytest.raises(StoreError, match=r"led by another server|lease has run out"):
            await asked
        await server.yields(group)
        await server.leads(group)
        await pump.reaches(before + MARGIN)
        assert before + MARGIN + 1 == await server.call(group, "evict", member="thief")
        await thief.expect(Evicted)
        await pump.reaches(before + MARGIN + 1)
        await pump.close()
        await thief.close()

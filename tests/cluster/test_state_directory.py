"""Two servers that share a database, and by mistake the state directory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Final

from brokerkm.api import RemoteAdmin
from brokerkm.api.connection import Local

if TYPE_CHECKING:
    from pathlib import Path

    from brokers.mqtt import MqttBroker

PATIENCE: Final = 30.0  # seconds
_CONFIGURATION: Final = """
[server]
state = "{home}/state"
[store]
url = "{database}"
key = "file:{home}/store.key"
[broker]
url = "{broker}"
"""


def end(process: asyncio.subprocess.Process) -> None:
    """End a process, if it still runs."""
    if process.returncode is None:
        process.kill()


async def test_a_second_server_in_the_same_directory_is_refused(
    tmp_path: Path, database: str, mosquitto: MqttBroker
) -> None:
    """It names the first, whose control socket stays its own; after a crash of that one the directory is free."""
    login, _, place = database.removeprefix("postgresql://").partition("@")
    user, _, password = login.partition(":")
    file = tmp_path / "brokerkm.toml"
    file.write_text(_CONFIGURATION.format(home=tmp_path, database=f"postgresql://{user}@{place}", broker=mosquitto.url))
    (tmp_path / "store.key").write_bytes(bytes(32))
    (tmp_path / "store.key").chmod(0o600)
    environment = {**os.environ, "BROKERKM_STORE_PASSWORD": "env:DATABASE_PASSWORD", "DATABASE_PASSWORD": password}

    async def serve() -> asyncio.subprocess.Process:
        command = ("-m", "brokerkm", "serve", "--config", str(file), "--json")
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(sys.executable, *command, stdout=pipe, stderr=pipe, env=environment)

    async def starts(process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert json.loads(await process.stdout.readline())

    async with asyncio.timeout(PATIENCE), contextlib.AsyncExitStack() as stack:
        first = await serve()
        stack.callback(end, first)
        await starts(first)
        second = await serve()
        stack.callback(end, second)
        _, errors = await second.communicate()
        assert second.returncode
        assert f"state directory {tmp_path}/state is in use by a key server, process {first.pid}" in errors.decode()
        admin = await RemoteAdmin.reach(Local(tmp_path / "state/control.sock"))
        assert 1 == len(await admin.servers())
        await admin.close()
        first.kill()
        await first.communicate()
        third = await serve()
        stack.callback(end, third)
        await starts(third)
        third.terminate()
        await third.communicate()
        assert 0 == third.returncode

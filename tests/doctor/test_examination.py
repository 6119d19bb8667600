"""The whole examination, by the command: references, the running server, and which broker is looked at."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from brokers.process import free_port

from brokerkm.api import ApiServer
from brokerkm.config import Configuration, load
from brokerkm.doctor import Finding, Level, examine
from brokerkm.service import KeyServer
from brokerkm.service.local import CONTROL_SOCKET
from brokerkm.store import SqliteStore
from brokerkm.transport import Options, Role

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Give a state directory."""
    directory = tmp_path / "s"
    directory.mkdir(mode=0o700)
    return directory


def configured(tmp_path: Path, text: str) -> Configuration:
    """Return the configuration that a file with this text is."""
    file = tmp_path / "brokerkm.toml"
    file.write_text(text)
    return load(file, {})


async def examined(configuration: Configuration, state: Path) -> dict[str, list[Finding]]:
    """Return all findings by check."""
    found: dict[str, list[Finding]] = {}
    async for finding in examine(configuration, state, Options(role=Role.SERVER, timeout=5)):
        found.setdefault(finding.check, []).append(finding)
    return found


@contextlib.asynccontextmanager
async def serving(state: Path) -> AsyncGenerator[KeyServer]:
    """Run a server without a broker, so that what it has to say waits."""
    with contextlib.closing(SqliteStore(state / "brokerkm.sqlite")) as store:
        async with KeyServer(store, interval=0) as server, ApiServer(server, state / CONTROL_SOCKET):
            yield server


async def test_a_first_day_without_anything_is_well(state: Path, tmp_path: Path) -> None:
    """There is no server, no store and no broker yet, and none of that is wrong."""
    found = await examined(configured(tmp_path, ""), state)
    for check in ("configuration", "state", "disk", "store", "server", "broker"):
        assert [Level.OK] == [finding.level for finding in found[check]], check
    assert "no server runs" in found["server"][0].text
    assert "brings its own" in found["broker"][0].text
    assert "store key" not in found


async def test_what_is_referred_to_and_not_there_is_a_failure(state: Path, tmp_path: Path) -> None:
    """Each file and secret by the name of its setting; the key once more, with what that means."""
    text = f'[store]\nkey = "file:{tmp_path}/absent.key"\n[broker]\nurl = "mqtt://127.0.0.1:{free_port()}"\n'
    found = await examined(configured(tmp_path, text + f'ca_file = "{tmp_path}/ca.pem"\n'), state)
    texts = [finding.text for finding in found["configuration"]]
    assert {Level.FAIL} == {finding.level for finding in found["configuration"]}
    assert ["store.key", "broker.ca_file"] == [name for name in ("store.key", "broker.ca_file") if name in str(texts)]
    assert (Level.FAIL, Level.FAIL) == (found["store key"][0].level, found["broker"][0].level)


async def test_a_running_server_is_asked(state: Path, tmp_path: Path) -> None:
    """It answers; what waits for the broker is a doubt; a socket for everybody is a failure."""
    async with serving(state) as server:
        found = await examined(configured(tmp_path, ""), state)
        assert [Level.OK] == [finding.level for finding in found["server"]]
        await server.admin.create_group("plant")
        (state / CONTROL_SOCKET).chmod(0o666)
        found = await examined(configured(tmp_path, ""), state)
    assert [Level.FAIL, Level.OK, Level.WARN] == [finding.level for finding in found["server"]]
    open_, answers, waits = found["server"]
    assert ("chmod 600" in open_.advice, "1 group" in answers.text, "plant" in waits.text) == (True, True, True)


async def test_a_socket_that_nobody_answers_on_is_a_doubt(state: Path, tmp_path: Path) -> None:
    """A server that was killed leaves it."""
    (state / CONTROL_SOCKET).touch(0o600)
    (finding,) = (await examined(configured(tmp_path, ""), state))["server"]
    assert (Level.WARN, True) == (finding.level, "no server answers" in finding.text)


async def test_the_hub_of_a_running_server_is_left_alone(state: Path, tmp_path: Path) -> None:
    """A second ZeroMQ hub at the same address would be in its way."""
    async with serving(state):
        found = await examined(configured(tmp_path, '[broker]\nurl = "zmq+tcp://127.0.0.1:1"\n'), state)
    assert (Level.OK, True) == (found["broker"][0].level, "hub itself" in found["broker"][0].text)


async def test_a_database_is_looked_at_in_place_of_a_file(state: Path, tmp_path: Path, database: str) -> None:
    """With the password that the configuration refers to; one that cannot be read is a failure."""
    login, _, place = database.removeprefix("postgresql://").partition("@")
    user, _, password = login.partition(":")
    (tmp_path / "password").write_text(password)
    (tmp_path / "password").chmod(0o600)
    (tmp_path / "key").write_bytes(bytes(32))
    (tmp_path / "key").chmod(0o600)
    text = f'[store]\nurl = "postgresql://{user}@{place}"\nkey = "file:{tmp_path}/key"\npassword = "file:{tmp_path}/'
    found = await examined(configured(tmp_path, f'{text}password"\n'), state)
    for check in ("store", "durability", "store key"):
        assert [Level.OK] == [finding.level for finding in found[check]], check
    assert "PostgreSQL" in found["store"][0].text
    found = await examined(configured(tmp_path, f'{text}absent"\n'), state)
    assert (Level.FAIL, True) == (found["store"][0].level, "absent" in found["store"][0].text)
    assert password not in json.dumps([finding.text for findings in found.values() for finding in findings])

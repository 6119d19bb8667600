"""Credentials that systemd gives to the unit alone: what is said where they are not, and how to run it there."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from brokerkm.cli.program import program
from brokerkm.unit import run_in_unit

if TYPE_CHECKING:
    from click.testing import Result

UNITS = Path(__file__).parents[2] / "deploy/systemd"
_TEXT = """
[store]
key = "credential:store-key"
[broker]
url = "mqtt://127.0.0.1:1"
username = "keyserver"
password = "credential:broker"
"""


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Be a process that systemd has given nothing, on a machine without the unit, in a directory of its own."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("SYSTEMD_UNIT_PATH", str(tmp_path))
    monkeypatch.setenv("BROKERKM_SERVER_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    Path("brokerkm.toml").write_text(_TEXT)


def call(*arguments: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(program, arguments, prog_name="brokerkm")


def test_the_command_has_what_the_unit_that_we_ship_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """User, state directory, every credential, the configuration, and the program that it starts."""
    monkeypatch.setenv("SYSTEMD_UNIT_PATH", f"/nowhere:{UNITS}")
    monkeypatch.setenv("BROKERKM_CONFIG", "/etc/brokerkm/my own.toml")
    assert [
        *("systemd-run", "--quiet", "--wait", "--pipe"),
        *("-p", "User=brokerkm", "-p", "Group=brokerkm", "-p", "StateDirectory=brokerkm"),
        *("-p", "LoadCredential=store-key:/etc/brokerkm/store.key"),
        *("-p", "LoadCredential=broker-password:/etc/brokerkm/broker-password"),
        *("-E", "BROKERKM_CONFIG=/etc/brokerkm/my own.toml"),
        "/opt/brokerkm/bin/brokerkm",
    ] == shlex.split(run_in_unit("store-key"))


def test_without_a_unit_the_names_are_in_it() -> None:
    """Where the files are the operator knows."""
    assert "-p LoadCredential=a:FILE -p LoadCredential=b:FILE brokerkm" in run_in_unit("a", "b")


def test_a_configuration_with_credentials_is_right_outside_of_the_unit() -> None:
    """It says what it has not looked at, and how to have that looked at; wrong references stay wrong."""
    result = call("config", "check", "brokerkm.toml")
    assert (0, "brokerkm.toml: ok\n") == (result.exit_code, result.stdout)
    for words in (
        "store.key, broker.password: not looked at",
        "LoadCredential=store-key:FILE",
        "config check brokerkm",
    ):
        assert words in result.stderr
    shown = json.loads(call("config", "check", "brokerkm.toml", "--json").stdout)
    assert (True, [], ["store.key", "broker.password"]) == (shown["ok"], shown["problems"], shown["unchecked"])
    with Path("brokerkm.toml").open("a") as more:
        more.write('ca_file = "/absent.pem"\n')
    assert (1, True) == ((result := call("config", "check", "brokerkm.toml")).exit_code, "absent" in result.stderr)


def test_inside_of_the_unit_they_are_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A credential that the unit does not have is a problem there."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    Path("store-key").write_bytes(bytes(32))
    result = call("config", "check", "brokerkm.toml")
    assert (1, True) == (result.exit_code, "add LoadCredential=broker:PATH to the unit" in result.stderr)
    Path("broker").write_text("secret")
    assert 0 == call("config", "check", "brokerkm.toml").exit_code


def test_the_doctor_doubts_what_it_cannot_see_and_asserts_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No failure of key or broker, but one doubt that says how to look at them; inside, both are looked at."""
    found = findings()
    assert {"store key", "broker"}.isdisjoint(found)
    assert "warn" == found["credentials"]["level"]
    assert found["credentials"]["text"].endswith("is not looked at here: the store key, the broker")
    assert found["credentials"]["advice"].endswith("brokerkm doctor --config brokerkm.toml")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    Path("store-key").write_bytes(bytes(32))
    Path("store-key").chmod(0o400)
    Path("broker").write_text("secret")
    found = findings()
    assert "credentials" not in found
    assert ("ok", "fail") == (found["store key"]["level"], found["broker"]["level"])  # nothing listens there
    assert "127.0.0.1:1" in found["broker"]["text"]


def findings() -> dict[str, dict[str, str]]:
    """Return what the doctor finds, by check."""
    lines = call("doctor", "--config", "brokerkm.toml", "--json").stdout.splitlines()
    return {found["check"]: found for found in map(json.loads, lines)}


@pytest.mark.parametrize("command", ["group list", "group recover --force", "store verify"])
def test_a_command_that_needs_the_key_says_where_it_is(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """With the line that runs it."""
    assert 0 == call("group", "create", "plant").exit_code
    monkeypatch.setenv("BROKERKM_CONFIG", "brokerkm.toml")
    monkeypatch.setenv("BROKERKM_BROKER_PASSWORD", "env:PASSWORD")
    monkeypatch.setenv("PASSWORD", "x")
    result = call(*command.split())
    assert (1, True) == (result.exit_code, "systemd-run --quiet --wait --pipe -p User=brokerkm" in result.stderr)
    assert "LoadCredential=store-key:FILE" in result.stderr

"""Commands where no key server runs: they say so, work on the store that is there, and never make one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from brokerkm.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    Call = Callable[..., Result]

STATE = Path("s/brokerkm-server")
OTHER = 65_534  # uid; nobody's


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a directory belong to another user than this one."""
    if os.geteuid() == 0:
        os.chown(path, OTHER, OTHER)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: OTHER)


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "server list",
        "group list",
        "group show plant",
        "group rotate",
        "group recover plant --broker mqtt://127.0.0.1:1",
        "member list",
        "member evict pump",
        "invite",
        "credential create ops --role admin",
        "token list",
        "audit verify",
        "rule list",
        "admission show",
        "store show",
        "store verify",
        "store backup copy",
        "store rewrap --key file:/etc/brokerkm/new.key",
    ],
)
def test_no_store_is_made(call: Call, command: str) -> None:
    """Neither a store nor a key appears; the directory that was looked at is named, and how to name another."""
    STATE.mkdir(parents=True)
    result = call(*command.split())
    assert 2 == result.exit_code, result.output
    for words in (f"no store {STATE.absolute()}/brokerkm.sqlite", "$BROKERKM_SERVER_STATE", "$BROKERKM_CONFIG"):
        assert words in result.stderr
    assert ("no server answers" in result.stderr) is ("recover" not in command)
    assert [] == [*STATE.iterdir()]


def test_a_directory_that_is_not_there_is_not_made(call: Call) -> None:
    """A mistyped name stays one."""
    assert 2 == call("status", "--state", "typo").exit_code
    assert not Path("typo").exists()


def test_a_group_may_be_the_first(call: Call) -> None:
    """Creating one makes the store; then its state is shown, with the remark that no server runs."""
    assert 0 == call("group", "create", "plant").exit_code
    shown = call("status")
    assert (0, True) == (shown.exit_code, "no server runs on" in shown.output)
    assert "plant" in shown.output
    assert json.loads(call("status", "--json").output)["running"] is False
    listed = call("server", "list")
    assert (0, True) == (listed.exit_code, "no server runs on" in listed.output), listed.output
    assert "" == call("server", "list", "--json").output


@pytest.mark.parametrize(
    "command", [("group", "create", "plant"), ("serve", "--port", "0"), ("store", "key", "new", "file:k")]
)
def test_nothing_is_made_in_the_directory_of_another_user(
    call: Call, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """What root makes there the service could not open; it is told as whom to do it."""
    STATE.mkdir(parents=True)
    give_away(STATE, monkeypatch)
    result = call(*command)
    assert (2, True) == (result.exit_code, "runuser -u" in result.stderr), result.output
    assert [] == [*STATE.iterdir()]


def test_the_store_is_where_the_configuration_says(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands open the same file as the server, and no other one."""
    place = Path("elsewhere").absolute()
    place.mkdir(mode=0o700)
    Path("brokerkm.toml").write_text(f'[store]\nurl = "sqlite:///{place}/keys.sqlite"\n')
    monkeypatch.setenv("BROKERKM_CONFIG", "brokerkm.toml")
    missing = call("group", "list")
    assert (2, True) == (missing.exit_code, f"no store {place}/keys.sqlite" in missing.stderr)
    assert 0 == call("group", "create", "plant").exit_code
    assert "plant" in call("group", "list").output
    assert {"keys.sqlite", "store.key"} == {path.name for path in place.iterdir()}
    assert not STATE.exists()


def test_a_store_without_a_key_stays_without(call: Call) -> None:
    """One that nothing is sealed in yet is the server's to begin."""
    STATE.mkdir(parents=True)
    with pytest.raises(BaseException, match="stopped"):
        SqliteStore(STATE / "brokerkm.sqlite", _stop)
    result = call("group", "list")
    assert (1, True) == (result.exit_code, "has no key yet" in result.stderr), result.output
    assert ["brokerkm.sqlite"] == [path.name for path in STATE.iterdir()]


def _stop() -> bytes:
    message = "stopped"
    raise RuntimeError(message)

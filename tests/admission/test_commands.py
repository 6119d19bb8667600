"""`brokerkm admission` and what `brokerkm invite` shows, over a store that no server has open."""

from __future__ import annotations

import builtins
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from brokerkm.cli.program import program
from brokerkm.descriptor import Descriptor
from brokerkm.errors import UsageError
from brokerkm.store import Change, MemberRecord, SqliteStore, Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Return a function that runs a command in a directory with the group `plant`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROKERKM_SERVER_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("brokerkm.cli.program.forbid_core_dumps", lambda: None)

    def run(*arguments: str, text: str | None = None, status: int = 0) -> Result:
        found = CliRunner().invoke(program, arguments, input=text)
        assert status == found.exit_code, found.output
        return found

    run("group", "create", "plant")
    return run


def test_a_policy_by_commands(call: Call, tmp_path: Path) -> None:
    """What `show` prints `set` takes, from a file or from standard input."""
    assert "allow" == json.loads(call("admission", "show").stdout)["default"]
    told = call("admission", "set", "-", text='{"rules": [{"action": "deny"}], "default": "approve"}').stdout
    assert told.startswith("group plant: 1 rules, then approve")
    shown = call("admission", "show").stdout
    (tmp_path / "policy.json").write_text(shown)
    call("admission", "set", "policy.json")
    assert shown == call("admission", "show").stdout


@pytest.mark.parametrize(
    ("argument", "text", "told"),
    [
        ("-", '{"default": "no"}', "default has to be one of allow, deny, approve"),
        ("none.json", None, "none.json: No such file"),
        ("-", '{"certificates": {"authorities": "/none.pem"}}', "/none.pem: No such file"),
    ],
)
def test_a_policy_that_is_wrong(call: Call, argument: str, text: str | None, told: str) -> None:
    """It is said, and the old one stays."""
    assert told in call("admission", "set", argument, text=text, status=2).stderr
    assert "allow" == json.loads(call("admission", "show").stdout)["default"]


def test_those_who_wait(call: Call, tmp_path: Path) -> None:
    """They are listed, let in, turned away; the others' quarantine is lifted, their ids are freed."""
    assert "nobody waits\n" == call("admission", "pending").stdout
    store = SqliteStore(tmp_path / "state" / "brokerkm.sqlite")
    waiting = [MemberRecord(name, Status.PENDING, name.encode() * 32, None, b"k" * 32, b"n" * 16) for name in "ab"]
    blocked = MemberRecord("c", Status.LISTED, b"c" * 32, blocked_until=1 << 50)
    store.write("plant", Change(members=[*waiting, blocked]))
    store.close()
    assert ["a", "b"] == [line.split()[0] for line in call("admission", "pending").stdout.splitlines()[1:]]
    assert {"a", "b"} == {
        json.loads(line)["member"] for line in call("admission", "pending", "--json").stdout.splitlines()
    }
    assert "b is turned away\n" == call("admission", "reject", "b").stdout
    assert "a is let in with the next commit\n" == call("admission", "approve", "a").stdout
    assert "'b' does not wait to be admitted" in call("admission", "approve", "b", status=2).stderr
    assert "c is out of quarantine\n" == call("admission", "lift", "c").stdout
    assert "c is free for another device\n" == call("admission", "release", "c").stdout
    store = SqliteStore(tmp_path / "state" / "brokerkm.sqlite")
    found = {record.member: (record.status, record.identity) for record in store.members("plant")}
    store.close()
    assert (Status.EVICTED, Status.LISTED, b"") == (found["b"][0], *found["c"])


def test_invitation_shown(call: Call) -> None:
    """The text to paste says what the file says, and a code is drawn; the token keeps pattern and note."""
    told = call("invite", "--broker", "mqtt://h", "--pattern", "pump-*", "--note", "hall 7", "--qr").stdout
    line = re.search(r"^bkd1_\S+$", told, re.MULTILINE)
    assert line is not None
    assert Descriptor.read("plant.join") == Descriptor.parse(line[0] + "\n")
    assert "\u2588\u2588\u2588\u2588" in told
    assert "brokerkm join - --member NAME" in told


def test_invitation_not_shown(call: Call) -> None:
    """Not to a pipe, unless it is asked for."""
    assert "bkd1_" not in call("invite", "--broker", "mqtt://h").stdout


def test_invitation_without_the_library(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asked for a code is told what is missing, before a token is made."""
    real = builtins.__import__

    def fail(name: str, *rest: Any, **named: Any) -> Any:  # noqa: ANN401 - as the real one
        if name == "segno":
            raise ImportError
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", fail)
    assert "pip install 'brokerkm[server]'" in call("invite", "--broker", "mqtt://h", "--qr", status=2).stderr


@pytest.mark.parametrize("text", ["bkd1_", "bkd1_abc def", "bkd1_\u00e4", "bkd1_AAAAA", "bkd1_e30"])
def test_a_line_that_is_cut_off(text: str) -> None:
    """It is refused, and not repeated."""
    with pytest.raises(UsageError) as caught:
        Descriptor.parse(text)
    assert text[5:] not in str(caught.value) or not text[5:]

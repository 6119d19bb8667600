"""Files that are not what they should be: each is refused with its name and a reason, and nothing is lost."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokerkm.cli.program import program
from brokerkm.store import SqliteStore

if TYPE_CHECKING:
    from click.testing import Result

STATE = Path("state/brokerkm-server")
NOISE = {
    "empty": b"",
    "binary": bytes(range(256)) * 16,
    "latin": b"caf\xe9 = 1\n",
    "zeros": bytes(4096),
    "deep": b"[" * 20_000,
    "long": b"a" * 3_000_000,
    "html": b"<!DOCTYPE html><title>404</title>",
}

BOUNDED = settings(
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # one store for all examples
)


def call(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(program, arguments, prog_name="brokerkm")


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Make a store with a group in a fresh directory, and noise; return what the store holds."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    assert 0 == call("group", "create", "plant").exit_code
    for name, content in NOISE.items():
        Path(name).write_bytes(content)
    return (STATE / "brokerkm.sqlite").read_bytes()


@pytest.mark.parametrize("name", [*NOISE, "absent"])
@pytest.mark.parametrize(
    "command",
    [
        ("serve", "--broker", "mqtt://127.0.0.1:1", "--config"),
        ("config", "check"),
        ("join", "-i", "pump"),
        ("store", "verify"),
        ("store", "restore", "--force"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_noise_is_refused(site: bytes, command: tuple[str, ...], name: str) -> None:
    """A sentence that names the file, never a traceback; the store is what it was."""
    if name == "empty" and command[0] in ("serve", "config"):
        return  # an empty configuration says nothing wrong
    result = call(*command, name)
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.strip()
    assert len(result.stderr) < 2000
    assert site == (STATE / "brokerkm.sqlite").read_bytes()
    assert "plant" in call("group", "list").output


@pytest.mark.parametrize("name", [*NOISE, "absent"])
def test_noise_is_no_store_key(site: bytes, name: str) -> None:
    """A store is neither opened nor rewrapped with it."""
    Path(name).touch(0o600)
    Path(name).chmod(0o600)
    result = call("store", "rewrap", "--key", f"file:{Path(name).absolute()}")
    assert (1, True) == (result.exit_code, name in result.stderr), result.output
    (STATE / "store.key").rename("kept")
    Path(name).rename(STATE / "store.key")
    assert 1 == call("group", "list").exit_code
    Path("kept").rename(STATE / "store.key")
    assert "plant" in call("group", "list").output


@pytest.mark.parametrize("name", NOISE)
def test_noise_is_no_store(name: str) -> None:
    """A file that is no store is left alone, whatever it is; an empty one is as good as none."""
    Path(name).chmod(0o600)
    Path(name).rename(STATE / "brokerkm.sqlite")
    result = call("group", "list")
    if name == "empty":
        assert (2, True) == (result.exit_code, "there is no store" in result.stderr), result.output
    else:
        assert 1 == result.exit_code, result.output
    assert "brokerkm.sqlite" in result.stderr
    assert NOISE[name] == (STATE / "brokerkm.sqlite").read_bytes()


def test_two_processes_do_not_share_a_file() -> None:
    """The second one is told who has it."""
    with closing(SqliteStore(STATE / "brokerkm.sqlite")):
        result = call("group", "list")
    assert (1, True) == (result.exit_code, "another process has it open" in result.stderr), result.output


@BOUNDED
@given(content=st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
@pytest.mark.parametrize("name", ["noise.csv", "noise.jsonl"])
def test_noise_is_no_list_of_members(site: bytes, name: str, content: bytes) -> None:
    """An import takes all or refuses with the file's name; never a traceback, and the group is still there."""
    assert site
    head = b"member,identity\n" if name.endswith("csv") else b'{"member": "m", "identity": '
    Path(name).write_bytes(head + content)
    result = call("member", "import", "--group", "plant", name)
    assert result.exit_code in (0, 1), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert 0 == result.exit_code or result.stderr.strip()
    assert "plant" in call("group", "list").output

"""`brokerkm broker passwords`: what devices log in with at a broker that has to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from brokerkm.cli.program import program
from brokerkm.core.login import Principal
from brokerkm.guard.passwords import Passwords

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "the password of the key server"


def run(home: Path, *arguments: str) -> Result:
    """Run a command on a machine without a server."""
    return CliRunner().invoke(program, arguments, env={"XDG_STATE_HOME": str(home), "HOME": str(home)})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a machine with a group of two listed members and one evicted, and a configuration."""
    (tmp_path / "password").write_text(f"{SECRET}\n")
    (tmp_path / "password").chmod(0o600)
    (tmp_path / "brokerkm.toml").write_text(
        f'[broker]\nurl = "mqtt://127.0.0.1"\nusername = "keyserver"\npassword = "file:{tmp_path}/password"\n'
    )
    assert run(tmp_path, "group", "create", "plant").exit_code == 0
    for member, key in (("pump-7", "11"), ("pump-8", "22"), ("pump-9", "33")):
        added = run(tmp_path, "member", "add", member, key * 32)
        assert added.exit_code == 0, added.output
    assert run(tmp_path, "member", "evict", "pump-9").exit_code == 0
    return tmp_path


def test_passwords_are_printed_for_all_or_for_some(home: Path) -> None:
    """They are those that the guard sets."""
    configuration = ("--config", str(home / "brokerkm.toml"))
    derived = Passwords(SECRET)
    lines = [f"plant:{member},{derived.of(Principal('plant', member))}" for member in ("pump-7", "pump-8")]
    assert ["username,password", *lines] == run(home, "broker", "passwords", *configuration).output.splitlines()
    one = run(home, "broker", "passwords", "pump-8", *configuration)
    assert ["username,password", lines[1]] == one.output.splitlines()
    assert run(home, "broker", "passwords", "nobody", *configuration).exit_code != 0


def test_without_a_password_of_the_key_server_there_are_none(home: Path) -> None:
    """The message says what to name."""
    result = run(home, "broker", "passwords")
    assert result.exit_code == 2
    assert "--config" in result.output

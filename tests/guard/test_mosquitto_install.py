"""`brokerkm broker install mosquitto`: what it writes is what `deploy/` shows, and what a real Mosquitto runs with."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from brokers.mosquitto import READY
from brokers.process import Process, free_port, require
from click.testing import CliRunner, Result

from brokerkm.cli.program import program
from brokerkm.errors import TransportError
from brokerkm.transport import Options, Outgoing, Role, create
from brokerkm_mosquitto import passwd

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy/mosquitto"
CONFIGURATION = "etc/mosquitto/conf.d/brokerkm.conf"
PASSWORD = "etc/brokerkm/broker-password"
LEVELS = ("acl", "dynsec", "plugin")


@pytest.fixture
def root() -> Iterator[Path]:
    """Make a directory that stands for a machine, where Mosquitto, which becomes another user, may look."""
    with tempfile.TemporaryDirectory(prefix="brokerkm-root-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def install(root: Path, *arguments: str) -> Result:
    """Run the command on a machine."""
    command = ["broker", "install", "mosquitto", "--root", str(root), *arguments]
    return CliRunner().invoke(program, command)


def contents(root: Path) -> dict[str, str]:
    """Return all files but the plugin."""
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".so")
    return {str(path.relative_to(root)): path.read_text() for path in files}


@pytest.mark.parametrize("level", LEVELS)
def test_a_dry_run_prints_everything_and_writes_nothing(root: Path, level: str) -> None:
    """But for what is secret."""
    result = install(root, "--level", level, "--dry-run")
    assert result.exit_code == 0, result.output
    shown = (DEPLOY / {"acl": "brokerkm.conf"}.get(level, f"{level}.conf")).read_text()
    assert shown in result.output
    assert "$7$" not in result.output
    assert not contents(root)


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_installed_is_left_alone_by_the_next_run(root: Path, level: str) -> None:
    """And nobody but Mosquitto may read what is secret."""
    if level == "plugin":
        require("gcc", "gcc libc6-dev libssl-dev")
    port = free_port()
    result = install(root, "--level", level, "--port", str(port))
    assert result.exit_code == 0, result.output
    before = contents(root)
    assert install(root, "--level", level, "--port", str(port)).exit_code == 0
    assert before == contents(root)
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) & 0o007 for name in before}
    assert [CONFIGURATION] == [name for name, others in modes.items() if others]


@contextlib.contextmanager
def running(root: Path) -> Iterator[None]:
    """Run Mosquitto with what was installed, its paths moved below the directory."""
    text = (root / CONFIGURATION).read_text()
    for moved in (" /etc/", " /var/", " /usr/local/"):
        text = text.replace(moved, f" {root}{moved.strip()}")
    configuration = root / "moved.conf"
    configuration.write_text(f"{text}\nlog_dest stderr\n")
    if os.geteuid() == 0:
        for path in (root / "var/lib/mosquitto", root):
            if path.exists():
                shutil.chown(path, "mosquitto")
    process = Process([require("mosquitto", "mosquitto"), "-c", str(configuration)], READY, root)
    process.start()
    try:
        yield
    finally:
        process.stop()


@pytest.mark.parametrize("level", LEVELS)
async def test_only_the_key_server_gets_in_at_first(root: Path, level: str) -> None:
    """By the password in the file that the unit loads."""
    port = free_port()
    assert install(root, "--level", level, "--port", str(port), "--keyserver", "ks").exit_code == 0
    secret = (root / PASSWORD).read_text().strip()
    with running(root):
        for name, given in (("ks", "wrong"), ("keyserver", secret), (None, None)):
            client = create(f"mqtt://127.0.0.1:{port}", Options(username=name, password=given))
            with pytest.raises(TransportError):
                await client.open()
            await client.close()
        client = create(f"mqtt://127.0.0.1:{port}", Options(role=Role.SERVER, username="ks", password=secret))
        await client.open()
        await client.subscribe(["bkm/1/plant/r/+"])
        await client.publish(Outgoing("bkm/1/plant/b", b"x"))
        await client.close()


def test_what_somebody_else_wrote_is_not_replaced(root: Path) -> None:
    """Unless it is asked for, and then it is kept beside; nothing is half done."""
    foreign = root / "etc/mosquitto/brokerkm.acl"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("topic read #\n")
    result = install(root)
    assert (result.exit_code, ["etc/mosquitto/brokerkm.acl"]) == (2, list(contents(root)))
    assert "is there already and holds something else; nothing was changed" in result.output
    assert install(root, "--force").exit_code == 0
    assert (DEPLOY / "brokerkm.acl").read_text() == foreign.read_text()
    assert foreign.with_name("brokerkm.acl.old").read_text() == "topic read #\n"


def test_a_password_file_of_others_is_not_touched(root: Path) -> None:
    """It has to know the key server first, by the right password."""
    users = root / "etc/mosquitto/brokerkm.passwd"
    users.parent.mkdir(parents=True)
    users.write_text(passwd.line("somebody", "else"))
    result = install(root)
    assert result.exit_code == 2
    assert "has no user keyserver" in result.output
    users.write_text(passwd.line("keyserver", "other"))
    assert "has another password for keyserver" in install(root).output
    (root / PASSWORD).parent.mkdir()
    (root / PASSWORD).write_text("other\n")
    assert install(root).exit_code == 0


def test_a_setting_that_would_switch_it_off_is_refused(root: Path) -> None:
    """Mosquitto 2.0 disconnects nobody with it, and looks at no rules that were not given for the listener."""
    main = root / "etc/mosquitto/mosquitto.conf"
    main.parent.mkdir(parents=True)
    main.write_text("per_listener_settings true\n")
    result = install(root)
    assert result.exit_code == 2
    assert "remove it" in result.output


def test_names_are_checked(root: Path) -> None:
    """They are written into files whose syntax they could break."""
    assert install(root, "--keyserver", "a b").exit_code == 2
    assert install(root, "--prefix", "bkm/#").exit_code == 2
    assert not contents(root)


def test_hashes_are_those_of_mosquitto(tmp_path: Path) -> None:
    """Its own program's line holds our password."""
    users = tmp_path / "users"
    users.write_text("keyserver:secret\n")
    subprocess.run([require("mosquitto_passwd", "mosquitto"), "-U", str(users)], check=True)
    assert passwd.holds(users.read_text(), "keyserver", "secret") is True
    assert passwd.holds(users.read_text(), "keyserver", "other") is False
    assert passwd.holds(users.read_text(), "somebody", "secret") is None
    assert passwd.holds("keyserver:$6$x$y\n", "keyserver", "secret") is False

"""`brokerkm store restore` to wherever the configuration says that the store is, and what comes after it."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from api.certificates import Authority
from cli.conftest import PATIENCE
from cli.test_no_server import OTHER

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from brokers.mqtt import MqttBroker
    from cli.conftest import Machine
    from click.testing import Result

    Call = Callable[..., Result]

STATE = Path("s/brokerkm-server")


def share(machine: Machine, database: str, broker: str) -> None:
    """Have the machine's commands use a database with the key of its first store, and a broker."""
    login, _, place = database.removeprefix("postgresql://").partition("@")
    user, _, password = login.partition(":")
    file = machine.home / "brokerkm.toml"
    file.write_text(
        f'[store]\nurl = "postgresql://{user}@{place}"\npassword = "env:DATABASE_PASSWORD"\n'
        f'key = "file:{machine.home / STATE}/store.key"\n'
        f'[broker]\nurl = "{broker}"\n[cluster]\nlease = 3\n[server]\nstate = "{machine.home}/not/there"\n'
    )
    machine.environment |= {"DATABASE_PASSWORD": password, "BROKERKM_CONFIG": str(file)}


def test_a_backup_becomes_a_database_that_a_server_goes_on_with(
    machine: Machine, database: str, mosquitto: MqttBroker
) -> None:
    """From a SQLite file to PostgreSQL, by commands alone: restored, recovered, served."""
    machine.run("group", "create", "moved")
    machine.run("group", "rotate")
    machine.run("store", "backup", "copy")
    share(machine, database, mosquitto.url)
    assert "there is no store in this database" in machine.run("group", "recover", status=2)
    done = machine.run("store", "restore", "copy")
    assert f"the store {database.rpartition('/')[2]} at 127.0.0.1" in done
    assert "group recover" in done
    again = machine.run("store", "restore", "copy", "--force", status=2)
    assert "there is a store in this database already" in again
    assert "createdb" in again
    assert "several servers share" in machine.run("group", "list", status=2)
    recovered = machine.ask("group", "recover")
    assert ("moved", 1, 0) == (recovered["group"], recovered["before"], recovered["broker"])
    server = machine.serve("--json")
    server.start()
    try:
        assert recovered["epoch"] == machine.ask("group", "show")["epoch"]
        assert {"whole": True, "findings": []} == machine.ask("store", "verify")
    finally:
        server.stop()


def test_a_restored_group_in_a_database_is_not_led_unproved(
    machine: Machine, database: str, mosquitto: MqttBroker
) -> None:
    """A server leaves it alone while the broker shows nothing of it, and serves the others."""
    machine.run("group", "create", "left")
    machine.run("store", "backup", "copy")
    share(machine, database, mosquitto.url)
    machine.run("store", "restore", "copy", "--json")
    server = machine.serve("--json")
    server.start()
    try:
        end = time.monotonic() + PATIENCE
        while machine.ask("server", "list")["groups"]:  # which it gives back as soon as the broker has not answered
            assert time.monotonic() < end
        machine.run("group", "create", "new")
    finally:
        server.stop()
    assert "name one: left, new" in machine.run("group", "recover", status=2)
    epoch = machine.ask("group", "recover", "left")["epoch"]
    server.start()
    try:
        assert epoch == machine.ask("group", "show", "left")["epoch"]
    finally:
        server.stop()


def test_a_sqlite_file_elsewhere_is_what_is_restored(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its key beside it, and nothing in the state directory."""
    place = Path("elsewhere").absolute()
    Path("brokerkm.toml").write_text(f'[store]\nurl = "sqlite:///{place}/keys.sqlite"\n')
    monkeypatch.setenv("BROKERKM_CONFIG", "brokerkm.toml")
    call("group", "create", "plant")
    assert 0 == call("store", "backup", "copy").exit_code
    call("group", "create", "depot")
    monkeypatch.delenv("BROKERKM_CONFIG")
    done = call("store", "restore", "copy", "--force", "--config", "brokerkm.toml", "--json")
    found = {"store": f"{place}/keys.sqlite", "aside": f"{place}/keys.sqlite.old-1"}
    assert (0, found) == (done.exit_code, json.loads(done.output or "{}")), done.stderr
    assert not STATE.exists()
    shown = json.loads(call("store", "show", "--config", "brokerkm.toml", "--json").output)
    assert (1, (place / "keys.sqlite").stat().st_size) == (shown["groups"], shown["size"])
    assert "the store is whole\n" == call("store", "verify", "--config", "brokerkm.toml").output
    done = call("store", "restore", "copy", "--force", "--config", "brokerkm.toml")
    assert "`brokerkm group recover --config brokerkm.toml`" in done.output


def test_what_is_restored_belongs_to_the_owner_of_the_directory(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Root restores for the service's user, who alone may read it."""
    call("group", "create", "plant")
    call("store", "backup", "copy")
    given: list[tuple[Path, int, int]] = []
    if os.geteuid() == 0:
        os.chown(STATE, OTHER, OTHER)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(os, "chown", lambda path, user, group: given.append((path, user, group)))
    assert 0 == call("store", "restore", "copy", "--force").exit_code
    about = (STATE / "brokerkm.sqlite").stat()
    assert 0o600 == stat.S_IMODE(about.st_mode)
    owner = about.st_uid if os.geteuid() == 0 and not given else given[0][1]
    assert owner == STATE.stat().st_uid
    assert tmp_path.stat().st_uid in (os.getuid(), 0)


def test_the_wrong_key_is_named_and_how_to_name_another(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it came from: the file beside the store, the configuration, the environment, the option."""
    call("group", "create", "plant")
    call("store", "backup", "copy")
    for name in ("one", "two"):
        call("store", "key", "new", f"file:{Path(name).absolute()}")
    kept = (STATE / "store.key").read_bytes()
    (STATE / "store.key").write_bytes(Path("one").read_bytes())
    for arguments, place in (
        (("group", "list"), STATE.absolute() / "store.key"),
        (("store", "verify", "copy"), STATE.absolute() / "store.key"),
        (("store", "verify", "copy", "--key", f"file:{Path('two').absolute()}"), Path("two").absolute()),
    ):
        result = call(*arguments)
        assert (1, True) == (result.exit_code, f"store key file:{place}: " in result.stderr), result.output
        for words in ("not the store key", "$BROKERKM_CONFIG", "$BROKERKM_STORE_KEY"):
            assert words in result.stderr
        assert Path("one").read_text().strip() not in result.stderr
    monkeypatch.setenv("BROKERKM_STORE_KEY", "env:KEY")
    monkeypatch.setenv("KEY", Path("two").read_text())
    result = call("store", "show")
    assert (1, True) == (result.exit_code, "store key env:KEY: " in result.stderr), result.output
    monkeypatch.setenv("KEY", kept.decode())
    assert 0 == call("store", "show").exit_code


def test_the_server_shows_its_listeners_and_commands_that_find_it(machine: Machine) -> None:
    """A state directory that is not the default one is in what it advises, and so is the API for other machines."""
    certificate, key = Authority(machine.home, "ca").issue("server")
    file = machine.home / "brokerkm.toml"
    file.write_text(
        f'[api]\nlisten = "127.0.0.1:0"\ncert_file = "{certificate}"\nkey_file = "{key}"\n'
        f'[broker]\nport = 0\n[server]\nstate = "{machine.home}/mine"\n'
    )
    process = machine.start("serve", "--config", str(file))
    assert process.stdout is not None
    said = ""
    while "member evict" not in said:  # the last line; nothing if it ends
        line = process.stdout.readline()
        assert line, said
        said += line
    process.terminate()
    process.communicate()
    assert f"brokerkm invite --uses 2 --state {machine.home}/mine" in said
    assert re.search(r"api +https://127\.0\.0\.1:[1-9]", said), said

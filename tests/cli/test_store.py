"""`brokerkm store`: on a running server's store, and on one that no server uses."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from brokerkm.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from cli.conftest import Machine
    from click.testing import Result

    Call = Callable[..., Result]

STORE = Path("s/brokerkm-server/brokerkm.sqlite")


def test_live_store_is_copied_checked_and_rewrapped(site: Machine) -> None:
    """The server goes on meanwhile; the backup needs the old key, the store the new one."""
    shown = site.ask("store", "show")
    assert ("sqlite", 1, 2) == (shown["kind"], shown["groups"], shown["members"])
    copied = site.ask("store", "backup", "copy")
    assert (site.home / "copy").stat().st_size == copied["size"]
    assert "copy is whole\n" == site.run("store", "verify", "copy")
    assert "the store is whole\n" == site.run("store", "verify")
    assert "there is a file already" in site.run("store", "backup", "copy", status=2)
    new = f"file:{site.home / 'new.key'}"
    site.run("store", "key", "new", new)
    assert {"key": "file", "deep": True} == site.ask("store", "rewrap", "--key", new, "--deep")
    assert "the store is whole\n" == site.run("store", "verify")
    site.run("group", "rotate")
    site.run("store", "backup", "later")
    assert "later is whole\n" == site.run("store", "verify", "later", "--key", new)
    assert "not the store key" in site.run("store", "verify", "later", status=1)
    assert ["store-backup", "store-rewrap"] == audited(site.home / "later")
    old = f"file:{site.home / STORE.parent / 'store.key'}"
    site.run("store", "rewrap", "--key", old)  # other tests go on with this server


def audited(store: Path) -> list[str]:
    """Return the actions in the server's own audit log, as a copy of the store has it."""
    with closing(sqlite3.connect(store)) as copy:
        entries = [json.loads(text) for (text,) in copy.execute("SELECT entry FROM audit WHERE chain = ''")]
    return [str(entry["action"]) for entry in entries if entry["action"].startswith("store")]


def test_running_server_takes_no_key_from_a_command(site: Machine) -> None:
    """Commands run where somebody types them."""
    said = site.run("store", "rewrap", "--key", "command:cat /etc/passwd", status=2)
    assert "key" in said
    assert "the store is whole\n" == site.run("store", "verify")


def test_restore_replaces_nothing_unasked(call: Call) -> None:
    """A backup becomes the store; what was there is put aside, and nothing is lost by a wrong file."""
    call("group", "create", "plant")
    assert 0 == call("store", "backup", "copy").exit_code
    call("group", "create", "depot")
    refused = call("store", "restore", "copy")
    assert (2, True) == (refused.exit_code, "--force puts it aside" in refused.stderr)
    done = call("store", "restore", "copy", "--force")
    assert (0, True, True) == (done.exit_code, "group recover" in done.output, "old-1" in done.output), done.output
    assert ["plant"] == names(call)
    with closing(SqliteStore(STORE)):
        busy = call("store", "restore", "copy", "--force")
    assert (1, True) == (busy.exit_code, "another process has it open" in busy.stderr)
    assert {"brokerkm.sqlite", "brokerkm.sqlite.old-1", "store.key"} == {path.name for path in STORE.parent.iterdir()}
    again = json.loads(call("store", "restore", "copy", "--force", "--json").output)
    assert again["aside"].endswith("old-2")
    Path(STORE).unlink()
    Path(f"{STORE}.old-1").rename(STORE)
    assert ["depot", "plant"] == names(call)


def names(call: Call) -> list[str]:
    """Return the groups' names."""
    return [json.loads(line)["name"] for line in call("group", "list", "--json").output.splitlines()]


def test_wrong_backup_changes_nothing(call: Call) -> None:
    """No file, no database, another program's, a damaged one, and one without its key: each is said."""
    call("group", "create", "plant")
    call("store", "backup", "copy")
    Path("text").write_text("no backup" * 1000)
    Path("empty").touch()
    damaged = bytearray(Path("copy").read_bytes())
    damaged[8192:12288] = bytes(4096)
    Path("damaged").write_bytes(damaged)
    Path("short").write_bytes(Path("copy").read_bytes()[:20_000])
    with closing(sqlite3.connect("other")) as other:
        other.execute("CREATE TABLE t (x)")
    before = STORE.read_bytes()
    for name in ("absent", "text", "empty", "damaged", "short", "other"):
        for arguments in (("verify", name), ("restore", name, "--force")):
            result = call("store", *arguments)
            assert (1, True) == (result.exit_code, result.stderr.startswith("brokerkm: ")), (arguments, result.output)
    result = call("store", "verify", "copy", "--key", "file:absent")
    assert (1, True) == (result.exit_code, "store.key" in result.stderr or "absent" in result.stderr)
    assert (before, ["plant"]) == (STORE.read_bytes(), names(call))
    assert {STORE.name, "store.key"} == {path.name for path in STORE.parent.iterdir()}


def test_altered_copy_is_found(call: Call) -> None:
    """What is a sound database may still not be what the server wrote."""
    call("group", "create", "plant")
    call("group", "rotate")
    call("store", "backup", "copy")
    with closing(sqlite3.connect("copy")) as copy:
        copy.execute("UPDATE groups SET header = zeroblob(length(header))")
        copy.commit()
    result = call("store", "verify", "copy")
    assert (1, True) == (result.exit_code, "is not whole" in result.stderr), result.output
    result = call("store", "verify", "copy", "--json")
    (finding,) = json.loads(result.stdout)["findings"]
    assert "plant" == finding["group"]
    assert {"whole": True, "findings": []} == json.loads(call("store", "verify", "--json").output)
    result = call("store", "restore", "copy", "--force")
    assert (1, True) == (result.exit_code, "is not whole" in result.stderr)
    assert 0 == call("store", "verify").exit_code


def test_configured_key_is_taken_without_a_server_too(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server is told by its configuration or the environment, the commands are told as well."""
    call("group", "create", "plant")
    new = f"file:{Path('new.key').absolute()}"
    call("store", "key", "new", new)
    assert 0 == call("store", "rewrap", "--key", new).exit_code
    refused = call("group", "list")
    assert (1, True) == (refused.exit_code, "not the store key" in refused.stderr)
    Path("brokerkm.toml").write_text(f'[store]\nkey = "{new}"\n')
    monkeypatch.setenv("BROKERKM_CONFIG", "brokerkm.toml")
    assert ["plant"] == names(call)
    assert 0 == call("store", "backup", "copy").exit_code
    assert "copy is whole\n" == call("store", "verify", "copy").output
    assert 0 == call("store", "restore", "copy", "--force").exit_code
    monkeypatch.delenv("BROKERKM_CONFIG")
    monkeypatch.setenv("BROKERKM_STORE_KEY", new)
    assert ["plant"] == names(call)
    monkeypatch.setenv("BROKERKM_STORE_URL", "postgresql://127.0.0.1:1/x")
    refused = call("group", "list")
    assert (2, True) == (refused.exit_code, "several servers share" in refused.stderr), refused.output


def test_keys_are_made_once(call: Call) -> None:
    """And only where keys can be made."""
    assert {"key": "file"} == json.loads(call("store", "key", "new", "file:k", "--json").output)
    key = Path("s/brokerkm-server/k").read_text()
    for spec in ("file:k", "env:K", "command:true", "credential:k"):
        assert 2 == call("store", "key", "new", spec).exit_code
    assert key == Path("s/brokerkm-server/k").read_text()


def test_key_of_a_file_is_no_key_of_the_store(call: Call) -> None:
    """`--key` without a file would promise a check that is not made."""
    assert (2, True) == ((done := call("store", "verify", "--key", "file:k")).exit_code, "for a FILE" in done.stderr)

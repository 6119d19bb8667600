"""What the doctor finds of the machine and of the store."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
import time
from typing import TYPE_CHECKING

import pytest
from psycopg.sql import SQL, Identifier

from brokerkm.doctor import machine, storage
from brokerkm.doctor.finding import Level
from brokerkm.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from databases.postgresql import Postgres

    from brokerkm.doctor.finding import Finding


def levels(findings: list[Finding]) -> dict[str, Level]:
    """Return the level of each check; the worst of several."""
    order = [Level.OK, Level.WARN, Level.FAIL]
    found: dict[str, Level] = {}
    for finding in findings:
        found[finding.check] = max(finding.level, found.get(finding.check, Level.OK), key=order.index)
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Give a state directory with a store in it, closed."""
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    with contextlib.closing(SqliteStore(directory / "brokerkm.sqlite")):
        pass
    return directory


@pytest.mark.parametrize(("value", "level"), [(0, Level.OK), (5, Level.WARN), (None, Level.WARN)])
def test_the_clock_is_judged_by_what_the_kernel_says(value: int | None, level: Level) -> None:
    """Not synchronized is a doubt, not a failure: containers see it often."""
    assert level is machine.clock(value).level


@pytest.mark.parametrize(
    ("device", "level"),
    [("/swapfile", Level.WARN), ("/dev/sda3", Level.WARN), ("/dev/zram0", Level.OK), ("", Level.OK)],
)
def test_swap_in_clear_is_a_doubt(device: str, level: Level) -> None:
    """Compressed memory and mapped devices are none."""
    row = f"{device} partition 1 0 -2\n" if device else ""
    assert level is machine.swap(f"Filename Type Size Used Priority\n{row}").level


def test_an_old_sqlite_is_a_doubt() -> None:
    """What is here is named; older than what brokerkm is tested with is to be replaced."""
    fine, old = machine.versions((3, 40, 1)), machine.versions((3, 31, 0))
    assert (Level.OK, Level.WARN) == (fine.level, old.level)
    assert "SQLite 3.40.1" in fine.text
    assert "SQLite 3.31.0" in old.text
    for name in ("Python", "brokerkm", "cryptography", "libzmq"):
        assert re.search(rf"\b{name} \d", fine.text), name


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter may have been left out on purpose."""

    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert "pyzmq (not installed)" in machine.versions((3, 40, 1)).text


def test_randomness_that_is_not_ready_is_a_doubt() -> None:
    """The server would wait for it when it starts."""

    def draw(error: OSError | None) -> Callable[[int, int], bytes]:
        def drawn(size: int, _flags: int) -> bytes:
            if error is not None:
                raise error
            return bytes(size)

        return drawn

    found = [machine.entropy(draw(error)) for error in (None, BlockingIOError(), OSError())]
    assert [Level.OK, Level.WARN, Level.WARN] == [finding.level for finding in found]
    assert "would wait" in found[1].text
    assert Level.WARN is machine.entropy(None).level


@pytest.mark.parametrize(
    ("limit", "dumpable", "level"), [(0, 1, Level.OK), (-1, 0, Level.OK), (-1, 1, Level.WARN), (4096, 1, Level.WARN)]
)
def test_a_core_file_would_hold_keys(limit: int, dumpable: int, level: Level) -> None:
    """Either the limit or the program itself has to forbid it."""
    assert level is machine.core_dumps(limit, dumpable).level


def test_every_doubt_comes_with_advice() -> None:
    """And what is well with none."""
    findings = list(machine.look())
    assert {"versions", "clock", "entropy", "core dumps", "swap"} == {finding.check for finding in findings}
    assert all(bool(finding.advice) is (finding.level is not Level.OK) for finding in findings)


def test_a_store_as_we_make_it_is_well(state: Path) -> None:
    """Directory, file, room and key."""
    findings = [*storage.look_at_directory(state), *storage.look_at_file(state / "brokerkm.sqlite")]
    findings.append(storage.look_at_key("file:store.key", state))
    assert {"state": Level.OK, "disk": Level.OK, "store": Level.OK, "store key": Level.OK} == levels(findings)


def test_looking_leaves_no_file_behind(state: Path) -> None:
    """One that root made would keep the server's user from its store."""
    before = sorted(state.iterdir())
    list(storage.look_at_file(state / "brokerkm.sqlite"))
    assert before == sorted(state.iterdir())


def test_a_store_in_use_is_not_disturbed(state: Path) -> None:
    """The server checks it by itself."""
    with contextlib.closing(SqliteStore(state / "brokerkm.sqlite")):
        (finding,) = storage.look_at_file(state / "brokerkm.sqlite")
    assert (Level.OK, True) == (finding.level, "in use" in finding.text)


def test_what_others_may_read_is_a_failure(state: Path) -> None:
    """The directory, the file, the key."""
    state.chmod(0o755)
    (state / "brokerkm.sqlite").chmod(0o644)
    (state / "store.key").chmod(0o644)
    findings = [*storage.look_at_directory(state), *storage.look_at_file(state / "brokerkm.sqlite")]
    findings.append(storage.look_at_key("file:store.key", state))
    found = levels(findings)
    assert (Level.FAIL, Level.FAIL, Level.FAIL) == (found["state"], found["store"], found["store key"])


def test_a_damaged_store_is_a_failure(state: Path) -> None:
    """Whether pages are overwritten or it is another file altogether."""
    path = state / "brokerkm.sqlite"
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * 4096 + data[8192:])
    assert {"store": Level.FAIL} == levels(list(storage.look_at_file(path)))
    path.write_bytes(b"no database" * 1000)
    assert {"store": Level.FAIL} == levels(list(storage.look_at_file(path)))


def test_a_key_that_is_gone_is_a_failure_that_shows_nothing(state: Path) -> None:
    """Without it the store is lost, so that is said."""
    key = (state / "store.key").read_bytes()
    (state / "store.key").write_bytes(b"not a key")
    finding = storage.look_at_key("file:store.key", state)
    assert (Level.FAIL, False) == (finding.level, key.hex() in finding.text or "not a key" in finding.text)
    (state / "store.key").unlink()
    assert Level.FAIL is storage.look_at_key("file:store.key", state).level


def test_a_state_directory_and_a_store_may_have_to_be_made_yet(tmp_path: Path) -> None:
    """That is no trouble."""
    findings = [*storage.look_at_directory(tmp_path / "s"), *storage.look_at_file(tmp_path / "s/brokerkm.sqlite")]
    assert {"state": Level.OK, "store": Level.OK} == levels(findings)
    assert ["the first start makes it" in finding.text for finding in findings] == [True, True]


def test_the_directory_of_another_user_is_a_doubt(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs brokerkm there should be that user."""
    monkeypatch.setattr(os, "geteuid", lambda: state.stat().st_uid + 1)
    finding = next(storage.look_at_directory(state))
    assert (Level.WARN, True) == (finding.level, "belongs to another user" in finding.text)


@pytest.mark.parametrize(("free", "level"), [(1 << 30, Level.OK), (100 << 20, Level.WARN), (1 << 20, Level.FAIL)])
def test_room_is_judged_before_it_ends(state: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: Level) -> None:
    """A full disk stops all changes."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2 << 30, 1 << 30, free))
    assert level is levels(list(storage.look_at_directory(state)))["disk"]


def test_a_database_as_we_test_it_is_well(database: str) -> None:
    """It answers, keeps what it commits, and its clock is this machine's."""
    assert {"store": Level.OK, "durability": Level.OK, "clock": Level.OK} == levels(
        list(storage.look_at_database(database))
    )


def test_a_database_that_may_forget_is_a_failure(postgres: Postgres, database: str) -> None:
    """Members have seen epochs that it loses with the power."""
    with postgres.connect("postgres") as connection:
        name = database.rpartition("/")[2]
        connection.execute(SQL("ALTER DATABASE {} SET synchronous_commit = off").format(Identifier(name)))
    found = {finding.check: finding for finding in storage.look_at_database(database)}
    assert (Level.FAIL, True) == (found["durability"].level, "synchronous_commit off" in found["durability"].text)


def test_a_database_with_another_time_is_a_doubt(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the two clocks is wrong."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 60)
    found = {finding.check: finding for finding in storage.look_at_database(database)}
    assert (Level.WARN, True) == (found["clock"].level, "differ by +60" in found["clock"].text or "+59" in str(found))


def test_a_database_that_does_not_answer_is_a_failure_without_its_password() -> None:
    """The message is libpq's, the login is not in it."""
    (finding,) = storage.look_at_database("postgresql://u:hunter2@127.0.0.1:1/x")
    assert (Level.FAIL, False) == (finding.level, "hunter2" in finding.text)

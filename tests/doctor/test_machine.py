"""What the doctor finds of the machine and of the store."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from brokerkm.doctor import machine, storage
from brokerkm.doctor.finding import Level
from brokerkm.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path

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


def test_a_database_that_does_not_answer_is_a_failure_without_its_password() -> None:
    """The message is libpq's, the login is not in it."""
    (finding,) = storage.look_at_database("postgresql://u:hunter2@127.0.0.1:1/x")
    assert (Level.FAIL, False) == (finding.level, "hunter2" in finding.text)

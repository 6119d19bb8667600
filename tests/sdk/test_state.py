"""The state directory: never torn, never shared, and never used ahead of the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sdk.yard import PATIENCE, Yard, event, take

from brokerkm.core.crypto import Suite
from brokerkm.core.member import Member
from brokerkm.descriptor import Descriptor
from brokerkm.errors import StoreError, UsageError
from brokerkm.sdk.events import Saved, SaveFailed
from brokerkm.sdk.home import identity
from brokerkm.sdk.state import StateDirectory, default_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

VICTIM = str(Path(__file__).with_name("victim.py"))
STATE = "member.state"


@contextlib.contextmanager
def unwritable(directory: Path) -> Iterator[None]:
    """Let nothing be saved in one directory."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            (directory / f"{STATE}.new").mkdir(parents=True)
        except FileExistsError:  # a save is under way in its thread
            assert time.monotonic() < deadline
        else:
            break
    try:
        yield
    finally:
        (directory / f"{STATE}.new").rmdir()


def test_the_usual_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The XDG base directory is used if it is set to an absolute path, and ~/.local/state if not."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert default_directory("plant", "pump") == Path("/var/state/brokerkm/plant/pump")
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", unusable)
        assert default_directory("plant", "pump") == tmp_path / ".local/state/brokerkm/plant/pump"


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    """Directory 0700, file 0600, whatever the umask."""
    directory = StateDirectory(tmp_path / "a" / "b")
    before = os.umask(0)
    try:
        directory.open()
        directory.write(b"secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b" / STATE).stat().st_mode) == 0o600
    assert directory.read() == b"secret"
    directory.close()
    directory.close()


def test_a_place_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    """Who can write to the directory could give the member another one's state."""
    tmp_path.chmod(0o777)
    with pytest.raises(StoreError, match="written by others"):
        StateDirectory(tmp_path).open()


@pytest.mark.parametrize(("group", "member"), [(".", "pump"), ("..", "pump"), ("plant", "."), ("plant", "..")])
def test_ids_that_lead_elsewhere_are_refused(tmp_path: Path, group: str, member: str) -> None:
    """A descriptor that somebody else wrote does not choose the directory that is written to."""
    descriptor = Descriptor(broker="memory://x", group=group, suite=Suite.X25519, server_key=bytes(32))
    with pytest.raises(UsageError, match="cannot name a directory"):
        identity(descriptor, member=member, state_dir=tmp_path / group / member)
    assert [] == list(tmp_path.iterdir())


def test_a_place_that_cannot_be_is_told(tmp_path: Path) -> None:
    """The path and the reason are in the error."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        StateDirectory(tmp_path / "file" / "x").open()
    directory = StateDirectory(tmp_path / "b")
    directory.open()
    (directory.path / STATE).mkdir()
    with pytest.raises(StoreError, match=r"cannot be read: Is a directory"):
        directory.read()
    with pytest.raises(StoreError, match=r"cannot be written: Is a directory"):
        directory.write(b"x")
    directory.close()


async def test_two_processes_cannot_share_a_directory(yard: Yard) -> None:
    """The second is refused and told who holds the directory, also across processes."""
    descriptor = await yard.invite()
    async with yard.connect(descriptor, "pump"):
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
            await yard.connect(descriptor, "pump").__aenter__()
    victim = await asyncio.create_subprocess_exec(
        sys.executable, VICTIM, "hold", str(yard.path / "pump"), stdout=subprocess.PIPE
    )
    assert victim.stdout is not None
    await asyncio.wait_for(victim.stdout.readline(), PATIENCE)
    with pytest.raises(StoreError, match=f"in use by process {victim.pid}"):
        await yard.connect(descriptor, "pump").__aenter__()
    victim.kill()
    await victim.wait()
    await yard.enter(yard.connect(descriptor, "pump"))  # the lock has died with its holder


async def test_damaged_or_foreign_state_is_refused(yard: Yard) -> None:
    """A state that is damaged, or another member's or group's, is told from one that is missing."""
    descriptor = await yard.invite()
    async with yard.connect(descriptor, "pump"):
        pass
    with pytest.raises(UsageError, match="member pump of group plant"):
        await yard.connect(descriptor, "panel", state_dir=yard.path / "pump").__aenter__()
    await yard.server.admin.create_group("other")
    other = await yard.server.admin.invite("other")
    with pytest.raises(UsageError, match="member pump of group plant"):
        await yard.connect(other, "pump").__aenter__()
    forged = type(descriptor)(
        broker=yard.url, group=descriptor.group, suite=descriptor.suite, server_key=bytes(31) + b"\1"
    )
    with pytest.raises(UsageError, match="another server key"):
        await yard.connect(forged, "pump").__aenter__()
    file = yard.path / "pump" / STATE
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StoreError, match="damaged"):
        await yard.connect(descriptor, "pump").__aenter__()


async def test_nothing_happens_under_keys_that_are_not_saved(yard: Yard) -> None:
    """While nothing can be saved the old state stays, nothing is sent or delivered, and all goes on when it can."""
    pump, panel = await yard.join("pump"), await yard.join("panel")
    await yard.join("extra")
    events = pump.events()
    async with pump.messages("a") as messages, panel.messages("a") as far:
        with unwritable(pump.state_dir):
            await yard.server.admin.evict(yard.group, "extra")
            assert "cannot be written" in str((await event(events, SaveFailed)).error)
            await panel.publish("a", b"after")
            with pytest.raises(StoreError, match="sends nothing under keys that are not saved"):
                await pump.publish("a", b"x", timeout=0.2)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(messages), 0.2)
            saved = (yard.path / "pump" / STATE).read_bytes()
            assert Member.load(saved, os.urandom, 0).epoch < panel.epoch
        await event(events, Saved)
        assert [message.payload for message in await take(messages)] == [b"after"]
        await pump.publish("a", b"again")
        assert [message.payload for message in await take(far, 2)] == [b"after", b"again"]


async def test_a_state_that_cannot_be_saved_at_the_end_is_told(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """Leaving the block raises if nothing can be saved, unless another error is on its way."""
    fleet = yard.connect(await yard.invite(), "pump")
    await fleet.__aenter__()
    assert fleet._session is not None
    fleet._session.keeper.has_new_windows = True
    with unwritable(fleet.state_dir), pytest.raises(StoreError, match="cannot be written"):
        await fleet.__aexit__(None, None, None)
    other = yard.connect(await yard.invite(), "panel")
    with unwritable(other.state_dir), pytest.raises(StoreError, match="cannot be written"):
        await other.__aenter__()
    third = yard.connect(await yard.invite(), "third")
    await third.__aenter__()
    assert third._session is not None
    third._session.keeper.has_new_windows = True
    with unwritable(third.state_dir):
        await third.__aexit__(ValueError, ValueError("the one to tell"), None)
    assert [record.levelname for record in caplog.records if record.name == "brokerkm.sdk.fleet"][-1:] == ["WARNING"]


async def test_a_disk_that_is_full_from_the_start_is_told(yard: Yard) -> None:
    """A member that resumes enters only if what it learns can be saved."""
    descriptor = await yard.invite()
    async with yard.connect(descriptor, "pump") as fleet:
        pass
    await yard.join("panel")
    with unwritable(fleet.state_dir), pytest.raises(StoreError, match="not saved"):
        await yard.connect(descriptor, "pump", timeout=0.5).__aenter__()


async def test_what_was_received_is_saved_in_time(yard: Yard) -> None:
    """A member that is started again refuses what it has received before: its windows were saved."""
    descriptor = await yard.invite()
    panel = await yard.join("panel")
    async with yard.connect(descriptor, "pump") as pump, pump.messages("a") as messages:
        await yard.level(pump)
        await panel.publish("a", b"1", retain=True)
        await take(messages)
        session = pump._session
        assert session is not None
        async with asyncio.timeout(PATIENCE):
            while session.keeper.has_new_windows:
                await session.moved.wait()
        snapshot = (yard.path / "pump" / STATE).read_bytes()
    (yard.path / "pump" / STATE).write_bytes(snapshot)  # as if it had been killed then
    again = await yard.enter(yard.connect(descriptor, "pump"))
    async with again.messages("a") as messages:
        await panel.publish("a", b"2")
        assert [message.payload for message in await take(messages)] == [b"2"]
    assert again.refused == {"replay": 1}


def test_a_full_disk_leaves_the_old_state(tmp_path: Path) -> None:
    """A write that ends half way, as on a full disk, raises, cleans up and changes nothing."""
    directory = StateDirectory(tmp_path)
    directory.open()
    directory.write(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))  # the first 500 bytes are written, then an error comes
    try:
        with pytest.raises(StoreError, match="File too large"):
            directory.write(b"new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert directory.read() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", STATE]
    directory.write(b"new")
    assert directory.read() == b"new"
    directory.close()


def test_a_write_is_whole_or_nothing(tmp_path: Path) -> None:
    """A writer that is killed at any instant leaves one of the states that it wrote."""
    chance = random.Random(1)
    for _ in range(15):
        with subprocess.Popen([sys.executable, VICTIM, "write", str(tmp_path)], stdout=subprocess.PIPE) as victim:
            assert victim.stdout is not None
            victim.stdout.readline()
            with contextlib.suppress(subprocess.TimeoutExpired):
                victim.wait(chance.uniform(0, 0.05))
            victim.send_signal(signal.SIGKILL)
        directory = StateDirectory(tmp_path)
        directory.open()
        data = directory.read()
        directory.close()
        assert data is not None
        assert data == bytes([data[0]]) * (1000 * data[0])


async def test_a_killed_member_resumes(mqtt_yard: Yard) -> None:
    """Killed at any instant of a rekey, a member goes on from its directory, with the server down."""
    yard, chance = mqtt_yard, random.Random(2)
    descriptor = await yard.invite()
    file = yard.path / "fleet.join"
    await asyncio.to_thread(descriptor.write, file)
    panel = await yard.join("panel")
    for turn in range(6):
        victim = await asyncio.create_subprocess_exec(
            sys.executable, VICTIM, "member", str(file), str(yard.path / "pump"), stdout=subprocess.PIPE
        )
        assert victim.stdout is not None
        assert await asyncio.wait_for(victim.stdout.readline(), PATIENCE) == b"ready\n"
        await yard.join(f"extra-{turn}")
        rekey = asyncio.create_task(yard.server.admin.evict(yard.group, f"extra-{turn}"))
        await asyncio.sleep(chance.uniform(0, 0.03))  # the instant at which it dies is what is drawn
        victim.kill()
        await victim.wait()
        await rekey
        assert Member.load((yard.path / "pump" / STATE).read_bytes(), os.urandom, 0).state == "active"
    await yard.stop()
    async with yard.connect(descriptor, "pump") as pump, panel.messages("a") as messages:
        assert pump.epoch == panel.epoch
        await pump.publish("a", b"alive")
        while (await take(messages))[0].payload != b"alive":
            pass


def test_a_save_is_on_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File first, then the rename, then the directory: a power cut at any point leaves the old state or the new."""
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        calls.append("fsync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        fsync(descriptor)

    def watched_replace(path: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    directory = StateDirectory(tmp_path / "state")
    directory.open()
    directory.write(b"state")
    directory.close()
    assert calls == ["fsync file", "rename", "fsync directory"]

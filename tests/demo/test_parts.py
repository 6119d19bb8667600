"""The demonstration's parts: readings, the timeline's verdict, processes that fail, and a spy that is no dummy."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Suite
from brokerkm.core.group import Group
from brokerkm.core.member import Member
from brokerkm.core.memory import Profile
from brokerkm.core.names import Topics
from brokerkm.core.policy import Policy
from brokerkm.core.request import Join
from brokerkm.demo import process, readings
from brokerkm.demo.process import Process, ProcessFailedError
from brokerkm.demo.spy import Spy
from brokerkm.demo.timeline import Claim, Timeline
from brokerkm.transport import Options, Outgoing, Role, create

if TYPE_CHECKING:
    from pathlib import Path


def test_readings_are_this_machines() -> None:
    """Load and memory are there on any Linux machine, and read well."""
    values = readings.read()
    assert values["load"] >= 0
    assert values["memory"] > 0
    assert "MiB free" in readings.describe(values)


def test_first_plausible_temperature_is_taken(tmp_path: Path) -> None:
    """Sensors without a chip are passed over; what is absent is left out."""
    zones = tmp_path / "sys/class/thermal"
    for zone, text in enumerate(("-274000", "what", "48250", "50000")):
        (zones / f"thermal_zone{zone}").mkdir(parents=True)
        (zones / f"thermal_zone{zone}/temp").write_text(text)
    values = readings.read(tmp_path)
    assert ({"load", "celsius"}, 48.2) == (set(values), values["celsius"])
    assert readings.describe(values).endswith(", 48.2 °C")


def test_memory_that_is_not_told_is_left_out(tmp_path: Path) -> None:
    """A kernel that says nothing of available memory leaves the reading out."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1 kB\n")
    assert {"load"} == set(readings.read(tmp_path))


@pytest.mark.parametrize("as_json", [False, True])
def test_one_failed_or_missing_check_fails_the_whole(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    """Only if every claim was checked, and held each time, is the verdict good."""
    claims = [Claim.FORMED, Claim.TALKED]
    timeline = Timeline(as_json=as_json)
    timeline.check(Claim.FORMED, holds=True, detail="3 of 3")
    assert not timeline.finish(claims, None)
    timeline.check(Claim.TALKED, holds=False, detail="2 of 3")
    assert not timeline.finish(claims, None)
    timeline.check(Claim.TALKED, holds=True, detail="3 of 3")
    assert not timeline.finish(claims, None)
    text = "".join(capsys.readouterr())
    assert ("not_checked" if as_json else f"not checked: {Claim.TALKED.value}") in text
    assert ('"failed": ["every' if as_json else f"failed: {Claim.TALKED.value}") in text


def test_all_checks_and_no_error_are_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    """A long line is wrapped, and an error is told."""
    timeline = Timeline(as_json=False)
    timeline.tell("fleet", "word " * 40)
    timeline.check(Claim.FORMED, holds=True, detail="3 of 3")
    assert timeline.finish([Claim.FORMED], None)
    assert not timeline.finish([Claim.FORMED], "it rained")
    output = capsys.readouterr()
    assert ("All 1 claims were checked" in output.out, "it rained" in output.err) == (True, True)
    assert max(map(len, output.out.splitlines())) <= 100


async def test_process_that_ends_is_noticed(tmp_path: Path) -> None:
    """Its last words are told; one that does not run cannot be told anything."""
    dying = Process("dying", ["-c", "import sys; sys.exit('no reason')"], tmp_path / "log")
    await dying.start()
    with pytest.raises(ProcessFailedError, match="dying: life failed: its process has ended: no reason"):
        await dying.hear(lambda _: False, "life")
    assert 1 == await dying.stop()
    assert (0, 0) == (await dying.stop(), dying.pid)
    with pytest.raises(ProcessFailedError, match="dying does not run"):
        dying.tell(do="anything")


async def test_process_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not happen in time fails; a process that does not end when asked is killed."""
    monkeypatch.setattr(process, "_STOP", 0.05)
    deafness = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    script = deafness + "; print('{\"ready\": 1}', flush=True); sys.stdin.read()"
    deaf = Process("deaf", ["-c", script], tmp_path / "log")
    await deaf.start()
    await deaf.hear(lambda said: "ready" in said, "start")
    monkeypatch.setattr(process, "PATIENCE", 0.05)
    with pytest.raises(ProcessFailedError, match=r"deaf: answer did not happen within 0.05 s"):
        await deaf.event("answer")
    assert -9 == await deaf.stop()


async def test_spy_with_current_keys_opens_what_it_should(tmp_path: Path) -> None:
    """With keys that are not stale it reads along and follows a rekey: that it fails later says something."""
    group = Group("plant", os.urandom(32), degree=4, suite=Suite.X25519, policy=Policy(hold=1))
    topics = Topics("plant")
    members = [Member.create(Profile("plant", f"m{n}", group.server_key, Suite.X25519), os.urandom) for n in range(3)]
    now = time.time()
    for member in members:
        join = Join.decode(member.join(now), Suite.X25519)
        group.enroll(Enrollment(member.profile.member, join.identity, join.kem_public, join.nonce))
    for name, payload in group.commit(now, os.urandom).welcomes:
        members[int(name[1:])].receive(topics.member(name), payload, now)
    url = f"zmq+ipc://{tmp_path}/hub"
    hub = create(url, Options(role=Role.SERVER))
    await hub.open()
    spy = await Spy.start(url, topics, "m1", "plant/#")
    await spy.use(members[1].dump())
    for member in members:
        await hub.publish(Outgoing("plant/x", member.seal("plant/x", b"1", now)))
    await spy.decide(3, 20)
    assert (3, 0) == (spy.opened, spy.refused)
    group.evict("m2")
    commit = group.commit(now, os.urandom)
    messages = [(topics.node(part.level, part.index), part.payload) for part in commit.rekeys]
    for topic, payload in [*messages, (topics.beacon, commit.beacon)]:
        await hub.publish(Outgoing(topic, payload, retain=True))
        members[0].receive(topic, payload, now)
    spy.forget()
    await hub.publish(Outgoing("plant/x", members[0].seal("plant/x", b"2", now)))
    await hub.publish(Outgoing("plant/x", members[2].seal("plant/x", b"old", now)[:-1] + b"\x00"))
    await hub.publish(Outgoing(topics.beacon, b"forged"))
    await spy.decide(2, 20)
    assert (1, 1, 2) == (spy.opened, spy.refused, len(spy.captured))
    await spy.close()
    await hub.close()

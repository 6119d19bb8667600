"""Welcomes are sealed by processes of their own, and what comes out is what one process would have made."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
from typing import TYPE_CHECKING

import msgpack
import pytest
from core.refusal import refused

from brokerkm import sealing
from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Suite, load_signing_key
from brokerkm.core.group import Group
from brokerkm.core.policy import Policy
from brokerkm.core.welcome import NodeKey, Welcome
from brokerkm.core.welcoming import Batch, Job
from brokerkm.errors import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED = b"k" * 32
X25519 = Suite.X25519


@pytest.fixture(autouse=True)
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[sealing.Workers]:
    """Let workers of the test's own be worthwhile for a few, on two cores whatever the machine has."""
    monkeypatch.setattr(sealing, "WORTHWHILE", 3)
    monkeypatch.setattr(sealing, "FEW", 2)
    monkeypatch.setattr(sealing, "SHARE", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    made = sealing.Workers()
    monkeypatch.setattr(sealing, "WORKERS", made)
    yield made
    made.close()


SECRET = b"the key of a leaf, or 32 bytes of"
BATCH = Batch(int(X25519), b"s" * 32, "plant", 7, 1_000, 4, Policy().fields, certifies=False)


def job(number: int, public: bytes | None = None) -> Job:
    """Return a Welcome that is to be made, by default to the holder of `SEED`."""
    path = (NodeKey(b"r" * 32, 7, 0),) * 4
    leaf = NodeKey(SECRET[:32], 7, 0)
    return Job(f"m{number}", public or X25519.public_key(SEED), bytes(16), b"", number, leaf, path)


def jobs(count: int) -> list[Job]:
    """Return Welcomes that are to be made."""
    return [job(number) for number in range(count)]


def slots(count: int) -> list[int]:
    """Return what is in them."""
    return list(range(count))


def opened(written: Iterator[bytes], first: int = 0) -> list[int]:
    """Return the slots that the holder of `SEED` reads."""
    key = load_signing_key(BATCH.signing_seed).public_key()
    found: list[int] = []
    for number, payload in enumerate(written, first):
        welcome = Welcome.decode(payload)
        welcome.verify(key, "plant", f"m{number}")
        found.append(welcome.open(X25519, SEED, "plant", f"m{number}").slot)
    return found


@pytest.mark.parametrize("suite", Suite)
def test_welcomes_of_workers_open(suite: Suite, caplog: pytest.LogCaptureFixture) -> None:
    """Each opens for the member that it is for, under its own nonce, whichever process sealed it."""
    seed = os.urandom(suite.seed_size)
    group = Group("plant", SEED, suite=suite)
    for number in range(5):
        group.enroll(Enrollment(f"m{number}", b"", suite.public_key(seed), bytes((number,)) * 16))
    commit = group.prepare(1e9, os.urandom, sealing.write_on_all_cores)
    assert "" == caplog.text, "no worker failed"
    assert [f"m{number}" for number in range(5)] == [member for member, _ in commit.welcomes]
    for slot, (member, payload) in enumerate(commit.welcomes):
        welcome = Welcome.decode(payload)
        assert slot == welcome.open(suite, seed, "plant", member).slot


def test_more_shares_than_workers_come_out_in_order() -> None:
    """What is under way is bounded; what comes out is in the order of what went in."""
    taken = 0

    def given() -> Iterator[Job]:
        nonlocal taken
        for one in jobs(60):
            taken += 1
            yield one

    sealed = sealing.write_on_all_cores(BATCH, given())
    first = next(sealed)
    assert taken <= 3 + 2 * 6
    assert slots(60) == [*opened(iter([first])), *opened(sealed, 1)]


def test_few_need_no_worker(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Starting processes takes longer than sealing for one, however often it is asked for."""
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    for _ in range(5):
        assert [0] == opened(sealing.write_on_all_cores(BATCH, jobs(1)))
    assert "" == caplog.text


def test_one_core_seals_by_itself(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A worker on the same core would gain nothing."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert 9 == len(opened(sealing.write_on_all_cores(BATCH, jobs(9))))
    assert "" == caplog.text


def test_many_parts_start_workers_and_keep_them(monkeypatch: pytest.MonkeyPatch, workers: sealing.Workers) -> None:
    """The demand of an import's parts adds up; what one part has started the next uses."""
    assert 2 == len(opened(sealing.write_on_all_cores(BATCH, jobs(2))))
    assert not workers.running, "two are not worth it"
    assert 2 == len(opened(sealing.write_on_all_cores(BATCH, jobs(2))))
    (worker,) = workers.running
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert 2 == len(opened(sealing.write_on_all_cores(BATCH, jobs(2))))
    assert (worker,) == workers.running


def test_demand_is_forgotten_and_workers_go(monkeypatch: pytest.MonkeyPatch, workers: sealing.Workers) -> None:
    """After a while without work nothing is left of them."""
    monkeypatch.setattr(sealing, "IDLE", 0.05)
    opened(sealing.write_on_all_cores(BATCH, jobs(6)))
    running = workers.running
    assert running
    for process in running:
        assert 0 == process.wait(60)
    assert not workers.are_wanted(2)


def test_workers_in_use_are_not_stopped(workers: sealing.Workers) -> None:
    """The end of one import's patience is none for another that has just begun."""
    sealed = sealing.write_on_all_cores(BATCH, jobs(20))
    first = next(sealed)
    workers.close()
    assert 20 == len([first, *sealed])
    assert all(process.poll() is None for process in workers.running)


def test_two_may_seal_at_once() -> None:
    """Threads share the workers, and each gets what is its own."""
    found: dict[int, list[int]] = {}

    def seal(count: int) -> None:
        found[count] = opened(sealing.write_on_all_cores(BATCH, jobs(count)))

    threads = [threading.Thread(target=seal, args=(count,)) for count in (30, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {count: slots(count) for count in (30, 40)} == found


@pytest.mark.parametrize(
    "script", [None, "exit 3", "printf abc", "printf '\\0\\0\\0\\11abc'", "printf '\\0\\0\\0\\1\\301'"]
)
def test_a_worker_that_fails_is_stood_in_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, script: str | None
) -> None:
    """Whether it does not start, dies or talks nonsense, its share is sealed all the same; the log says no secret."""
    program = tmp_path / "python"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    assert slots(4) == opened(sealing.write_on_all_cores(BATCH, jobs(4)))
    assert "leaf" not in caplog.text
    assert "this process does its share" in caplog.text
    assert "leaf" not in repr((BATCH, jobs(4)))
    assert "sss" not in repr(BATCH)


def test_a_killed_worker_is_replaced(workers: sealing.Workers, caplog: pytest.LogCaptureFixture) -> None:
    """The next share after a death has a new process."""
    opened(sealing.write_on_all_cores(BATCH, jobs(6)))
    killed = workers.running
    for process in killed:
        process.kill()
        process.wait(60)
    assert 40 == len(opened(sealing.write_on_all_cores(BATCH, jobs(40))))
    assert "this process does its share" in caplog.text
    assert workers.running
    assert not set(killed) & set(workers.running)


def test_a_key_that_cannot_be_used_is_refused(workers: sealing.Workers) -> None:
    """A low-order point, wherever it is sealed to; the worker goes on."""
    with refused(Reason.OUT_OF_RANGE, "kem_public"):
        list(sealing.write_on_all_cores(BATCH, [job(0, bytes(32))] * 4))
    assert all(process.poll() is None for process in workers.running)
    assert 4 == len(opened(sealing.write_on_all_cores(BATCH, jobs(4))))


def test_the_worker_says_that_it_has_not_sealed() -> None:
    """Nothing half comes out, and the shares that follow are sealed."""
    source, sink = io.BytesIO(), io.BytesIO()
    for share in ([*jobs(1), job(1, bytes(32))], jobs(2)):
        body = msgpack.packb((BATCH, share))
        source.write(struct.pack(">I", len(body)) + body)
    source.seek(0)
    sealing.work(source, sink)
    sink.seek(0)
    (size,) = struct.unpack(">I", sink.read(4))
    assert msgpack.unpackb(sink.read(size)) is None
    (size,) = struct.unpack(">I", sink.read(4))
    assert slots(2) == opened(iter(msgpack.unpackb(sink.read(size))))
    assert b"" == sink.read()

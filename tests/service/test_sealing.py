"""Welcomes are sealed by processes of their own, and what comes out is what one process would have made."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

import msgpack
import pytest
from core.refusal import refused

from brokerkm import sealing
from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Suite
from brokerkm.core.group import Group
from brokerkm.core.welcome import Sealing, Welcome
from brokerkm.errors import Reason

if TYPE_CHECKING:
    from pathlib import Path

SEED = b"k" * 32


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers be worthwhile for a few, on two cores whatever the machine has."""
    monkeypatch.setattr(sealing, "WORTHWHILE", 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.mark.parametrize("suite", Suite)
def test_welcomes_of_workers_open(suite: Suite, caplog: pytest.LogCaptureFixture) -> None:
    """Each opens for the member that it is for, under its own nonce, whichever process sealed it."""
    seed = os.urandom(suite.seed_size)
    group = Group("plant", SEED, suite=suite)
    for number in range(5):
        group.enroll(Enrollment(f"m{number}", b"", suite.public_key(seed), bytes((number,)) * 16))
    commit = group.prepare(1e9, os.urandom, sealing.seal_on_all_cores)
    assert "" == caplog.text, "no worker failed"
    assert [f"m{number}" for number in range(5)] == [member for member, _ in commit.welcomes]
    for slot, (member, payload) in enumerate(commit.welcomes):
        welcome = Welcome.decode(payload)
        assert slot == welcome.open(suite, seed, "plant", member).slot


def test_few_need_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting processes takes longer than sealing for two."""
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    suite = Suite.X25519
    jobs = [Sealing(suite.public_key(SEED), b"one", b""), Sealing(suite.public_key(SEED), b"two", b"")]
    assert [b"one", b"two"] == [suite.open(SEED, one, b"") for one in sealing.seal_on_all_cores(suite, jobs)]


def test_a_worker_that_fails_is_stood_in_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it does not start or dies, its share is sealed all the same; the log says no secret."""
    dies = tmp_path / "python"
    dies.write_text("#!/bin/sh\nexit 3\n")
    dies.chmod(0o700)
    suite = Suite.X25519
    jobs = [Sealing(suite.public_key(SEED), b"secret %d" % number, b"") for number in range(4)]
    for executable in ("/nonexistent", str(dies)):
        monkeypatch.setattr(sys, "executable", executable)
        sealed = sealing.seal_on_all_cores(suite, jobs)
        assert [job.plaintext for job in jobs] == [suite.open(SEED, one, b"") for one in sealed]
    assert "secret" not in caplog.text
    assert "this process does its share" in caplog.text
    assert "secret" not in repr(jobs)


def test_a_key_that_cannot_be_used_is_refused() -> None:
    """A low-order point, wherever it is sealed to."""
    jobs = [Sealing(bytes(32), b"secret", b"")] * 4
    with refused(Reason.OUT_OF_RANGE, "kem_public"):
        sealing.seal_on_all_cores(Suite.X25519, jobs)


def test_the_worker_says_by_its_status_that_it_has_not_sealed() -> None:
    """Nothing half comes out."""
    sink = io.BytesIO()
    assert 1 == sealing.work(io.BytesIO(msgpack.packb((1, [(bytes(32), b"x", b"")]))), sink)
    assert b"" == sink.getvalue()

"""The demonstration as people run it: on MQTT, on ZeroMQ, at a broker of theirs, interrupted, and without a broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from brokers.process import free_port

from brokerkm.transport import Delivery, Options, create

if TYPE_CHECKING:
    from brokers.mqtt import MqttBroker

PATIENCE = 110.0  # seconds


def start(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the demonstration with its temporary files in `directory`."""
    return subprocess.Popen(
        [sys.executable, "-m", "brokerkm", "demo", "--members", "6", *arguments],
        env={**os.environ, "TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def remains(directory: Path) -> list[str]:
    """Return the command lines of processes that still use `directory`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if f"TMPDIR={directory}".encode() in words:
            found.append((entry / "cmdline").read_text())
    return found


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory whose path is short enough for a socket in it."""
    path = tmp_path_factory.getbasetemp().parent / f"d{time.monotonic_ns() % 10**6}"
    path.mkdir()
    return path


@pytest.mark.parametrize(("transport", "claims"), [("mqtt", 11), ("zmq", 10)])
def test_every_claim_is_checked(short: Path, transport: str, claims: int) -> None:
    """It tells its story as JSON, checks everything that it claims, and leaves nothing behind."""
    demo = start(short, "--transport", transport, "--json")
    output, errors = demo.communicate(timeout=PATIENCE)
    lines = [json.loads(line) for line in output.splitlines()]
    assert ("", 0) == (errors, demo.returncode), lines[-1]
    checked = [line for line in lines if line["event"] == "checked"]
    assert (claims, claims) == (len({line["claim"] for line in checked}), sum(line["holds"] for line in checked))
    assert {"ok": True, "checked": claims, "failed": [], "not_checked": [], "error": None} == {
        name: lines[-1][name] for name in ("ok", "checked", "failed", "not_checked", "error")
    }
    assert ([], []) == (list(short.iterdir()), remains(short))


async def test_broker_of_the_user_is_left_clean(short: Path, mosquitto: MqttBroker) -> None:
    """At a broker that was there before, it tells people its story and leaves no retained message."""
    demo = start(short, "--broker", mosquitto.url)
    output, errors = demo.communicate(timeout=PATIENCE)
    assert ("", 0) == (errors, demo.returncode), output
    assert output.rstrip().splitlines()[-1].startswith("All 11 claims were checked and hold; it took ")
    group = output.partition(" group ")[2].partition(":")[0]
    transport = create(mosquitto.url, Options())
    await transport.open()
    await transport.subscribe([f"bkm/1/{group}/#", f"{group}/#", "the/end"])
    await transport.request("the/end", b"")
    async for item in transport.incoming():
        if isinstance(item, Delivery):
            assert item.topic == "the/end"
            break
    await transport.close()


def test_interrupted_it_ends_all_processes(short: Path) -> None:
    """Ctrl-C ends it within seconds; it says what was not checked, exits 1, and leaves nothing behind."""
    demo = start(short)
    assert demo.stdout is not None
    while "fleet" not in (line := demo.stdout.readline()):
        assert line
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=PATIENCE)
    assert (1, True) == (demo.returncode, "It did not come to its end: it was interrupted" in errors)
    assert "not checked: it caught up from retained messages alone" in errors
    assert ([], []) == (list(short.iterdir()), remains(short))


def test_absent_broker_fails_it(short: Path) -> None:
    """What cannot be shown is said, with the reason."""
    demo = start(short, "--broker", f"mqtt://127.0.0.1:{free_port()}")
    _, errors = demo.communicate(timeout=PATIENCE)
    assert (1, True) == (demo.returncode, "key server: start failed: its process has ended" in errors)
    assert "cannot reach the broker" in errors
    assert errors.count("not checked: ") == 11

"""Devices that are seated by a file: one that goes on from what the broker kept for it, and thousands, with a crash."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from cli.conftest import Machine
from cli.test_carrying import carry

from brokerkm.core.crypto import Suite

if TYPE_CHECKING:
    import pytest
    from brokers.mqtt import MqttBroker

MANY = 9000
PATIENCE = 60.0  # seconds


def rows(count: int) -> str:
    """Return devices with keys of their own."""
    public = [Suite.X25519.public_key(os.urandom(32)).hex() for _ in range(count)]
    return "".join(f"m{number:05d},{os.urandom(32).hex()},{key}\n" for number, key in enumerate(public))


def test_a_device_goes_on_from_what_was_kept_for_it(
    machine: Machine, tmp_path_factory: pytest.TempPathFactory, mosquitto: MqttBroker
) -> None:
    """Its row was imported before it was ever online; when it is, nobody has to answer it."""
    device = Machine(tmp_path_factory.mktemp("device"))
    server = machine.serve("--broker", mosquitto.url, "--group", f"seated-{time.time_ns()}")
    server.start()
    machine.run("invite", "-o", "fleet.join")
    carry("fleet.join", machine, device)
    (machine.home / "devices.csv").write_text(device.run("identity", "fleet.join", "-i", "pump", "--csv"))
    assert "1 seated" in machine.run("member", "import", "devices.csv")
    machine.run("join", "fleet.join", "-i", "panel")
    machine.run("pub", "-i", "panel", "-t", "plant/panel", "-m", "open", "--retain")
    server.stop()
    assert "open\n" == device.run("sub", "-i", "pump", "-t", "plant/panel", "-C", "1", "-W", "30")


def test_an_import_survives_the_server(machine: Machine, mosquitto: MqttBroker) -> None:
    """The server is killed in the middle; the same file again seats the rest, and nobody twice."""
    group = f"many-{time.time_ns()}"
    server = machine.serve("--broker", mosquitto.url, "--group", group)
    server.start()
    (machine.home / "devices.csv").write_text(rows(MANY))
    process = machine.start("member", "import", "devices.csv")
    deadline = time.monotonic() + PATIENCE
    while not (seated := int(str(machine.ask("status")["members"]))):
        assert time.monotonic() < deadline
    server.kill()
    _, told = process.communicate(timeout=PATIENCE)
    assert (1, True, seated < MANY) == (process.returncode, "key server" in told, True), told
    server.start()
    try:
        told = machine.run("member", "import", "devices.csv")
        status = machine.ask("status")
        assert (MANY, 0) == (status["members"], status["unpublished"]), told
        machine.run("audit", "verify")
        log = [json.loads(line) for line in machine.run("audit", "export", "-g", group).splitlines()]
        assert MANY == len({entry["subject"] for entry in log if entry["action"] == "seat"})
        assert MANY == len([entry for entry in log if entry["action"] == "seat"])
    finally:
        server.stop()

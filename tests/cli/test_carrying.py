"""A device gets its place by two files, in processes of their own, before it or its server has ever been online."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from brokers.process import free_port
from cli.conftest import Machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from brokers.mqtt import MqttBroker
    from click.testing import Result

PATIENCE = 60.0  # seconds


def carry(name: str, source: Machine, target: Machine) -> None:
    """Carry a file from one machine to the other."""
    (target.home / name).write_bytes((source.home / name).read_bytes())


@pytest.fixture
def device(tmp_path: Path) -> Machine:
    """Give a second machine."""
    (tmp_path / "device").mkdir()
    return Machine(tmp_path / "device")


def test_nothing_runs_while_the_files_are_carried(machine: Machine, device: Machine) -> None:
    """Request, answer and acceptance need no server and no broker; when both run, the device is a member."""
    port = str(free_port())
    server = machine.serve("--port", port, "--interval", "0.05")
    server.start()
    machine.run("invite")
    server.stop()
    carry("fleet.join", machine, device)
    assert "wrote pump.request" in device.run("identity", "fleet.join", "-i", "pump", "--offline", "-o", "pump.request")
    carry("pump.request", device, machine)
    add = ("member", "add", "--offline", "pump.request", "-o", "pump.bundle")
    assert "no broker is known here" in machine.run(*add, status=2)
    assert "Carry pump.bundle" in machine.run(*add, "--broker", f"mqtt://127.0.0.1:{port}?login=identity")
    carry("pump.bundle", machine, device)
    assert "pump is a member of group fleet: epoch 1" in device.run("join", "pump.bundle")
    server.start()
    try:
        machine.run("join", "fleet.join", "-i", "panel")
        device.run("pub", "-i", "pump", "-t", "plant/pump", "-m", "21.4", "--retain")
        assert "21.4\n" == machine.run("sub", "-i", "panel", "-t", "plant/pump", "-C", "1", "-W", "30")
        machine.run("pub", "-i", "panel", "-t", "plant/panel", "-m", "open", "--retain")
        assert "open\n" == device.run("sub", "-i", "pump", "-t", "plant/panel", "-C", "1", "-W", "30")
        actions = [(entry["action"], entry["subject"]) for entry in audited(machine)]
    finally:
        server.stop()
    assert {("list", "pump"), ("seat", "pump")} <= set(actions)


def test_a_running_server_answers(site: Machine, tmp_path: Path) -> None:
    """Over the server's socket, with its own broker in the bundle; the files may go through pipes."""
    away = Machine(tmp_path)
    site.run("invite", "-o", "away.join", "--force")
    carry("away.join", site, away)
    request = away.run("identity", "away.join", "-i", "away", "--offline", "-o", "-")
    bundle = site.run("member", "add", "--offline", "-", "-o", "-", text=request)
    joined = json.loads(away.run("join", "-", "--json", text=bundle))
    assert ("away", "fleet") == (joined["member"], joined["group"])
    site.run("pub", "-i", "two", "-t", "away/now", "-m", "hello", "--retain")
    assert "hello\n" == away.run("sub", "-i", "away", "-t", "away/now", "-C", "1", "-W", "30")
    assert "member of group fleet already" in away.run(
        "identity", "away.join", "-i", "away", "--offline", "-o", "x", status=2
    )


def test_a_device_with_spare_keys_reads_while_nobody_answers(
    machine: Machine, device: Machine, mosquitto: MqttBroker
) -> None:
    """Two new keys are lost for it, and the key server is away when it connects for the first time."""
    url, group = mosquitto.url, f"depot-{free_port()}"
    server = machine.serve("--broker", url, "--interval", "0.05", "--group", group)
    server.start()
    machine.run("group", "set", group, "--no-retained", "--hold", "1")
    machine.run("invite", "-o", "fleet.join")
    carry("fleet.join", machine, device)
    device.run("identity", "fleet.join", "-i", "pump", "--offline", "-o", "pump.request")
    carry("pump.request", device, machine)
    machine.run("member", "add", "--offline", "pump.request", "-o", "pump.bundle", "--spares", "2")
    carry("pump.bundle", machine, device)
    assert "through the next 2 changes of the group's key" in device.run("join", "pump.bundle")
    machine.run("join", "fleet.join", "-i", "panel")
    for _ in range(2):
        assert "published" in machine.run("group", "rotate")
    machine.run("pub", "-i", "panel", "-t", "plant/panel", "-m", "open", "--retain")
    server.stop()
    assert "open\n" == device.run("sub", "-i", "pump", "-t", "plant/panel", "-C", "1", "-W", "60")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("identity", "fleet.join", "-i", "x", "--offline"), "--offline and -o go together"),
        (("identity", "fleet.join", "-i", "x", "-o", "file"), "--offline and -o go together"),
        (("member", "add", "--offline", "x.request"), "give either MEMBER and IDENTITY"),
        (("member", "add", "pump"), "give either MEMBER and IDENTITY"),
        (("member", "add", "pump", "00", "--broker", "mqtt://x"), "give either MEMBER and IDENTITY"),
        (("member", "add", "--offline", "none", "-o", "x"), "request none: it cannot be read"),
        (("member", "add", "--offline", "noise", "-o", "x"), "request noise: the file is not JSON"),
        (("member", "add", "--offline", "request", "-o", "x", "-g", "depot"), "for group plant, not depot"),
        (("join", "bundle"), "does not have exactly the members"),
        (("join", "noise"), "Missing option '-i'"),
    ],
)
def test_what_is_wrong_is_named(
    call: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Before anything is made or sent."""
    (tmp_path / "noise").write_text("{")
    (tmp_path / "bundle").write_text('{"brokerkm_bundle": 1}')
    request = {"brokerkm_request": 1, "group": "plant", "member": "pump", "join": "00"}
    (tmp_path / "request").write_text(json.dumps(request))
    result = call(*arguments)
    assert 0 != result.exit_code
    assert words in f"{result.output}{result.exception}"


def audited(machine: Machine) -> list[dict[str, str]]:
    """Return the audit log of the group."""
    return [json.loads(line) for line in machine.run("audit", "list", "-g", "fleet", "--json").splitlines()]

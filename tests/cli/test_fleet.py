"""The whole way by commands in processes of their own: serve, invite, join, sub, pub, evict."""

from __future__ import annotations

import json
import signal
import stat
from typing import TYPE_CHECKING

import pytest
from brokers.process import free_port

if TYPE_CHECKING:
    import subprocess

    from brokers.mqtt import MqttBroker
    from conftest import Machine

PATIENCE = 60.0  # seconds


def subscribed(machine: Machine, *arguments: str) -> subprocess.Popen[str]:
    """Return a running `sub` that has received its first message, which another member retained.

    It subscribes one topic after the other, that of this message last.
    """
    machine.run("pub", "-i", "two", "-t", "ready/now", "-m", "ready", "--retain")
    sub = machine.start("sub", "-i", "one", *arguments, "-t", "ready/#")
    assert sub.stdout is not None
    assert "ready" in sub.stdout.readline()
    return sub


def test_message_reaches_other_member(site: Machine) -> None:
    """What one member publishes, the other prints with its topic, and ends after as many as it was told."""
    sub = subscribed(site, "-t", "plant/#", "-v", "-C", "3")
    site.run("pub", "-i", "two", "-t", "plant/pump", "-m", "21.4")
    site.run("pub", "-i", "two", "-t", "plant/pump", "-n")
    output, _ = sub.communicate(timeout=PATIENCE)
    assert (0, "plant/pump 21.4\nplant/pump \n") == (sub.returncode, output)


def test_lines_file_and_standard_input_are_published(site: Machine) -> None:
    """Each line is a message, a file is one, and so is the whole of standard input."""
    sub = subscribed(site, "-t", "log/+", "-C", "5", "--json")
    site.run("pub", "-i", "two", "-t", "log/lines", "-l", text="first\nsecond\n")
    (site.home / "curve.bin").write_bytes(b"\xff\x00")
    site.run("pub", "-i", "two", "-t", "log/file", "-f", "curve.bin")
    site.run("pub", "-i", "two", "-t", "log/all", "-s", text="a\nb")
    output, _ = sub.communicate(timeout=PATIENCE)
    assert [
        {"topic": "log/lines", "sender": "two", "payload": "first"},
        {"topic": "log/lines", "sender": "two", "payload": "second"},
        {"topic": "log/file", "sender": "two", "payload_base64": "/wA="},
        {"topic": "log/all", "sender": "two", "payload": "a\nb"},
    ] == [json.loads(line) for line in output.splitlines()]


def test_subscriber_ends_when_interrupted(site: Machine) -> None:
    """Ctrl-C ends `sub` as something that is done."""
    sub = subscribed(site)
    sub.send_signal(signal.SIGINT)
    output, errors = sub.communicate(timeout=PATIENCE)
    assert (0, "", "") == (sub.returncode, output, errors)


def test_waiting_in_vain_fails(site: Machine) -> None:
    """`sub` that has not had what it waited for exits 1 and says how much is missing."""
    errors = site.run("sub", "-i", "one", "-t", "nothing/here", "-C", "2", "-W", "0.2", status=1)
    assert errors == "brokerkm: one waited 0.2 s: 2 of 2 messages did not come\n"


def test_waiting_without_count_is_done_in_time(site: Machine) -> None:
    """`sub` with a time alone ends when it is over."""
    assert site.run("sub", "-i", "one", "-t", "nothing/here", "-W", "0.2") == ""


def test_rotation_is_reported_to_subscriber(site: Machine) -> None:
    """With --debug, a subscriber tells of its group's new keys."""
    sub = subscribed(site, "-d")
    epoch = site.ask("group", "rotate")["epoch"]
    assert sub.stderr is not None
    assert f"one: Rekeyed(epoch={epoch})\n" == sub.stderr.readline()
    sub.send_signal(signal.SIGTERM)
    sub.communicate(timeout=PATIENCE)
    assert sub.returncode == 0


def test_member_is_in_use_once(site: Machine) -> None:
    """A second process as the same member is told which one has it."""
    sub = subscribed(site)
    errors = site.run("pub", "-i", "one", "-t", "plant/x", "-m", "x", status=1)
    sub.terminate()
    sub.communicate(timeout=PATIENCE)
    assert f"in use by process {sub.pid}" in errors


def test_invitation_is_private_and_not_overwritten(site: Machine) -> None:
    """A descriptor is the owner's alone; one that is there stays unless it is to be replaced."""
    path = site.home / "other.join"
    site.run("invite", "-o", "other.join", "--expires", "90s")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_text()
    assert "other.join is there already" in site.run("invite", "-o", "other.join", status=1)
    assert before == path.read_text()
    told = site.ask("invite", "-o", "other.join", "--force")
    assert {"group": "fleet", "file": "other.join", "uses": 1} == {key: told[key] for key in ("group", "file", "uses")}
    assert before != path.read_text()


def test_used_token_admits_nobody_else(site: Machine) -> None:
    """A token for one device is worth nothing afterwards, and the error says what to do."""
    descriptor = site.run("invite", "-o", "-")
    joined = site.ask("join", _write(site, descriptor), "-i", "three")
    assert ("three", "fleet") == (joined["member"], joined["group"])
    errors = site.run("join", "single.join", "-i", "four", status=1)
    assert "does not admit four" in errors


def test_listed_identity_joins_without_token(site: Machine) -> None:
    """A device whose public key was listed needs no token; the descriptor comes on standard input."""
    values = json.loads(site.run("invite", "-o", "-"))
    del values["token"], values["token_expires"]
    descriptor = json.dumps(values)
    (site.home / "listed.join").write_text(descriptor)
    key = site.run("identity", "listed.join", "-i", "five").strip()
    assert {"member": "five", "group": "fleet", "identity": key} == site.ask("identity", "listed.join", "-i", "five")
    assert f"five may join with the identity key {key}\n" == site.run("member", "add", "five", key)
    assert "five is a member of group fleet" in site.run("join", "-", "-i", "five", text=descriptor)
    assert "five has left group fleet\n" == site.run("leave", "-i", "five")
    assert "is out of group fleet" in site.run("pub", "-i", "five", "-t", "plant/x", "-m", "x", status=1)


def test_evicted_member_is_cut_off_until_readmitted(site: Machine) -> None:
    """Evicted, a member's commands fail; readmitted, it joins again with its key."""
    site.run("join", _write(site, site.run("invite", "-o", "-")), "-i", "six")
    sub = site.start("sub", "-i", "six", "-t", "ready/#")
    site.run("pub", "-i", "two", "-t", "ready/now", "-m", "ready", "--retain")
    assert sub.stdout is not None
    sub.stdout.readline()
    assert "six is out: epoch" in site.run("member", "evict", "six")
    _, errors = sub.communicate(timeout=PATIENCE)
    assert (1, True) == (sub.returncode, "six out of group fleet" in errors)
    listed = [json.loads(line) for line in site.run("member", "list", "--json").splitlines()]
    assert ["evicted"] == [info["status"] for info in listed if info["member"] == "six"]
    assert "out of group" in site.run("join", "single.join", "-i", "six", status=1)
    site.run("member", "readmit", "six")
    assert site.ask("join", "single.join", "-i", "six", "--rejoin")["member"] == "six"


def test_evictions_can_be_committed_together(site: Machine) -> None:
    """With --batch, several evictions make one epoch."""
    site.run("invite", "--uses", "2", "-o", "pair.join")
    for member in ("seven", "eight"):
        site.run("join", "pair.join", "-i", member)
    lines = site.run("member", "evict", "--batch", "seven", "eight", "--json").splitlines()
    assert ["seven", "eight"] == [json.loads(line)["member"] for line in lines]


def test_tables_show_groups_and_members(site: Machine) -> None:
    """Without --json, lists are tables for people."""
    groups = site.run("group", "list").splitlines()
    assert ["GROUP", "MEMBERS", "EPOCH", "WAITING", "SUITE", "DEGREE"] == groups[0].split()
    assert "fleet" == groups[1].split()[0]
    members = site.run("member", "list").splitlines()
    assert ["MEMBER", "STATUS", "SLOT", "EPOCH", "IDENTITY"] == members[0].split()
    assert any(line.startswith("one ") and " seated " in line for line in members)
    assert "grace 30\n" in site.run("group", "show")
    assert "all keys" not in site.run("group", "rotate", "--all")


def test_stopped_server_is_administered_through_its_store(machine: Machine) -> None:
    """What is changed while no server runs is stored, and published by the next; its embedded broker is anew."""
    server = machine.serve("--port", str(free_port()), "--group", "depot", "--json", "--verbose")
    server.start()
    machine.run("invite", "--uses", "2")
    machine.run("join", "depot.join", "-i", "one")
    machine.run("join", "depot.join", "-i", "two")
    server.stop()
    assert "stored: it is published as soon as the server runs" in machine.run("member", "evict", "two")
    assert "cannot reach the broker" in machine.run("pub", "-i", "one", "-t", "a/b", "-m", "x", status=1)
    server.start()
    machine.run("pub", "-i", "one", "-t", "a/b", "-m", "x")
    told = machine.run("pub", "-i", "two", "-t", "a/b", "-m", "x", status=1)
    assert "refused user 'depot:two'" in told, "the broker does not let it in to learn more"
    assert "two may have been cut off" in told
    server.stop()


def test_server_ends_cleanly_and_releases_its_port(machine: Machine) -> None:
    """Terminated, it says goodbye and exits 0; a second server on a port in use says what to do."""
    port = str(free_port())
    server = machine.start("serve", "--port", port, "--state", "here")
    assert server.stdout is not None
    lines = [server.stdout.readline() for _ in range(11)]
    assert lines[0] == "the key server is running. Stop it with Ctrl-C.\n"
    assert any(line.split()[:6] == ["brokerkm", "invite", "--uses", "2", "--state", "here"] for line in lines)
    errors = machine.run("serve", "--port", port, "--state", "there", status=1)
    assert f"use it with --broker mqtt://127.0.0.1:{port}, or take another port" in errors
    server.send_signal(signal.SIGTERM)
    output, errors = server.communicate(timeout=PATIENCE)
    assert (0, "the key server has stopped, and its broker with it\n", "") == (server.returncode, output, errors)


def test_server_at_another_broker_leaves_it_running(machine: Machine, mosquitto: MqttBroker) -> None:
    """With --broker, nothing is embedded; devices can be told another URL."""
    url = mosquitto.url
    server = machine.serve("--broker", url, "--device-broker", f"{url}?version=5", "--group", "apart")
    server.start()
    machine.run("invite")
    assert json.loads((machine.home / "apart.join").read_text())["broker"] == f"{url}?version=5"
    assert machine.ask("join", "apart.join", "-i", "one")["member"] == "one"
    server.stop()


def test_servers_own_login_is_not_handed_to_devices(machine: Machine, mosquitto: MqttBroker) -> None:
    """User name and password in the server's URL are in no invitation and not printed."""
    machine.environment["BROKERKM_BROKER"] = mosquitto.url.replace("//", "//server:hunter2@")
    server = machine.serve("--json")
    server.start()
    machine.run("invite")
    server.stop()
    assert mosquitto.url == json.loads((machine.home / "fleet.join").read_text())["broker"]


@pytest.mark.parametrize("name", ["demo", "serve", "group", "member", "invite", "join", "pub", "sub", "inspect"])
def test_every_command_has_help_with_examples(machine: Machine, name: str) -> None:
    """Help is there for each command, in a fresh environment."""
    assert f"Usage: brokerkm {name}" in machine.run(name, "--help")


def _write(machine: Machine, descriptor: str) -> str:
    (machine.home / "single.join").write_text(descriptor)
    return "single.join"

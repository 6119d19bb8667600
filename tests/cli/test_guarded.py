"""`brokerkm serve` with a guarded broker, as real processes: its own, and Mosquitto with the plugin."""

from __future__ import annotations

import json
import socket
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
from brokers.mosquitto import KEYSERVER, GuardedMosquitto, built_plugin
from brokers.process import Process, free_port

from brokerkm.errors import LoginRefusedError, TransportError
from brokerkm.sdk.home import Home, read_descriptor
from brokerkm.transport import Options, create

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.conftest import Machine

PROMPT = 10.0  # seconds


@pytest.fixture(scope="module")
def mosquitto() -> Iterator[GuardedMosquitto]:
    """Run Mosquitto as `brokerkm broker install mosquitto --level plugin` configures it."""
    with built_plugin() as plugin, GuardedMosquitto(plugin).running() as broker:
        yield broker


async def test_the_embedded_broker_lets_members_in_alone(site: Machine) -> None:
    """Whoever has no identity key of the group's does not connect; who has one does not read what is not its own."""
    site.run("invite", "-o", "look.join")
    descriptor = read_descriptor(site.home / "look.join")
    url, _, parameters = descriptor.broker.partition("&")
    assert "login=identity" == parameters
    stranger = create(url, Options())
    with pytest.raises(LoginRefusedError):
        await stranger.open()
    await stranger.close()
    home = Home(descriptor, "one", site.home / "s/brokerkm/fleet/one")
    member, _ = home.load(time.time)
    home.directory.close()
    username, password = member.login
    transport = create(url, Options(username=username, password=password))
    await transport.open()
    with pytest.raises(TransportError, match="#"):
        await transport.subscribe(["#"])
    await transport.subscribe(member.filters)
    await transport.close()


def test_a_url_without_login_is_explained(site: Machine) -> None:
    """Whoever names the broker by hand is told what its URL lacks."""
    site.run("invite", "-o", "hint.join")
    url = read_descriptor(site.home / "hint.join").broker.partition("&")[0]
    told = site.run("join", "hint.join", "-i", "hint", "--broker", url, status=1)
    assert "add login=identity to its URL's parameters" in told


def test_the_guard_can_be_looked_at(site: Machine) -> None:
    """It is in step; it says so; it can be made to compare everything."""
    site.run("invite", "-o", "guard.join")
    assert site.run("guard", "show").startswith("in step")
    assert (True, "") == tuple(site.ask("guard", "sync")[name] for name in ("in_step", "problem"))
    assert "the broker is as the store says\n" == site.run("guard", "diff")
    assert "" == site.run("guard", "diff", "--json")


def test_data_topics_are_a_members_own(machine: Machine) -> None:
    """What a group's members may publish and subscribe is said once, and kept over a restart."""
    server = machine.serve("--port", str(free_port()), "--interval", "0.05")
    server.start()
    try:
        assert {"publish": ["#"], "subscribe": ["#"]} == machine.ask("guard", "data")
        machine.run("invite", "--uses", "2")
        for member in ("one", "two"):
            machine.run("join", "fleet.join", "-i", member)
        chosen = ("--publish", "plant/%m/#", "--publish", "all", "--subscribe", "plant/#", "--subscribe", "all")
        assert "plant/%m/#" in machine.run("guard", "data", *chosen)
        server.stop()
        assert {"publish": ["plant/%m/#", "all"], "subscribe": ["plant/#", "all"]} == machine.ask("guard", "data")
        server.start()
        machine.run("pub", "-i", "one", "-t", "plant/two/x", "-m", "forged", "--retain")
        machine.run("pub", "-i", "one", "-t", "plant/one/x", "-m", "true", "--retain")
        assert "true\n" == machine.run("sub", "-i", "two", "-t", "plant/+/x", "-W", "4")
    finally:
        server.stop()


def test_brokers_ask_over_http(machine: Machine) -> None:
    """Another process answers by what the key server knows: at once, and with no while that is away."""
    server = machine.serve("--port", str(free_port()), "--interval", "0.05")
    server.start()
    port = free_port()
    command = [sys.executable, "-m", "brokerkm", "guard", "serve", "--listen", f"127.0.0.1:{port}"]
    service = Process(command, "brokers may ask at", machine.home, machine.environment)
    service.start()
    try:
        machine.run("invite", "--uses", "2")
        machine.run("join", "fleet.join", "-i", "one")
        home = Home(read_descriptor(machine.home / "fleet.join"), "one", machine.home / "s/brokerkm/fleet/one")
        member, _ = home.load(time.time)
        home.directory.close()
        username, password = member.login

        def asks() -> str:
            body = json.dumps({"username": username, "password": password}).encode()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/emqx/authenticate", body) as answer:
                return str(json.load(answer)["result"])

        assert ["allow"] * 3 == [asks() for _ in range(3)]
        machine.run("member", "evict", "one")
        deadline = time.monotonic() + 1
        while "deny" != asks():
            assert time.monotonic() < deadline
        machine.run("member", "readmit", "one")
        deadline = time.monotonic() + 1
        while "allow" != asks():
            assert time.monotonic() < deadline
        server.stop()
        deadline = time.monotonic() + PROMPT
        while "deny" != asks():
            assert time.monotonic() < deadline
        server.start()
        while "allow" != asks():
            assert time.monotonic() < deadline + PROMPT
    finally:
        service.stop()
        server.stop()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        assert "in use already" in machine.run("guard", "serve", "--listen", place, status=1)
    assert "go together" in machine.run("guard", "serve", "--tls-cert", "x.pem", status=2)


def test_a_guard_has_to_be_named(machine: Machine) -> None:
    """Without a server, or with one that has no guard, it is said where to name one."""
    machine.run("group", "create", "plant")
    assert "[guard] kind" in machine.run("guard", "show", status=2)
    assert "publish" in machine.run("guard", "data")
    assert "filter" in machine.run("guard", "data", "--publish", "a/#/b", status=2)


def test_a_kind_needs_a_broker(machine: Machine) -> None:
    """The embedded broker has its own guard."""
    (machine.home / "server.toml").write_text('[guard]\nkind = "mosquitto-plugin"\n')
    told = machine.run("serve", "--config", "server.toml", status=2)
    assert "name it by [broker] url" in told


def test_mosquitto_with_the_plugin(machine: Machine, mosquitto: GuardedMosquitto) -> None:
    """A device comes by invitation, with nothing but its identity key, and hears why it has to go."""
    (machine.home / "password").write_text(KEYSERVER["password"])
    (machine.home / "password").chmod(0o600)
    (machine.home / "server.toml").write_text(
        f'[broker]\nurl = "{mosquitto.url}"\nusername = "{KEYSERVER["username"]}"\n'
        f'password = "file:{machine.home}/password"\n\n[guard]\nkind = "mosquitto-plugin"\n'
    )
    server = machine.serve("--config", "server.toml", "--interval", "0.05")
    server.start()
    try:
        machine.run("invite", "--uses", "2")
        for member in ("one", "two"):
            machine.run("join", "fleet.join", "-i", member)
        machine.run("pub", "-i", "one", "-t", "plant/pump", "-m", "21.4", "--retain")
        assert "21.4\n" == machine.run("sub", "-i", "two", "-t", "plant/pump", "-C", "1", "-W", "30")
        machine.run("pub", "-i", "one", "-t", "plant/valve", "-m", "open", "--retain")
        sub = machine.start("sub", "-i", "two", "-t", "plant/#")
        assert sub.stdout is not None
        assert "open\n" == sub.stdout.readline()
        machine.run("member", "evict", "two")
        _, told = sub.communicate(timeout=PROMPT)
        assert (1, True) == (sub.returncode, "two out of group fleet" in told), told
        assert "two is out of group fleet" in machine.run("pub", "-i", "two", "-t", "plant/x", "-m", "x", status=1)
        refused = machine.run("join", "fleet.join", "-i", "two", "--rejoin", status=1)
        assert "two may have been cut off" in refused
        machine.run("member", "readmit", "two")
        machine.run("join", "fleet.join", "-i", "two", "--rejoin")
        machine.run("pub", "-i", "one", "-t", "plant/pump", "-m", "22.0", "--retain")
        assert "22.0\n" == machine.run("sub", "-i", "two", "-t", "plant/pump", "-C", "1", "-W", "30")
    finally:
        server.stop()

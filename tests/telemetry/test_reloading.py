"""What a running server takes over at SIGHUP: its certificate, how often others may ask, what new groups begin with."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import time
from typing import TYPE_CHECKING

import pytest
from api.certificates import Authority
from brokers.mqtt import guarded_mosquitto
from brokers.process import free_port
from cryptography import x509
from telemetry.test_serving import _PASSWORD as PASSWORD
from telemetry.test_serving import Server, configured

from brokerkm.core.names import Topics
from brokerkm.transport import Options, create

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from brokers.mqtt import MqttBroker

TOLD = r"the configuration was read again"


class Site:
    """A server with a TLS listener, and what its configuration says."""

    def __init__(self, home: Path, broker: MqttBroker) -> None:
        self.home, self.broker, self.port = home, broker, free_port()
        self.authority = Authority(home, "ca")
        self.files = self.authority.issue("server")
        self.write()
        self.server = Server(home)

    def write(self, api: str = "", more: str = "", defaults: str = "grace = 77") -> None:
        """Write the configuration."""
        listen = f'listen = "127.0.0.1:{self.port}"\ncert_file = "{self.files[0]}"\nkey_file = "{self.files[1]}"'
        path = configured(self.home, self.broker, f'log_level = "info"\n[api]\n{listen}\n{api}\n{more}')
        path.write_text(path.read_text().replace("grace = 77", defaults))

    def reload(self) -> str:
        """Have the server read it again; return what it says."""
        seen = len(self.server.written)
        self.server.process.send_signal(signal.SIGHUP)
        return self.server.wait(TOLD + "|the old one stays", seen)

    def serial(self) -> int:
        """Return the number of the certificate that the listener shows."""
        context = ssl.create_default_context(cafile=str(self.authority.path))
        with (
            socket.create_connection(("127.0.0.1", self.port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as link,
        ):
            shown = link.getpeercert(binary_form=True)
            assert shown is not None
            return x509.load_der_x509_certificate(shown).serial_number

    def ask(self) -> int:
        """Return the status of a call without a credential."""
        context = ssl.create_default_context(cafile=str(self.authority.path))
        with (
            socket.create_connection(("127.0.0.1", self.port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as link,
        ):
            link.sendall(b"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return int(link.recv(64).split()[1])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Start a server and its broker."""
    with guarded_mosquitto({"keyserver": PASSWORD}) as broker:
        made = Site(tmp_path, broker)
        yield made
        assert 0 == made.server.stop()


def test_a_renewed_certificate_is_shown(site: Site) -> None:
    """The same files with other contents, or other files; half of a pair changes nothing, and is said."""
    first = site.serial()
    site.authority.issue("server")
    assert first == site.serial()
    site.reload()
    second = site.serial()
    assert first != second
    site.files = site.authority.issue("other")
    site.write()
    assert "api.cert_file" in site.reload()
    third = site.serial()
    assert third not in (first, second)
    site.files[1].write_bytes(site.authority.issue("server")[1].read_bytes())
    assert "the old one stays" in site.reload()
    assert third == site.serial()


def test_callers_may_ask_as_often_as_it_says_then(site: Site) -> None:
    """By address, before it is known who asks."""
    assert {401} == {site.ask() for _ in range(20)}
    site.write(api="rate = 0.1\nburst = 2")
    assert "api.burst" in site.reload()
    assert [401] * 4 + [429] * 4 == [site.ask() for _ in range(8)]


def test_requests_of_members_are_limited_as_it_says_then(site: Site) -> None:
    """Of the same burst, far fewer are looked at."""
    assert _looked_at(site, 40, "early") > 5
    site.write(more="[limits]\nmember_rate = 0.01\nmember_burst = 1\nspare_rate = 0\nspare_burst = 1")
    assert "limits.member_burst" in site.reload()
    assert _looked_at(site, 40, "late") <= 2


def _looked_at(site: Site, count: int, member: str) -> int:
    """Send false requests of one member; return how many were refused for what they are, and not for being many."""
    before = _refused(site)
    asyncio.run(_send(site, count, member))
    deadline = time.monotonic() + 30
    while sum((after := _refused(site)).values()) - sum(before.values()) < count:
        assert time.monotonic() < deadline, after
    return sum(number - before.get(reason, 0) for reason, number in after.items() if reason not in ("rate", "busy"))


async def _send(site: Site, count: int, member: str) -> None:
    transport = create(site.broker.url, Options(username="keyserver", password=PASSWORD))
    await transport.open()
    try:
        for _ in range(count):
            await transport.request(Topics("plant").request(member), b"\x92\x01\x05")
    finally:
        await transport.close()


def _refused(site: Site) -> dict[str, int]:
    """Return how many requests were refused, by reason."""
    samples = site.server.samples().items()
    return {key[1]: int(value) for key, value in samples if key[0] == "brokerkm_requests_refused_total"}


def test_new_groups_begin_as_it_says_then(site: Site) -> None:
    """Those that are there stay as they are."""
    site.write(defaults='grace = 99\ndegree = 8\nsuite = "mlkem768-x25519"')
    assert "defaults.grace" in site.reload()
    site.server.run("group", "create", "yard")
    groups = [json.loads(line) for line in site.server.run("group", "list", "--json").splitlines()]
    assert {"plant": (77, 4), "yard": (99, 8)} == {
        one["name"]: (one["policy"]["grace"], one["degree"]) for one in groups
    }

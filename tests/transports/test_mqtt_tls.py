"""TLS with certificates on both ends, with Mosquitto as shipped for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from brokers import mqtt
from brokers.process import free_port

from brokerkm.errors import TransportError
from brokerkm.testing import Listener
from brokerkm.transport import Delivery, Options, Outgoing, create

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def tls_mosquitto(certificates: Path) -> Iterator[int]:
    """Run Mosquitto with what the comments of the shipped file say about certificates; yield its port."""
    port = free_port()
    text = mqtt.shipped("mosquitto/brokerkm.conf", {})
    kept = [line for line in text.splitlines() if not line.startswith(("listener", "allow_anonymous", "password_file"))]
    lines = [line.removeprefix("#").split(" #")[0] for line in kept]
    conf = "\n".join(line for line in lines if line.split(" ")[0] in _OPTIONS)
    for name in ("ca.crt", "server.crt", "server.key"):
        conf = conf.replace(f"/etc/mosquitto/certs/{name}", f"certs/{name.replace('server', 'broker')}")
    acl = mqtt.DEPLOY / "mosquitto/brokerkm.acl"
    files = {f"certs/{path.name}": path.read_text() for path in certificates.iterdir()}
    files["brokerkm.acl"] = acl.read_text()
    conf = conf.replace("listener 8883", f"listener {port} 127.0.0.1").replace(
        "/etc/mosquitto/brokerkm.acl", "brokerkm.acl"
    )
    with mqtt.mosquitto(conf, port, files):
        yield port


_OPTIONS = {
    "listener",
    "acl_file",
    "cafile",
    "certfile",
    "keyfile",
    "require_certificate",
    "use_identity_as_username",
    "set_tcp_nodelay",
}


def _options(certificates: Path, **changes: str | None) -> Options:
    files = {"ca_file": "ca.crt", "cert_file": "alice.crt", "key_file": "alice.key", **changes}
    return Options(timeout=5, **{name: str(certificates / file) for name, file in files.items() if file})


async def test_certificate_is_the_member(tls_mosquitto: int, certificates: Path) -> None:
    """Who has alice's certificate is alice to the access list."""
    transport = create(f"mqtts://127.0.0.1:{tls_mosquitto}", _options(certificates))
    await transport.open()
    try:
        await transport.request("bkm/1/g/r/alice", b"mine")
        with pytest.raises(TransportError, match="Not authorized"):
            await transport.request("bkm/1/g/r/bob", b"not mine")
        await transport.subscribe(["app/x"])
        await transport.publish(Outgoing("app/x", bytes(200_000)))
        assert await Listener(transport).delivery() == Delivery("app/x", bytes(200_000))
    finally:
        await transport.close()


async def test_broker_of_another_authority(tls_mosquitto: int, certificates: Path) -> None:
    """A broker whose certificate is not signed by the given authority gets nothing."""
    transport = create(f"mqtts://127.0.0.1:{tls_mosquitto}", _options(certificates, ca_file="other.crt"))
    with pytest.raises(TransportError, match="ca_file"):
        await transport.open()
    await transport.close()


async def test_no_client_certificate(tls_mosquitto: int, certificates: Path) -> None:
    """A broker that wants a certificate and gets none closes; the error says why that may be."""
    transport = create(f"mqtts://127.0.0.1:{tls_mosquitto}", _options(certificates, cert_file=None, key_file=None))
    with pytest.raises(TransportError, match="certificate"):
        await transport.open()
    await transport.close()


async def test_plain_broker_is_no_tls_broker(mosquitto: mqtt.MqttBroker, certificates: Path) -> None:
    """Speaking TLS to a plain port fails in time, with the address."""
    transport = create(mosquitto.url.replace("mqtt:", "mqtts:"), _options(certificates))
    with pytest.raises(TransportError, match=str(mosquitto.port)):
        await transport.open()
    await transport.close()

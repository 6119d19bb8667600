"""URLs and options of the MQTT transport that cannot work, refused before any connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from brokerkm.errors import UsageError
from brokerkm.transport import Options, Outgoing, create
from brokerkm_mqtt.address import parse

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "printed", "tls"),
    [
        ("mqtt://broker", "broker:1883", False),
        ("mqtts://broker", "broker:8883", True),
        ("mqtt://user:pass@127.0.0.1:99", "127.0.0.1:99", False),
        ("mqtt://[::1]/", "[::1]:1883", False),
    ],
)
def test_address(url: str, printed: str, tls: bool) -> None:  # noqa: FBT001 - an expected value
    """The ports are MQTT's own unless the URL names one."""
    address = parse(url, Options())
    assert (printed, tls) == (str(address), address.tls is not None)


@pytest.mark.parametrize(
    ("url", "options", "what"),
    [
        ("mqtt://", Options(), "host"),
        ("mqtt://broker/path", Options(), "no path"),
        ("mqtt://broker:0", Options(), "write mqtt://"),
        ("mqtt://broker:70000", Options(), "write mqtt://"),
        ("mqtt://broker?version=4", Options(), "version"),
        ("mqtt://broker?other=1", Options(), "other"),
        ("mqtt://broker", Options(password="secret"), "user name"),
        ("mqtt://broker", Options(clean_start=False), "client_id"),
        ("mqtt://broker", Options(ca_file="ca.pem"), "mqtts://"),
        ("mqtts://broker", Options(ca_file="missing.pem"), "missing.pem"),
        ("mqtts://broker", Options(key_file="key.pem"), "cert_file"),
        ("mqtt://broker", Options(will=Outgoing("a/+", b"")), "wildcard"),
    ],
)
def test_refusal_names_what_is_wrong(url: str, options: Options, what: str) -> None:
    """Who typed it learns what to change, and no password is repeated."""
    with pytest.raises(UsageError, match=what) as caught:
        create(url, options)
    assert "secret" not in str(caught.value)


def test_protected_key_is_not_asked_for(certificates: Path) -> None:
    """A key file with a passphrase is refused instead of asking a terminal that may not be there."""
    options = Options(
        ca_file=str(certificates / "ca.crt"),
        cert_file=str(certificates / "alice.crt"),
        key_file=str(certificates / "protected.key"),
    )
    with pytest.raises(UsageError, match="passphrase"):
        create("mqtts://broker", options)

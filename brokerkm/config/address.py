"""Addresses to listen on: ``HOST:PORT``, ``[IPv6]:PORT``, or ``PORT`` for this machine alone."""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

from brokerkm.errors import UsageError

LOOPBACK: Final = "127.0.0.1"
_MAX_PORT: Final = 0xFFFF


class Address(NamedTuple):
    """Where to listen; port 0 is one that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse(text: str) -> Address:
    """Return the address that `text` is; raises `UsageError`."""
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        message = "an IPv6 address goes into brackets: [::1]:9469"
        raise UsageError(message)
    if not (port.isascii() and port.isdigit() and int(port) <= _MAX_PORT):
        message = f"write HOST:PORT, or PORT for this machine alone; a port is at most {_MAX_PORT}"
        raise UsageError(message)
    return Address(host or LOOPBACK, int(port))

"""Where the broker is and how to get in: the URL and the options, checked before any connection."""

from __future__ import annotations

import dataclasses
import ssl
import urllib.parse
from typing import TYPE_CHECKING, Final

from paho.mqtt.enums import MQTTProtocolVersion

from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from brokerkm.transport import Options

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_VERSIONS: Final = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_TLS_FILES: Final = ("ca_file", "cert_file", "key_file")


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """A broker's address; `tls` is None for plain TCP, `versions` are tried in this order."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    versions: tuple[MQTTProtocolVersion, ...]

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse(url: str, options: Options) -> Address:
    """Return the address in `url`.

    Raises:
        UsageError: the URL is no broker's, or contradicts the options, or a TLS file is unusable.
    """
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port is None:
        port = _PORTS[parts.scheme]
    if not port:
        message = "write mqtt://HOST:PORT or mqtts://HOST:PORT, with a port of 1 to 65535"
        raise UsageError(message)
    if not parts.hostname or parts.path.strip("/") or parts.fragment:
        message = "an MQTT URL has a host and no path: mqtt://HOST:PORT"
        raise UsageError(message)
    if options.password is not None and options.username is None:
        message = "MQTT has no password without a user name: give both"
        raise UsageError(message)
    if not options.clean_start and not options.client_id:
        message = "the broker finds an earlier session by its client_id: give one"
        raise UsageError(message)
    versions = tuple(_VERSIONS.values())
    for name, value in options.parameters.items():
        if name != "version" or value not in _VERSIONS:
            message = f"{name}={value}: the only parameter of an MQTT URL is version=5 or version=3.1.1"
            raise UsageError(message)
        versions = (_VERSIONS[value],)
    return Address(parts.hostname, port, _tls(parts.scheme, options), versions)


def _tls(scheme: str, options: Options) -> ssl.SSLContext | None:
    if scheme == "mqtt":
        for name in _TLS_FILES:
            if getattr(options, name):
                message = f"{name} is for TLS: write mqtts:// to use it"
                raise UsageError(message)
        return None
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
        if options.cert_file:
            context.load_cert_chain(options.cert_file, options.key_file, _no_passphrase)
        elif options.key_file:
            message = "key_file belongs to a certificate: give its cert_file"
            raise UsageError(message)
    except OSError as error:
        message = f"TLS files {options.ca_file}, {options.cert_file}, {options.key_file}: {error}"
        raise UsageError(message) from error
    return context


def _no_passphrase() -> str:
    message = "key_file is protected by a passphrase, and nobody may be there to type it: decrypt it first"
    raise UsageError(message)

"""The keys of the configuration, by section: what the program reads, and all that its documentation says of them."""

# ruff: noqa: RUF009 - `key` declares a field

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - the types are read at run time
from typing import TYPE_CHECKING, Final

from brokerkm.config import address
from brokerkm.config.key import key
from brokerkm.config.roles import ClientRoles  # noqa: TC001 - the types are read at run time
from brokerkm.config.secret import Secret  # noqa: TC001 - the types are read at run time
from brokerkm.core.names import DEFAULT_PREFIX, Topics, is_identifier
from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SECONDS: Final = 0xFFFFFFFF  # a policy's times go as 32 bits
_DAY: Final = 24 * 3600


def _name(text: str) -> str:
    return "" if is_identifier(text) else "it has to be 1 to 64 of A-Z a-z 0-9 . _ -"


def _prefix(text: str) -> str:
    try:
        Topics("any", text)
    except UsageError as error:
        return str(error)
    return ""


def _url(text: str) -> str:
    if not text:
        return ""
    try:
        parts = urllib.parse.urlsplit(text)
        password, _ = parts.password, parts.port
    except ValueError:
        return "it is no URL"
    if password is not None:
        return "a password does not belong here: name it in `password`, by reference"
    return "" if parts.scheme else "write a URL: scheme://host:port"


def _store_url(text: str) -> str:
    known = ("sqlite:///", "postgresql://", "postgres://")
    if text and not text.startswith(known):
        return "write sqlite:///PATH or postgresql://HOST/DATABASE"
    return _url(text)


def _address(text: str) -> str:
    try:
        if text:
            address.parse(text)
    except UsageError as error:
        return str(error)
    return ""


def _http_url(text: str) -> str:
    wrong = text and urllib.parse.urlsplit(text).scheme not in {"http", "https"}
    return "write http://HOST:PORT or https://HOST:PORT" if wrong else _url(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The process itself."""

    state: Path | None = key(
        None,
        "Directory of the key server: control socket, SQLite file and what it makes by itself. Default: "
        "$STATE_DIRECTORY of systemd, else ~/.local/state/brokerkm-server.",
        sample="/var/lib/brokerkm",
    )
    group: str = key("fleet", "Group that is made if there is none yet.", check=_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where groups, keys and messages are kept."""

    url: str = key(
        "",
        "sqlite:///PATH (three slashes, then the path: sqlite:////var/lib/x is absolute) or "
        "postgresql://USER@HOST/DATABASE. Default: brokerkm.sqlite in the state directory.",
        check=_store_url,
        sample="postgresql://brokerkm@db.example/brokerkm",
    )
    password: Secret | None = key(None, "Password at PostgreSQL, by reference.", sample="credential:database-password")
    next_key: Secret | None = key(
        None,
        "The store key after the next `brokerkm store rewrap`: servers that share a database, on whichever of them "
        "that is done, go on with it; name it for all of them before, and as `key` afterwards.",
        sample="file:/etc/brokerkm/store-2.key",
    )
    key: Secret | None = key(
        None,
        "The store key, which seals all keys at rest: file:PATH, credential:NAME (systemd), env:NAME, command:PROGRAM "
        "or pkcs11:URI. Default: store.key in the state directory, made at the first start.",
        sample="credential:store-key",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """The message broker."""

    url: str = key(
        "",
        "URL of the broker. Default: a small one in this process, which only this machine reaches.",
        check=_url,
        sample="mqtts://broker.example",
    )
    device_url: str = key(
        "", "URL at which devices reach the broker, if it is another one.", check=_url, sample="mqtts://broker.example"
    )
    port: int = key(1883, "Port of the broker in this process.", low=0, high=65535)
    username: str = key("", "User name at the broker.", sample="keyserver")
    password: Secret | None = key(
        None, "Password at the broker, by reference.", sample="credential:broker-password", live=True
    )
    ca_file: Path | None = key(
        None, "TLS trust anchor, or the ZeroMQ hub's CURVE public key.", sample="/etc/ssl/certs/ca.pem"
    )
    cert_file: Path | None = key(None, "TLS client certificate.", sample="/etc/brokerkm/broker.pem")
    key_file: Path | None = key(
        None, "Key of the client certificate, or a CURVE key.", sample="/etc/brokerkm/broker.key"
    )
    keepalive: int = key(30, "Time between signs of life.", unit="s", low=1, high=65535)
    timeout: float = key(10.0, "How long one operation may take.", unit="s", low=0.1, high=600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The administrators' HTTP interface; it is always on the Unix socket in the state directory."""

    listen: str = key(
        "",
        "HOST:PORT of an additional TLS listener; PORT alone is for this machine. Default: none.",
        check=_address,
        sample="0.0.0.0:8443",
    )
    cert_file: Path | None = key(None, "Its TLS certificate chain.", sample="/etc/brokerkm/api.pem", live=True)
    key_file: Path | None = key(None, "Key of that certificate.", sample="/etc/brokerkm/api.key", live=True)
    client_ca: Path | None = key(
        None, "CA of client certificates; once it is set, they are asked for.", sample="/etc/brokerkm/clients.pem"
    )
    client_roles: ClientRoles | None = key(
        None,
        "What client certificates may do, by common name: viewer, operator or admin; others need a token.",
        sample="console=operator, dashboard=viewer",
    )
    rate: float = key(100.0, "Calls that one caller may make in the long run.", unit="1/s", low=0.1, live=True)
    burst: int = key(500, "Calls that one caller may make at once.", low=1, live=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What the server shows of itself."""

    listen: str = key(
        "",
        "HOST:PORT of /metrics, /healthz and /readyz; PORT alone is for this machine. They tell no secret, but how "
        "many members there are. Default: none.",
        check=_address,
        sample="127.0.0.1:9469",
    )
    max_groups: int = key(
        100, "Groups with metrics of their own; the others share the label (other).", low=0, high=10_000
    )
    log_level: str = key(
        "warning",
        "What is logged, on standard error.",
        choices=("debug", "info", "warning", "error"),
        live=True,
    )
    log_format: str = key(
        "text", "How: text, json (an object a line), or journal.", choices=("text", "json", "journal"), live=True
    )
    otel_endpoint: str = key(
        "",
        "OTLP/HTTP endpoint of traces; needs pip install 'brokerkm[otel]'. Default: no traces.",
        check=_http_url,
        sample="http://127.0.0.1:4318/v1/traces",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Several servers on one PostgreSQL database."""

    lease: float = key(
        10.0, "How long a server leads a group without renewing; a take-over lasts up to twice that.", unit="s", low=1
    )
    advertise: str = key(
        "", "URL at which other servers and operators reach this one's HTTP interface.", check=_http_url
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """How the broker keeps members to their own topics; the broker in this process always does."""

    kind: str = key(
        "",
        "What tells the broker who may do what, and disconnects whom it must not serve any more; see deploy/ for each "
        "broker. Default: nothing, as for rules in the broker's own files.",
        sample="mosquitto-plugin",
    )
    applicants: bool = key(
        default=True, text="Whether devices that are not known yet may connect to the broker, to ask for a place."
    )
    url: str = key(
        "",
        "Where the broker is administered. Default: the URL of [broker].",
        check=_url,
        sample="http://127.0.0.1:15672",
    )
    username: str = key("", "User name there. Default: that of [broker].", sample="admin")
    password: Secret | None = key(
        None, "Password there, by reference. Default: that of [broker].", sample="credential:admin-password"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a new group begins with, unless its creator says otherwise."""

    prefix: str = key(DEFAULT_PREFIX, "What all topics of the group begin with.", check=_prefix, live=True)
    suite: str = key(
        "x25519",
        "Seals Welcomes; the second one also against quantum computers.",
        choices=("x25519", "mlkem768-x25519"),
        live=True,
    )
    degree: int = key(4, "Children of a tree node.", low=2, high=64, live=True)
    interval: float = key(
        1.0,
        "How long a change waits for others to be made together, unless it is urgent.",
        unit="s",
        low=0,
        high=_DAY,
        live=True,
    )
    max_pending: int = key(1024, "Changes that wait at most.", low=1, high=1_000_000, live=True)
    beacon_interval: int = key(30, "Time between Beacons.", unit="s", low=1, high=MAX_SECONDS, live=True)
    grace: int = key(
        30, "How long messages under an older key are accepted.", unit="s", low=0, high=MAX_SECONDS, live=True
    )
    hold: int = key(5, "How long a message waits for its key.", unit="s", low=0, high=MAX_SECONDS, live=True)
    max_silence: int = key(
        300, "How long no new Beacon may come before a member says so.", unit="s", low=1, high=MAX_SECONDS, live=True
    )
    stop_when_silent: bool = key(default=True, text="Whether a member that hears no Beacon stops sending.", live=True)
    source_authentication: bool = key(
        default=False, text="Whether every message carries its sender's signature.", live=True
    )
    algorithm: str = key(
        "aes-256-gcm", "How messages are sealed.", choices=("aes-256-gcm", "chacha20-poly1305"), live=True
    )
    acknowledge: int = key(
        0, "Within how long members confirm a new epoch; 0: they do not.", unit="s", low=0, high=MAX_SECONDS, live=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What keeps members and strangers from wearing the server out; each pair is a rate and what may come at once."""

    member_rate: float = key(1.0, "Requests of one member.", unit="1/s", low=0.01, live=True)
    member_burst: int = key(10, "Requests of one member at once.", low=1, live=True)
    total_rate: float = key(2000.0, "Requests of all members; a false one costs 0.1 ms.", unit="1/s", low=1, live=True)
    total_burst: int = key(4000, "Requests of all members at once.", low=1, live=True)
    spare_rate: float = key(500.0, "Requests beyond a member's own, for all of them.", unit="1/s", low=0, live=True)
    spare_burst: int = key(1000, "The same, at once.", low=1, live=True)
    refusal_rate: float = key(200.0, "Signed refusals.", unit="1/s", low=0.1, live=True)
    refusal_burst: int = key(400, "Signed refusals at once.", low=1, live=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All sections; what nobody set has its default."""

    server: Server = field(default_factory=Server)
    store: Store = field(default_factory=Store)
    broker: Broker = field(default_factory=Broker)
    api: Api = field(default_factory=Api)
    telemetry: Telemetry = field(default_factory=Telemetry)
    cluster: Cluster = field(default_factory=Cluster)
    guard: Guard = field(default_factory=Guard)
    defaults: Defaults = field(default_factory=Defaults)
    limits: Limits = field(default_factory=Limits)


SECTIONS: Final[Mapping[str, type]] = {
    "server": Server,
    "store": Store,
    "broker": Broker,
    "api": Api,
    "telemetry": Telemetry,
    "cluster": Cluster,
    "guard": Guard,
    "defaults": Defaults,
    "limits": Limits,
}

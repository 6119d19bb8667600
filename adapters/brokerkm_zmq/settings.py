"""What a URL and `Options` mean for ZeroMQ.

``zmq+tcp://HOST:PORT`` uses two ports: PORT for what goes down to subscribers (XPUB) and PORT + 1 for
what members submit (ROUTER). ``zmq+ipc:///PATH`` uses the sockets PATH and PATH.req; who may
connect is decided by the directory's permissions.

CURVE is on if any key is given. The server takes its secret key from `key_file`, which it makes
(0600) if it does not exist, or from nowhere with ``?curve=new``: a key pair for this process. A
member pins the server's public key by `ca_file`, a file that holds it, or ``?server_key=`` (Z85, percent-encoded);
its own secret key comes from `key_file` or is made for this process. The server's ``?members=FILE`` lists
who may connect (`keys.read_members`).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
import pathlib
import urllib.parse
from typing import TYPE_CHECKING, Final

import zmq

from brokerkm.errors import UsageError
from brokerkm.transport import Role
from brokerkm_zmq import keys, wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from brokerkm.transport import Options

_log = logging.getLogger(__name__)

_MAX_PORT: Final = 65534  # the next one is needed too
_DEFAULTS: Final = {
    "high_water": 10_000,  # messages that wait for one subscriber before it loses some
    "cache_topics": 1 << 20,
    "cache_bytes": 1 << 30,
}
_MINIMUM_HIGH_WATER: Final = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Where and how to connect or bind.

    Args:
        down, up: libzmq endpoints of XPUB and ROUTER.
        pair: own CURVE keys, or None for no encryption.
        server_key: public key of the hub, for a member.
        members: public key to member id, for a hub that checks them.
        prefix: topics below it are key management: members may only submit requests there.
        high_water: messages that wait for one peer, in each direction.
        patience: seconds for which a full subscriber holds up the others before it loses messages.
        cache_topics, cache_bytes: bounds of the last-value cache.
        keepalive, timeout: seconds.
        queue_size, max_payload: as in `Options`.
    """

    down: str
    up: str
    role: Role
    pair: keys.KeyPair | None
    server_key: str | None
    members: Mapping[str, str] | None
    prefix: str
    high_water: int
    patience: float
    cache_topics: int
    cache_bytes: int
    keepalive: int
    timeout: float
    queue_size: int
    max_payload: int

    @property
    def burst(self) -> int:
        """Messages that a hub sends to one subscriber in answer to one command, at most."""
        return min(wire.MAX_FILTERS, self.high_water // 4)


def read(url: str, options: Options) -> Settings:
    """Return the settings for a URL; raises `UsageError` for what this adapter cannot do."""
    _refuse_foreign(options)
    parameters = {**options.parameters, **dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))}
    down, up = endpoints(url, options.role)
    numbers = {name: _number(parameters, name, default) for name, default in _DEFAULTS.items()}
    prefix = parameters.pop("prefix", "bkm/1").strip("/")
    patience = _number(parameters, "patience_ms", 500) / 1000
    pair, server_key, members = _keys(options, parameters)
    if parameters:
        message = f"zmq URL: unknown parameters: {', '.join(sorted(parameters))}"
        raise UsageError(message)
    if options.role is Role.SERVER and pair is None and not _is_local(down):
        _log.warning("%s accepts anybody and encrypts nothing: give a key file for CURVE", down)
    return Settings(
        down=down,
        up=up,
        role=options.role,
        pair=pair,
        server_key=server_key,
        members=members,
        prefix=prefix,
        high_water=max(_MINIMUM_HIGH_WATER, numbers["high_water"]),
        patience=patience,
        cache_topics=numbers["cache_topics"],
        cache_bytes=numbers["cache_bytes"],
        keepalive=options.keepalive,
        timeout=options.timeout,
        queue_size=options.queue_size,
        max_payload=options.max_payload,
    )


def endpoints(url: str, role: Role) -> tuple[str, str]:
    """Return the libzmq endpoints of XPUB and ROUTER."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "zmq+ipc":
        return _ipc(parts.netloc + urllib.parse.unquote(parts.path))
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "zmq+tcp" or not parts.hostname or port is None or not 0 < port <= _MAX_PORT:
        message = f"{url}: want zmq+tcp://HOST:PORT with PORT from 1 to {_MAX_PORT}, or zmq+ipc:///PATH"
        raise UsageError(message)
    if parts.path not in ("", "/") or parts.fragment:
        message = f"{url}: zmq+tcp takes no path"
        raise UsageError(message)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if host == "localhost" and role is Role.SERVER:
        host = "127.0.0.1"  # libzmq binds to addresses and interfaces, not to names
    return f"tcp://{host}:{port}", f"tcp://{host}:{port + 1}"


def _ipc(path: str) -> tuple[str, str]:
    suffix = ".req"
    longest = zmq.IPC_PATH_MAX_LEN - len(suffix)
    if not path or len(path.encode()) > longest:
        message = f"zmq+ipc: path {path!r} must have 1 to {longest} bytes"
        raise UsageError(message)
    return f"ipc://{path}", f"ipc://{path}{suffix}"


def _refuse_foreign(options: Options) -> None:
    foreign = {
        "username": options.username is not None,
        "password": options.password is not None,
        "cert_file": options.cert_file is not None,
        "will": options.will is not None,
        "session_expiry": options.session_expiry != 0,
        "clean_start=False": not options.clean_start,
    }
    refused = [name for name, given in foreign.items() if given]
    if refused:
        message = f"ZeroMQ has no {', '.join(refused)}: keys take the place of passwords, and no broker keeps sessions"
        raise UsageError(message)


def _number(parameters: dict[str, str], name: str, default: int) -> int:
    text = parameters.pop(name, None)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 12:  # noqa: PLR2004 - fits any bound here
        message = f"zmq URL: {name} must be a whole number"
        raise UsageError(message)
    return int(text)


def _keys(
    options: Options, parameters: dict[str, str]
) -> tuple[keys.KeyPair | None, str | None, Mapping[str, str] | None]:
    server_key = parameters.pop("server_key", None)
    members_file = parameters.pop("members", None)
    curve = parameters.pop("curve", None)
    if curve not in (None, "new"):
        message = "zmq URL: curve can only be 'new': a key pair for this process"
        raise UsageError(message)
    if options.role is Role.SERVER:
        if server_key is not None or options.ca_file is not None:
            message = "server_key and ca_file pin the hub's key: they are for members"
            raise UsageError(message)
        pair = keys.new_key_pair() if curve else _own_pair(options.key_file, make=True)
        if members_file is not None and pair is None:
            message = "a list of members needs CURVE: give a key file"
            raise UsageError(message)
        return pair, None, keys.read_members(members_file) if members_file is not None else None
    if members_file is not None or curve is not None:
        message = "members and curve are the hub's parameters"
        raise UsageError(message)
    if server_key is not None:
        server_key = keys.check_public_key(server_key, "server_key")
    elif options.ca_file is not None:
        server_key = keys.read_public_key(options.ca_file)
    pair = _own_pair(options.key_file, make=False)
    if pair is not None and server_key is None:
        message = "a key file without the hub's public key: give ca_file or server_key"
        raise UsageError(message)
    if server_key is not None and pair is None:
        pair = keys.new_key_pair()
    return pair, server_key, None


def _own_pair(path: str | None, *, make: bool) -> keys.KeyPair | None:
    if path is None:
        return None
    if make and not pathlib.Path(path).exists():
        return keys.make_key_file(path)
    return keys.read_key_pair(path)


def _is_local(endpoint: str) -> bool:
    if endpoint.startswith("ipc://"):
        return True
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "lo")

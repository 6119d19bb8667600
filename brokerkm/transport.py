"""What brokerkm needs from a message broker, and where adapters for one are found.

A `Transport` carries opaque payloads under topics. It knows nothing of keys, members or
groups: those are the business of `brokerkm.core`. An adapter is a class named by an entry
point of the group ``brokerkm.transports`` under the URL scheme that it serves; only the one
that a URL names is imported.

Rules that every adapter keeps, and that `brokerkm.testing` checks:

* A topic is matched exactly; only a filter with ``+`` or ``#`` (MQTT's wildcards, section 4.7 of
  MQTT 5) matches more than one. ``n/1`` never receives ``n/10``.
* What one publisher sends on one topic arrives in order.
* A retained payload reaches a subscriber that comes later, once for each new subscription. An
  empty retained payload clears it.
* After a reconnection every subscription is in force again without the caller's doing.
* The queue between the network and the caller is bounded; a slow caller slows the network down.
* Nothing is lost silently: a publish that was not accepted raises.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib.metadata
import math
import urllib.parse
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from brokerkm.errors import TransportError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

ENTRY_POINTS: Final = "brokerkm.transports"


class Role(enum.Enum):
    """Which end of a group's traffic a transport serves."""

    SERVER = "server"
    MEMBER = "member"


@dataclasses.dataclass(frozen=True, slots=True)
class Outgoing:
    """One payload to publish.

    Args:
        topic: exact topic, UTF-8, no wildcard.
        payload: opaque bytes; empty with `retain` clears the retained payload.
        retain: keep as the topic's last value for later subscribers.
        audience: member id that alone may read the topic, or None for all members; an adapter
            that can keep others from it does.
        until: on `brokerkm.clock.boot_time`, after which an adapter does not begin to send it.
    """

    topic: str
    payload: bytes
    retain: bool = False
    audience: str | None = None
    until: float = math.inf


@dataclasses.dataclass(frozen=True, slots=True)
class Delivery:
    """One payload received; `retained` says that it was a last value, not a live one."""

    topic: str
    payload: bytes
    retained: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Connected:
    """The broker is connected and all subscriptions are in force: after `open`, and after each `Disconnected`.

    What a subscription brings at once may come before it.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class Disconnected:
    """The broker is gone; the adapter goes on trying by itself."""

    reason: str


Incoming = Delivery | Connected | Disconnected


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to connect; what an adapter does not have, it refuses with `UsageError`.

    Args:
        role: server or member.
        client_id: name of this connection, unique at the broker.
        username, password: the broker's own authentication, if it wants one.
        ca_file, cert_file, key_file: TLS trust anchor, client certificate, its key (PEM paths).
        clean_start: drop a session that the broker kept.
        session_expiry: seconds for which the broker keeps the session of a lost connection.
        keepalive: seconds between signs of life.
        timeout: seconds that one operation may take before `TransportError`.
        queue_size: payloads held between network and caller.
        max_payload: bytes of the largest payload taken from the network.
        will: published by the broker if this client vanishes.
        parameters: the URL's query, for what only one adapter knows.
    """

    role: Role = Role.MEMBER
    client_id: str = ""
    username: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    clean_start: bool = True
    session_expiry: int = 0
    keepalive: int = 30
    timeout: float = 10.0
    queue_size: int = 1024
    max_payload: int = 256 * 1024
    will: Outgoing | None = None
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])


class Transport(Protocol):
    """A connection to a broker; see the module for the rules that it keeps."""

    def __init__(self, url: str, options: Options) -> None:
        """Remember where to connect; raises `UsageError` for what this adapter cannot do."""

    @property
    def max_payload(self) -> int:
        """Bytes of the largest payload that `publish` takes; known once open."""
        ...

    @property
    def supports_shared(self) -> bool:
        """Whether a filter ``$share/NAME/FILTER`` shares what matches FILTER among all who subscribe it; once open."""
        ...

    async def open(self) -> None:
        """Connect; raises `TransportError` if the first attempt fails. Reconnects by itself later."""

    async def close(self) -> None:
        """Send what was accepted, disconnect cleanly, end `incoming`. May be called twice."""

    async def publish(self, message: Outgoing) -> None:
        """Return when the broker has accepted it; raises `TransportError` if it has not in time."""

    async def publish_batch(self, messages: Sequence[Outgoing]) -> None:
        """Publish all, in order per topic, with many under way at once; raises if any was not accepted."""

    async def request(self, topic: str, payload: bytes) -> None:
        """Send a member's request to the server; accepted means on its way, not answered."""

    async def subscribe(self, filters: Collection[str]) -> None:
        """Receive what matches from now on, and what is retained; raises if the broker refuses."""

    async def unsubscribe(self, filters: Collection[str]) -> None:
        """Receive it no longer; a filter that was not subscribed is not an error."""

    def incoming(self) -> AsyncIterator[Incoming]:
        """Yield deliveries and connection events until `close`; for one consumer."""
        ...


@runtime_checkable
class Displacing(Protocol):
    """What a `Transport` can do besides if its broker has one connection for each client id."""

    async def displace(self, client_id: str) -> bool:
        """End another client's connection: what the broker has not read of it by now it never will.

        Returns:
            Whether it is ended; False if the broker does not let this client speak for that one.

        Raises:
            TransportError: the broker does not answer.
        """
        ...


def schemes() -> list[str]:
    """Return the URL schemes that installed adapters serve, sorted; imports none of them."""
    return sorted(point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS))


def create(url: str, options: Options) -> Transport:
    """Return the transport for `url`, not yet open.

    The URL's user, password and query override the options.

    Raises:
        UsageError: no adapter serves the scheme, or the adapter refuses the URL or an option.
        TransportError: the adapter is installed but cannot be imported.
    """
    parts = urllib.parse.urlsplit(url)
    found = importlib.metadata.entry_points(group=ENTRY_POINTS, name=parts.scheme)
    if not found:
        message = f"no transport for {parts.scheme or url!r}; known schemes: {', '.join(schemes())}"
        raise UsageError(message)
    (point, *others) = found
    if others:
        message = f"transport {parts.scheme!r} is claimed by more than one package: uninstall one"
        raise UsageError(message)
    try:
        adapter = point.load()
    except ImportError as error:
        message = f"transport {parts.scheme!r} ({point.value}) cannot be imported: {error}"
        raise TransportError(message) from error
    changes: dict[str, object] = {}
    if parts.username is not None:
        changes["username"] = urllib.parse.unquote(parts.username)
    if parts.password is not None:
        changes["password"] = urllib.parse.unquote(parts.password)
    if parts.query:
        try:
            query = urllib.parse.parse_qs(parts.query, strict_parsing=True)
        except ValueError:
            message = f"parameters {parts.query!r}: write name=value&name=value"
            raise UsageError(message) from None
        changes["parameters"] = {**options.parameters, **{key: values[-1] for key, values in query.items()}}
    transport: Transport = adapter(url, dataclasses.replace(options, **changes))  # type: ignore[arg-type]
    return transport

"""paho's client as `Link` uses it: an engine for the protocol, and what a CONNACK says about the broker."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from brokerkm.errors import LoginRefusedError, TransportError

if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode

    from brokerkm.transport import Options
    from brokerkm_mqtt.pipe import Pipe

IN_FLIGHT: Final = 500  # messages sent and not acknowledged; more was not faster on any broker
ENVELOPE: Final = 65535 + 1024  # bytes of a PUBLISH besides its payload: the longest topic, and properties
_NOT_THIS_ONE: Final = ("Bad user name or password", "Not authorized", "Client identifier not valid", "Banned")
_UNLIMITED: Final = 65535  # MQTT 5, section 3.2.2.3.3: the receive maximum if none is named
_MAX_PACKET: Final = 268_435_455 + 5  # bytes; MQTT 5, section 2.1.4


class VersionRefusedError(TransportError):
    """The broker does not know this version of MQTT."""


class Engine(Client):
    """paho's client on a connection that asyncio has made, which goes through `pipe`."""

    pipe: Pipe

    def _create_socket(self) -> Pipe:  # the one private name of paho that is overridden
        return self.pipe


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What the broker grants: messages in flight, bytes of a packet, retaining, QoS 1, seconds of keep-alive."""

    window: int
    max_packet: int
    retains: bool
    has_qos1: bool
    keepalive: int

    @classmethod
    def of_any_broker(cls, options: Options) -> Limits:
        """Return what MQTT grants until a broker says otherwise."""
        return cls(IN_FLIGHT, _MAX_PACKET, retains=True, has_qos1=True, keepalive=options.keepalive)

    @classmethod
    def granted(cls, properties: Properties | None, options: Options) -> Limits:
        """Return what is in a CONNACK: MQTT 5, section 3.2.2.3."""
        return cls(
            window=max(1, min(IN_FLIGHT, getattr(properties, "ReceiveMaximum", _UNLIMITED))),
            max_packet=getattr(properties, "MaximumPacketSize", _MAX_PACKET),
            retains=bool(getattr(properties, "RetainAvailable", 1)),
            has_qos1=getattr(properties, "MaximumQoS", 1) > 0,
            keepalive=getattr(properties, "ServerKeepAlive", options.keepalive),
        )


def engine(options: Options, version: MQTTProtocolVersion, *, clean: bool) -> Engine:
    """Return a client that has not connected; it needs its callbacks and its pipe."""
    five = version is MQTTProtocolVersion.MQTTv5
    client = Engine(
        CallbackAPIVersion.VERSION2,
        client_id=options.client_id,
        clean_session=None if five else clean,
        protocol=version,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.username_pw_set(options.username, options.password)
    if options.will is not None:
        client.will_set(options.will.topic, options.will.payload, qos=1, retain=options.will.retain)
    client.max_inflight_messages = 0  # no queue in paho: `Link.can_publish` keeps the window
    if five:
        wishes: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        wishes.SessionExpiryInterval = options.session_expiry
        wishes.ReceiveMaximum = max(1, min(options.queue_size // 2, _UNLIMITED))  # `Inbox` has room for as many again
        wishes.MaximumPacketSize = options.max_payload + ENVELOPE
        client.connect_async("broker", keepalive=options.keepalive, clean_start=clean, properties=wishes)
    else:
        client.connect_async("broker", keepalive=options.keepalive)
    return client


def refusal(code: ReasonCode, options: Options) -> TransportError:
    """Return the error that a refusing CONNACK means."""
    name = str(code)
    if name == "Unsupported protocol version":
        return VersionRefusedError("the broker refused this version of MQTT")
    who = f"user {options.username!r}" if options.username else "a client without user name"
    message = f"the broker refused {who} (client id {options.client_id!r}): {name}"
    if name in ("Bad user name or password", "Not authorized"):
        message += "; check the user name, the password and the broker's list of users"
    if name in _NOT_THIS_ONE:
        return LoginRefusedError(message)
    return TransportError(message)

"""RabbitMQ's `rabbitmq_auth_backend_http`, with its MQTT plugin: forms, answered by ``allow`` or ``deny``.

https://github.com/rabbitmq/rabbitmq-server/tree/v3.10.x/deps/rabbitmq_auth_backend_http

The broker asks with topics as AMQP has them: ``.`` between the levels, ``*`` for one. A dot within a level is the same
to it as the end of the level, so a group or member whose name has one cannot be told apart there and is refused. Only
MQTT's questions name a client id; a device has no business with AMQP, where it could read the queues of others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.guard.authorizer.judge import Action
from brokerkm.guard.authorizer.question import PLAIN, Dialect, MalformedError, Reply, form, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from brokerkm.guard.authorizer.judge import Judge

VHOST: Final = "/"
EXCHANGE: Final = "amq.topic"  # where the MQTT plugin publishes
QUEUE: Final = "mqtt-subscription-{}qos{}"  # what it calls the queues of a client
DENY: Final = Reply(b"deny", PLAIN)
_ALLOW: Final = Reply(b"allow", PLAIN)
_ACTIONS: Final = {"read": Action.SUBSCRIBE, "write": Action.PUBLISH}


async def user(judge: Judge, _headers: Mapping[str, str], body: bytes) -> Reply:
    """Answer whether somebody may connect."""
    fields = form(body)
    username, password = text(fields, "username"), text(fields, "password")
    return _say(bool(fields.get("client_id")) and await judge.connects(username, password))


async def vhost(judge: Judge, _headers: Mapping[str, str], body: bytes) -> Reply:
    """Answer whether somebody may use a virtual host."""
    fields = form(body)
    username = text(fields, "username")
    return _say(text(fields, "vhost") == VHOST and await judge.exists(username))


async def resource(judge: Judge, _headers: Mapping[str, str], body: bytes) -> Reply:
    """Answer whether somebody may use an exchange or a queue: those of MQTT, all else is AMQP's."""
    fields = form(body)
    username, name, permission = text(fields, "username"), text(fields, "name"), text(fields, "permission")
    match text(fields, "resource"):
        case "exchange":
            fits = name == EXCHANGE and permission in ("read", "write")
        case "queue":
            fits = name in {QUEUE.format(fields.get("client_id"), qos) for qos in (0, 1)}
        case "topic":
            fits = name == EXCHANGE
        case _:
            fits = False
    return _say(fits and text(fields, "vhost") == VHOST and await judge.exists(username))


async def topic(judge: Judge, _headers: Mapping[str, str], body: bytes) -> Reply:
    """Answer whether somebody may publish or bind with a routing key."""
    fields = form(body)
    username, key = text(fields, "username"), text(fields, "routing_key")
    action = _ACTIONS.get(text(fields, "permission"))
    if action is None:
        message = "permission: neither read nor write"
        raise MalformedError(message)
    fits = text(fields, "vhost") == VHOST and text(fields, "name") == EXCHANGE
    return _say(fits and await judge.may(username, action, key.replace(".", "/").replace("*", "+")))


def _say(allowed: bool) -> Reply:  # noqa: FBT001 - the verdict
    return _ALLOW if allowed else DENY


DIALECT: Final = Dialect({"/user": user, "/vhost": vhost, "/resource": resource, "/topic": topic}, DENY)

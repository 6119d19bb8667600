"""The broker: is it reached, does a message come back, does it keep retained ones, and may strangers write rekeys.

All of it happens below a topic of the doctor's own, ``PREFIX/doctor-RANDOM``, where nobody else is.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
import time
from typing import TYPE_CHECKING, Final

from brokerkm import transport
from brokerkm.core.names import Topics
from brokerkm.doctor.finding import Finding, fail, ok, warn
from brokerkm.errors import TransportError, UsageError
from brokerkm.transport import Delivery, Options, Outgoing, Role

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from brokerkm.transport import Transport

_PATIENCE: Final = 3.0  # seconds for a message to come
_SLOW: Final = 1.0  # seconds; a round trip that rekeys would suffer from


async def look(url: str, options: Options, prefix: str) -> AsyncIterator[Finding]:
    """Yield what is found of the broker at `url`.

    Args:
        options: of the server's own connection.
    """
    topics = Topics(f"doctor-{secrets.token_hex(6)}", prefix)
    try:
        async with _connected(url, options) as link:
            yield ok("broker", "it is reached, and takes this login" if options.username else "it is reached")
            yield await _round_trip(link, topics)
            yield await _retained(link, url, options, topics)
            async for finding in _strangers(link, url, options, topics):
                yield finding
    except (TransportError, UsageError) as error:
        yield fail("broker", f"{error}", "check broker.url, the login, TLS files and the broker's access list")


async def _round_trip(link: Transport, topics: Topics) -> Finding:
    payload = secrets.token_bytes(16)
    await link.subscribe([topics.beacon])
    began = time.perf_counter()
    await link.publish(Outgoing(topics.beacon, payload))
    came = await _comes(link, topics.beacon, payload, retained=False)
    return round_trip(time.perf_counter() - began if came else None, topics.prefix)


def round_trip(took: float | None, prefix: str) -> Finding:
    """Return what it means that a message came back after some seconds, or did not."""
    if took is None:
        text = "the broker took a message and did not deliver it to its subscriber"
        return fail("round trip", text, f"let the server's user read and write {prefix}/#")
    text = f"a message comes back after {took * 1000:.1f} ms"
    return (
        ok("round trip", text)
        if took < _SLOW
        else warn("round trip", text, "look at the broker's load and its network")
    )


async def _retained(link: Transport, url: str, options: Options, topics: Topics) -> Finding:
    topic, payload = topics.node(1, 0), secrets.token_bytes(16)
    try:
        await link.publish(Outgoing(topic, payload, retain=True))
    except TransportError as error:
        return fail("retained", f"{error}", "switch retained messages on at the broker (deploy/ has settings)")
    try:
        async with _connected(url, options) as late:
            await late.subscribe([topic])
            kept = await _comes(late, topic, payload, retained=True)
    finally:
        await link.publish(Outgoing(topic, b"", retain=True))
    if kept:
        return ok("retained", "the broker gives a retained message to who comes later")
    text = "the broker does not keep retained messages: members that were away ask the server for everything"
    return fail("retained", text, "switch retained messages on at the broker (deploy/ has settings)")


async def _strangers(link: Transport, url: str, options: Options, topics: Topics) -> AsyncIterator[Finding]:
    """Yield whether a client without a login gets in, and whether it can write where only the server may."""
    stranger = dataclasses.replace(
        options, role=Role.MEMBER, username=None, password=None, cert_file=None, key_file=None, client_id=""
    )
    topic, payload = topics.node(2, 0), secrets.token_bytes(16)
    await link.subscribe([topic])
    try:
        async with _connected(url, stranger) as other:
            with contextlib.suppress(TransportError):
                await other.publish(Outgoing(topic, payload))
            heard = await _comes(link, topic, payload, retained=False)
    except (TransportError, UsageError):
        yield ok("access list", "the broker turns away who has no login")
        return
    if not heard:
        yield ok("access list", "who has no login gets in, but cannot write rekeys")
        return
    text = "anybody can write on the topics of rekeys: members refuse forgeries, but can be flooded with them"
    advice = "demand a login and set an access list: deploy/ has both for Mosquitto, RabbitMQ and NATS"
    yield fail("access list", text, advice) if options.username else warn("access list", text, advice)


async def _comes(link: Transport, topic: str, payload: bytes, *, retained: bool) -> bool:
    """Return whether the broker delivers `payload` in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            async for item in link.incoming():
                if isinstance(item, Delivery) and (item.topic, item.payload) == (topic, payload):
                    return item.retained or not retained
    return False


@contextlib.asynccontextmanager
async def _connected(url: str, options: Options) -> AsyncGenerator[Transport]:
    link = transport.create(url, options)
    await link.open()
    try:
        yield link
    finally:
        await link.close()

"""`brokerkm.transport.Transport` over MQTT: one link at a time, and what must outlive it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import secrets
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

from paho.mqtt.enums import MQTTProtocolVersion

from brokerkm.errors import LoginRefusedError, TransportError, UsageError
from brokerkm.topics import check_filter, check_topic
from brokerkm.transport import Connected, Delivery, Disconnected, Incoming, Options, Outgoing
from brokerkm_mqtt.address import parse
from brokerkm_mqtt.backoff import Backoff
from brokerkm_mqtt.engine import VersionRefusedError
from brokerkm_mqtt.inbox import Inbox
from brokerkm_mqtt.link import HungUpError, Link, LinkLostError, dial
from brokerkm_mqtt.parcel import Parcel
from brokerkm_mqtt.subscriptions import Subscriptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

_PATIENCE: Final = 3.0  # seconds for an answer to MQTT 5: amqtt 0.12 reads its CONNECT as 3.1.1's and waits for more

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class MqttTransport:
    """A client of the broker that the URL names; see the package for what a URL may say.

    After a subscription that the broker refused only in part, the filters that it granted are in force.

    Raises:
        UsageError: the URL or an option is not one that MQTT can serve.
    """

    def __init__(self, url: str, options: Options) -> None:
        self._address = parse(url, options)
        if options.will is not None:
            check_topic(options.will.topic)
        self._options = dataclasses.replace(options, client_id=options.client_id or f"bkm-{secrets.token_hex(8)}")
        self._versions = self._address.versions
        self._subscriptions = Subscriptions()
        self._outbox: deque[Parcel] = deque()
        self._inbox = Inbox(options.queue_size)
        self._link: Link | None = None
        self._changed = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._closed = False

    def renew_password(self, password: str) -> None:
        """Use another password from the next connection on."""
        self._options = dataclasses.replace(self._options, password=password)

    @property
    def max_payload(self) -> int:
        """Bytes of the largest payload that `publish` takes: the smaller of the broker's limit and our own."""
        limit = self._options.max_payload
        return limit if self._link is None else min(limit, self._link.max_payload)

    @property
    def supports_shared(self) -> bool:
        """Whether ``$share/NAME/FILTER`` can be subscribed: MQTT 5 has it."""
        return self.version == "5"

    @property
    def version(self) -> str:
        """The version of MQTT that is spoken, ``5`` or ``3.1.1``; empty while disconnected."""
        link = self._link
        return "" if link is None else "5" if link.version is MQTTProtocolVersion.MQTTv5 else "3.1.1"

    async def open(self) -> None:
        """Connect; can be done once.

        Raises:
            TransportError: the broker cannot be reached, or refuses this client.
        """
        if self._supervisor is not None or self._closed:
            message = "a transport is opened once: create another"
            raise UsageError(message)
        await self._establish(clean=self._options.clean_start)
        self._supervisor = asyncio.create_task(self._stay_connected(), name=f"mqtt {self._address}")

    async def close(self) -> None:
        """Disconnect and end `incoming`; may be called twice. Publishes that still wait fail."""
        if self._closed:
            return
        self._closed = True
        self._changed.set()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        if self._link is not None:
            await self._link.close(self._options.timeout)
        for parcel in self._outbox:
            parcel.settle("this client closed the connection")
        self._outbox.clear()
        self._inbox.close()

    async def publish(self, message: Outgoing) -> None:
        """Return when the broker has acknowledged the message (QoS 1).

        Raises:
            UsageError: the topic is not exact or the payload too large.
            TransportError: the broker refused it, or did not answer in time; then it may or may not have it.
        """
        await self.publish_batch([message])

    async def publish_batch(self, messages: Sequence[Outgoing]) -> None:
        """Publish all in this order, hundreds in flight; raises as `publish` does, after all were tried."""
        for message in messages:
            self._check(message)
        loop = asyncio.get_running_loop()
        parcels = [Parcel(message, loop.create_future()) for message in messages]
        self._outbox.extend(parcels)
        self.writable()
        refused: list[TransportError] = []
        try:
            for parcel in parcels:
                await self._settled(parcel, refused)
        finally:
            for parcel in parcels:
                parcel.accepted.cancel()
        if len(refused) > 1:
            text = f"{len(refused)} of {len(messages)} payloads were not accepted; the first: {refused[0]}"
            raise TransportError(text) from refused[0]
        if refused:
            raise refused[0]

    async def request(self, topic: str, payload: bytes) -> None:
        """Publish to whoever subscribes `topic`: the server."""
        await self.publish(Outgoing(topic, payload))

    async def subscribe(self, filters: Collection[str]) -> None:
        """Receive what matches from now on, and what the broker retained.

        Raises:
            UsageError: a filter is malformed.
            TransportError: the broker refused a filter, or did not answer in time.
        """
        wanted = list(dict.fromkeys(check_filter(pattern) for pattern in filters))
        new = self._subscriptions.add(wanted)  # before the answer: retained messages may arrive first
        try:
            refused = dict(await self._ask(lambda link: link.subscribe(wanted)))
        except BaseException:
            self._subscriptions.remove(new)
            raise
        self._subscriptions.remove(refused)
        if refused:
            (pattern, reason), *_ = refused.items()
            message = (
                f"the broker refused {len(refused)} of {len(wanted)} filters, {pattern!r} first: {reason}; "
                "see whether its access list lets this user read there"
            )
            raise TransportError(message)

    async def unsubscribe(self, filters: Collection[str]) -> None:
        """Receive it no longer; a filter that was not subscribed is not an error."""
        unwanted = list(dict.fromkeys(check_filter(pattern) for pattern in filters))
        self._subscriptions.remove(unwanted)
        await self._ask(lambda link: link.unsubscribe(unwanted))

    async def displace(self, client_id: str) -> bool:
        """End another client's connection by connecting under its name (MQTT 5, section 3.1.4-3), and leave."""
        options = dataclasses.replace(self._options, client_id=client_id, clean_start=True, session_expiry=0, will=None)
        try:
            async with asyncio.timeout(self._options.timeout):
                link = await self._dial(options, clean=True)
                await link.close(_PATIENCE)
        except LoginRefusedError as error:
            _log.warning("client %s cannot be displaced: %s", client_id, error)
            return False
        except TimeoutError:
            message = f"the broker at {self._address} did not answer within {self._options.timeout:g} s"
            raise TransportError(message) from None
        return True

    async def incoming(self) -> AsyncIterator[Incoming]:
        """Yield deliveries and connection events until `close`, and what was queued by then."""
        while (item := await self._inbox.get()) is not None:
            if self._link is not None:
                self._link.taken()
            yield item

    # What the link says: `brokerkm_mqtt.link.Owner`.

    def has_room(self, *, urgent: bool) -> bool:
        """Tell whether one more delivery fits the queue."""
        return self._inbox.has_room(urgent=urgent)

    def received(self, delivery: Delivery) -> bool:
        """Queue a delivery; return whether the broker may send another in its place.

        What matches no filter is passed over, unless an earlier session may have subscribed it: amqtt 0.12 greets
        every client with the retained messages that others have subscribed.
        """
        if not self._options.clean_start or self._subscriptions.take_in(delivery.topic):
            self._inbox.put(delivery)
        return not self._inbox.is_half_full()

    def writable(self) -> None:
        """Put in flight what waits, as far as the window goes."""
        link = self._link
        while link is not None and self._outbox and link.can_publish():
            parcel = self._outbox.popleft()
            if not parcel.accepted.done():
                link.publish(parcel)

    def lost(self, link: Link, reason: str) -> None:
        """Take back what was in flight, in its order, and let the supervisor connect again."""
        if link is not self._link:
            return
        self._link = None
        self._outbox.extendleft(reversed(link.in_flight.values()))
        self._changed.set()
        if not self._closed:
            _log.info("lost the broker at %s: %s", self._address, reason)
            self._inbox.note(Disconnected(reason))

    # The connection.

    async def _stay_connected(self) -> None:
        backoff = Backoff(random.uniform)
        clean = self._options.clean_start and self._options.session_expiry == 0
        clock = asyncio.get_running_loop().time
        while True:
            since = clock()
            while self._link is not None:
                await self._change()
            backoff.lasted(clock() - since)
            while self._link is None:
                await asyncio.sleep(backoff.next())
                try:
                    await self._establish(clean=clean)
                except TransportError as error:
                    _log.info("not connected yet: %s", error)
                except Exception:  # noqa: BLE001 - a broker's whims must not end the only task that reconnects
                    _log.exception("connecting to the broker at %s failed", self._address)

    async def _establish(self, *, clean: bool) -> None:
        try:
            async with asyncio.timeout(self._options.timeout):
                link = await self._dial(self._options, clean=clean)
                try:
                    await self._subscribe_again(link)
                except BaseException:
                    link.abort("not established")
                    raise
        except TimeoutError:
            message = f"the broker at {self._address} did not answer within {self._options.timeout:g} s"
            raise TransportError(message) from None
        self._link = link
        self._inbox.note(Connected())
        self._changed.set()
        self.writable()

    async def _subscribe_again(self, link: Link) -> None:
        refused = await link.subscribe(self._subscriptions.all())
        if refused:
            message = f"the broker no longer grants {refused[0][0]!r}: {refused[0][1]}"
            raise TransportError(message)

    async def _dial(self, options: Options, *, clean: bool) -> Link:
        """Connect with the newest version of MQTT that the broker knows.

        One that refuses MQTT 5, or falls silent, is never asked for it again. One that just hangs up is: it
        may only have been about to stop.
        """
        version, *older = self._versions
        if not older:
            return await dial(self._address, options, version, clean=clean, owner=self)
        try:
            async with asyncio.timeout(_PATIENCE):
                return await dial(self._address, options, version, clean=clean, owner=self)
        except HungUpError as error:
            hung_up = error
        except (VersionRefusedError, TimeoutError):
            hung_up = None
        try:
            link = await dial(self._address, options, older[0], clean=clean, owner=self)
        except HungUpError as error:
            raise hung_up or error from None
        if hung_up is None:
            self._versions = (older[0],)
        return link

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _ask(self, question: Callable[[Link], Awaitable[_T]]) -> _T:
        """Return the broker's answer, of the next link if this one breaks."""
        try:
            async with asyncio.timeout(self._options.timeout):
                while True:
                    link = self._opened()
                    if link is None:
                        await self._change()
                        continue
                    with contextlib.suppress(LinkLostError):
                        return await question(link)
        except TimeoutError:
            message = f"the broker at {self._address} did not answer within {self._options.timeout:g} s"
            raise TransportError(message) from None

    async def _settled(self, parcel: Parcel, refused: list[TransportError]) -> None:
        """Wait for one parcel; those before it are settled, so each has the whole timeout for itself."""
        try:
            if parcel.accepted.done():
                parcel.accepted.result()
            else:  # not `wait_for`, which forgets a cancellation that comes with the answer
                async with asyncio.timeout(self._options.timeout):
                    await parcel.accepted
        except TimeoutError:
            message = (
                f"the broker at {self._address} has not acknowledged {parcel.message.topic!r} "
                f"within {self._options.timeout:g} s: it is {'slow' if self._link else 'not connected'}"
            )
            raise TransportError(message) from None
        except TransportError as error:
            refused.append(error)

    def _check(self, message: Outgoing) -> None:
        self._opened()
        check_topic(message.topic)
        if len(message.payload) > self.max_payload:
            text = f"{len(message.payload)} bytes for {message.topic!r}: at most {self.max_payload} can be published"
            raise UsageError(text)

    def _opened(self) -> Link | None:
        if self._closed or self._supervisor is None:
            message = "not connected: the transport is not open, or closed"
            raise TransportError(message)
        return self._link if self._link is not None and self._link.is_open else None

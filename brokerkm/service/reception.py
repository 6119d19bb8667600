"""What the broker delivers, brought to whoever judges it: Beacons, Handovers, and members' requests."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from brokerkm.core.names import BeaconTopic, HandoverTopic, RequestTopic
from brokerkm.errors import RefusedError, TransportError, UnfitError
from brokerkm.service.feed import Feed, Kind
from brokerkm.transport import Connected, Delivery, Disconnected

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.service.live import LiveGroup
    from brokerkm.service.requests import Requests
    from brokerkm.service.retained import RetainedBeacons
    from brokerkm.service.roster import Roster
    from brokerkm.service.routes import Routes
    from brokerkm.transport import Transport

_log = logging.getLogger(__name__)


class Reception:
    """Hands on what comes, as long as `run` runs.

    Args:
        forward: takes a request (group, member, payload) of a group that another server leads.
        unfit: told of a group that must not be served any longer, and why.

    Attributes:
        connected: whether the broker is reached now.
        reconnected: set after each interruption.
    """

    def __init__(
        self,
        transport: Transport,
        routes: Routes,
        roster: Roster,
        *,
        retained: RetainedBeacons,
        requests: Requests,
        forward: Callable[[str, str, bytes], None],
        unfit: Callable[[LiveGroup, UnfitError], None],
        feed: Feed,
    ) -> None:
        self.connected = False
        self.reconnected: Final = asyncio.Event()
        self._transport: Final = transport
        self._routes: Final = routes
        self._roster: Final = roster
        self._retained: Final = retained
        self._requests: Final = requests
        self._forward: Final = forward
        self._unfit: Final = unfit
        self._feed: Final = feed
        self._stopping = False

    async def run(self) -> None:
        """Hand on what the transport brings; raises `TransportError` if that ends before `stop`."""
        async for item in self._transport.incoming():
            match item:
                case Delivery():
                    await self.deliver(item)
                case Disconnected():
                    self.connected = False
                    self._feed.emit(Kind.BROKER_LOST, reason=item.reason)
                    _log.warning("the broker is gone: %s", item.reason)
                case Connected() if not self.connected:
                    self.connected = True
                    _log.info("the broker is back")
                    self._feed.emit(Kind.BROKER_BACK)
                    self.reconnected.set()
                case Connected():
                    pass
        if not self._stopping:
            message = "the transport ended by itself: start the server again"
            raise TransportError(message)

    def stop(self) -> None:
        """Find nothing strange in the transport's end."""
        self._stopping = True

    async def deliver(self, delivery: Delivery) -> None:
        """Hand one message on."""
        route = self._routes.find(delivery.topic)
        if route is None:
            return
        try:
            name = route.topics.parse(delivery.topic)
        except RefusedError as error:  # anybody may invent topics
            _log.debug("group %s: %s", route.group, error)
            return
        group = self._roster.groups.get(route.group)
        match name:
            case BeaconTopic() if group is not None and self._roster.serves(group):
                try:
                    self._retained.heard(group, delivery.payload, retained=delivery.retained)
                except UnfitError as error:
                    self._unfit(group, error)
            case HandoverTopic() if group is not None:
                self._retained.heard_handover(group, delivery.payload)
            case RequestTopic(member) if not delivery.retained:
                await self._request(route.group, member, delivery.payload)
            case _:
                pass

    async def _request(self, name: str, member: str, payload: bytes) -> None:
        group = self._roster.groups.get(name)
        if group is not None and group.record.destroyed:
            return
        if group is not None and self._roster.serves(group):
            self._requests.offer(group, member, payload)
        elif self._requests.may_forward(name, member, payload):
            self._forward(name, member, payload)

"""What amqtt loads: authentication and topic checks, both asked of the gatehouse."""

# pyright: reportMissingTypeStubs=false, reportPrivateUsage=false

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from amqtt.broker import BrokerContext
from amqtt.contexts import Action
from amqtt.errors import PluginInitError
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin

from brokerkm_amqtt.entrance import Entrance, guest_of
from brokerkm_amqtt.gatehouse import Gatehouse
from brokerkm_amqtt.mending import mend

if TYPE_CHECKING:
    from amqtt.contexts import BaseContext
    from amqtt.session import Session


class GuardPlugin(BaseAuthPlugin, BaseTopicPlugin):
    """Keeps members to their own topics, as its gatehouse says; whoever is no member is not let in."""

    @dataclass
    class Config(BaseAuthPlugin.Config):
        """What the plugin is given."""

        house: Any = None  # a `Gatehouse`; for programs

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        house: object = getattr(context.config, "house", None)
        if not isinstance(context, BrokerContext) or not isinstance(house, Gatehouse):
            message = "brokerkm_amqtt.GuardPlugin is for brokers, and needs a Gatehouse as `house`"
            raise PluginInitError(message)
        self.house: Final = house
        broker = context._broker_instance  # noqa: SLF001 - amqtt has no other way
        mend(broker)
        Entrance(broker, house).build()

    async def authenticate(self, *, session: Session) -> bool:
        """Return whether the client that has a session has come in by the entrance, and has not been sent away."""
        guest = guest_of(session)
        return guest is not None and not guest.gone

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool:
        """Return whether a client may do what it is about to."""
        guest = guest_of(session)
        if guest is None or not topic:
            return False
        match action:
            case Action.SUBSCRIBE:
                return guest.may_subscribe(topic)
            case Action.PUBLISH:
                return guest.may_publish(topic)
            case Action.RECEIVE:
                return guest.may_receive(topic)
            case _:
                return False

    async def on_broker_client_disconnected(self, *, client_id: str, client_session: Session) -> None:
        """Forget who has gone, unless the broker keeps its session."""
        del client_id
        guest = guest_of(client_session)
        if guest is not None and client_session.clean_session:
            self.house.leave(guest)

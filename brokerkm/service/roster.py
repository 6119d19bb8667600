"""The groups that a server leads, for how long, and what that lets it do on which topic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.service.fencing import Tenure
    from brokerkm.service.live import LiveGroup
    from brokerkm.service.routes import Routes
    from brokerkm.service.served import Served


class Roster:
    """Groups by name.

    Attributes:
        groups: those that are led; requests reach them.
        tenures: for how long each of them is.
        served: those of them that commit.
        holds: says of a group whether nothing may be published for it yet, although it is led.
    """

    def __init__(self, routes: Routes) -> None:
        self.groups: Final[dict[str, LiveGroup]] = {}
        self.tenures: Final[dict[str, Tenure]] = {}
        self.served: Final[dict[str, Served]] = {}
        self.holds: Callable[[str], bool] = lambda _: False
        self._routes: Final = routes

    def enter(self, live: LiveGroup, tenure: Tenure) -> None:
        """Lead a group, in place of what was in memory of it."""
        self.groups[live.name] = live
        self.tenures[live.name] = tenure
        self._routes.add(live.name, live.topics, led=True)

    def strike(self, group: str) -> LiveGroup:
        """Lead a group no longer, and return it."""
        live = self.groups.pop(group)
        self.tenures.pop(group, None)
        self.served.pop(group, None)
        self._routes.add(group, live.topics, led=False)
        return live

    def serves(self, group: LiveGroup) -> bool:
        """Return whether this server answers for a group as it is in memory here."""
        led = self.groups.get(group.name) is group and not group.record.destroyed
        return led and self.tenures[group.name].remaining() > 0

    def remaining(self, topic: str) -> float:
        """Return for how many seconds this server may publish on a topic."""
        route = self._routes.find(topic)
        if route is None:  # of no group: nobody else publishes there
            return math.inf
        tenure = self.tenures.get(route.group)
        return -math.inf if tenure is None or self.holds(route.group) else tenure.remaining()

    def retains(self, topic: str) -> bool:
        """Return whether the broker is to keep the newest message of a topic.

        Beacon and Handover always: they hold no keys, the server itself looks for them when it starts, and who was
        away at a hand-over finds the way to the new key nowhere else.
        """
        route = self._routes.find(topic)
        live = None if route is None else self.groups.get(route.group)
        if live is None or live.record.settings.retained:
            return True
        return topic in (live.topics.beacon, live.topics.handover)

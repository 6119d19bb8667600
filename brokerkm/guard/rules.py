"""What a member may subscribe, publish and receive at a guarded broker: plain functions of where it sits.

Of the protocol's topics (`schemas/README.md`, "Topics") a member reads those of its own path, the group's Beacon and
Handover, and its own; it writes its own requests. The levels above the tree's height are allowed as well: nobody
publishes there, and so nothing has to be changed at a broker when a tree grows. Of the other topics it has what the
group's data filters say. What begins with ``$`` is the broker's own and never allowed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from brokerkm.core.names import BeaconTopic, HandoverTopic, MemberTopic, NodeTopic, RequestTopic, Topics
from brokerkm.errors import RefusedError, UsageError
from brokerkm.topics import check_filter, check_topic, is_exact

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARE: Final = "$share"
MAX_FILTERS: Final = 64  # of a group's data, each way


class Rank(enum.Enum):
    """What somebody is to a guarded group."""

    SERVER = "server"  # the key server: everything
    MEMBER = "member"  # it has a seat
    APPLICANT = "applicant"  # it may ask for one


@dataclass(frozen=True, slots=True)
class DataFilters:
    """The application's topics that members of a group have; ``%m`` is the member id, ``%g`` the group.

    Raises:
        UsageError: a filter is malformed or there are too many.
    """

    publish: tuple[str, ...] = ("#",)
    subscribe: tuple[str, ...] = ("#",)

    def __post_init__(self) -> None:
        for name, filters in (("publish", self.publish), ("subscribe", self.subscribe)):
            if len(filters) > MAX_FILTERS:
                message = f"{name}: at most {MAX_FILTERS} filters, not {len(filters)}"
                raise UsageError(message)
            for pattern in filters:
                check_filter(pattern)

    def of(self, group: str, member: str) -> DataFilters:
        """Return what they are for one member."""

        def fill(filters: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(pattern.replace("%m", member).replace("%g", group) for pattern in filters)

        return DataFilters(fill(self.publish), fill(self.subscribe))


@dataclass(frozen=True, slots=True)
class Grant:
    """What one member of one group may do.

    Args:
        topics: the group's.
        degree: of its tree.
        slot: the member's leaf; None for an applicant.
        data: the group's data filters, as they are for this member (`DataFilters.of`).
        prefixes: what all topics of brokerkm at this broker begin with, those of other groups as well.
        identity: the public identity key that alone may log in under this id; empty while any may.
    """

    topics: Topics
    degree: int
    member: str
    rank: Rank
    slot: int | None = None
    data: DataFilters = DataFilters()
    prefixes: tuple[str, ...] = ()
    identity: bytes = b""

    def may_subscribe(self, pattern: str) -> bool:
        """Return whether the filter matches nothing that is not the member's to read."""
        if self.rank is Rank.SERVER:
            return True
        shared = pattern.split("/", 2)
        if shared[0] == SHARE:
            return len(shared) == 3 and self._is_data(shared[2], self.data.subscribe)  # noqa: PLR2004 - its parts
        return self._reads(pattern) or self._is_data(pattern, self.data.subscribe)

    def may_receive(self, topic: str) -> bool:
        """Return whether what is published under an exact topic is the member's to read."""
        return self.may_subscribe(topic) and not topic.startswith(f"{SHARE}/")

    def may_publish(self, topic: str, *, retain: bool = False) -> bool:
        """Return whether the member may publish under an exact topic."""
        if self.rank is Rank.SERVER:
            return True
        if topic == self.topics.request(self.member):
            return not retain  # a request that the broker repeats is a replay
        return is_exact(topic) and self._is_data(topic, self.data.publish)

    def subscriptions(self, height: int) -> Iterator[str]:
        """Yield the protocol's topics that the member subscribes in a tree of this height."""
        yield from (self.topics.beacon, self.topics.handover, self.topics.member(self.member))
        if self.slot is not None:
            yield self.topics.node(0, self.slot // self.degree)
            yield from (self.topics.node(level, self.slot // self.degree**level) for level in range(1, height + 1))

    def _reads(self, topic: str) -> bool:
        """Return whether an exact topic is one of the protocol's that the member reads."""
        try:
            name = self.topics.parse(topic)
        except RefusedError:
            return False
        match name:
            case BeaconTopic() | HandoverTopic():
                return True
            case MemberTopic(member):
                return member == self.member
            case NodeTopic(level, index) if self.slot is not None:
                return index == self.slot // int(self.degree ** max(level, 1))
            case NodeTopic() | RequestTopic():
                return False

    def _is_data(self, pattern: str, filters: tuple[str, ...]) -> bool:
        if self.rank is not Rank.MEMBER or not _is_well_formed(pattern) or pattern.startswith("$"):
            return False
        if any(overlaps(pattern, prefix) for prefix in (self.topics.prefix, *self.prefixes)):
            return False
        return any(covers(allowed, pattern) for allowed in filters)


def covers(allowed: str, pattern: str) -> bool:
    """Return whether the filter `allowed` matches every topic that the filter or topic `pattern` does.

    Both well-formed (MQTT 5, section 4.7).
    """
    if pattern.startswith("$") and allowed[0] in "+#":
        return False
    wide, narrow = allowed.split("/"), pattern.split("/")
    for index, level in enumerate(wide):
        if level == "#":
            return True
        if index == len(narrow) or narrow[index] == "#" or (level != "+" and level != narrow[index]):
            return False
    return len(wide) == len(narrow)


def overlaps(pattern: str, prefix: str) -> bool:
    """Return whether a filter or topic matches `prefix` or any topic below it."""
    levels = pattern.split("/")
    for index, part in enumerate(prefix.split("/")):
        if index == len(levels):
            return False
        if levels[index] == "#":
            return True
        if levels[index] not in ("+", part):
            return False
    return True


def _is_well_formed(pattern: str) -> bool:
    try:
        check_filter(pattern)
        if is_exact(pattern):
            check_topic(pattern)
    except UsageError:
        return False
    return True

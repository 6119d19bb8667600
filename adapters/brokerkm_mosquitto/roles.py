"""What members may do, in the roles of Mosquitto's dynamic security; nothing here is sent.

A role for each group has what all its members have in common, and one for each member what is its own. Of the rules of
a client the one of the highest priority counts. Subscribing is allowed more widely than reading: what arrives is
decided at each delivery (``publishClientReceive``), by the rules as they are then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.core.names import Topics
from brokerkm.guard.rules import Rank

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from brokerkm.guard.fleet import GuardedGroup
    from brokerkm.guard.rules import Grant

_PREFIX: Final = "brokerkm:"
_MEMBER: Final = "%m"  # in data filters, what stands for the member id
_SLOTS: Final = 4096  # for which each member has its whole path, so that a tree that grows changes nothing

# Priorities of rules: own topics, before all that brokerkm has, before the application's.
_OWN: Final = 3
_GUARDED: Final = 2
_DATA: Final = 1


class Rule(NamedTuple):
    """One ACL of a role."""

    acltype: str
    topic: str
    priority: int
    allow: bool


Role = frozenset[Rule]


def group_role(name: str) -> str:
    """Return the role's name of a group's seated members."""
    return f"{_PREFIX}{name}"


def member_role(group: str, member: str) -> str:
    """Return the role's name of one member."""
    return f"{_PREFIX}{group}:{member}"


def names_of(role: str) -> tuple[str, str] | None:
    """Return whose role it is, group and member or nothing; None if it is not one of ours."""
    group, _, member = role.removeprefix(_PREFIX).partition(":")
    return (group, member) if role.startswith(_PREFIX) else None


def of_group(group: GuardedGroup, prefixes: Sequence[str]) -> Role:
    """Return what all seated members of a group may do."""
    topics = Topics(group.name, group.prefix)
    data = group.data.of(group.name, _MEMBER)
    publish = [pattern for raw, pattern in zip(group.data.publish, data.publish, strict=True) if _MEMBER not in raw]
    subscribe = [
        pattern for raw, pattern in zip(group.data.subscribe, data.subscribe, strict=True) if _MEMBER not in raw
    ]
    paths = Rule("subscribePattern", f"{topics.root}/n/+/+", _OWN, allow=True)
    return frozenset({*_common(topics), paths, *_data(publish, subscribe, prefixes)})


def of_member(grant: Grant, group: GuardedGroup) -> Role:
    """Return what one member may do besides; for an applicant all that it may do."""
    topics, member = grant.topics, grant.member
    rules = {
        Rule("publishClientSend", topics.request(member), _OWN, allow=True),
        Rule("publishClientReceive", topics.member(member), _OWN, allow=True),
        Rule("subscribeLiteral", topics.member(member), _OWN, allow=True),
    }
    if grant.rank is not Rank.MEMBER:
        return frozenset({*rules, *_common(topics)})
    height = 1
    while grant.degree**height < max(_SLOTS, (grant.slot or 0) + 1):
        height += 1
    rules |= {Rule("publishClientReceive", topic, _OWN, allow=True) for topic in grant.subscriptions(height)}
    raw, data = group.data, grant.data
    publish = [pattern for one, pattern in zip(raw.publish, data.publish, strict=True) if _MEMBER in one]
    subscribe = [pattern for one, pattern in zip(raw.subscribe, data.subscribe, strict=True) if _MEMBER in one]
    return frozenset({*rules, *_data(publish, subscribe, grant.prefixes)})


def _common(topics: Topics) -> Iterator[Rule]:
    for topic in (topics.beacon, topics.handover):
        yield Rule("publishClientReceive", topic, _OWN, allow=True)
        yield Rule("subscribeLiteral", topic, _OWN, allow=True)


def _data(publish: Sequence[str], subscribe: Sequence[str], prefixes: Sequence[str]) -> Iterator[Rule]:
    """Yield rules for the application's topics, of which none is below a prefix."""
    for pattern in publish:
        yield Rule("publishClientSend", pattern, _DATA, allow=True)
    for pattern in subscribe:
        yield Rule("publishClientReceive", pattern, _DATA, allow=True)
        yield Rule("subscribePattern", pattern, _DATA, allow=True)
    if publish or subscribe:
        for kind in ("publishClientSend", "publishClientReceive", "subscribePattern"):
            yield from (Rule(kind, f"{prefix}/#", _GUARDED, allow=False) for prefix in prefixes)

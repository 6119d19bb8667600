"""How the groups spread over the servers: what one of them is to do, from what all of them can see.

Each server reckons for itself; the database settles who was first. A group without a leader goes to who has less than
a fair share, and after a lease time to anybody. Who has two groups more than another hands one over, and waits
until that has happened. A group that an operator has moved stays where it is while that server lives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from brokerkm.store.lease import Standing


class Plan(NamedTuple):
    """What to do now.

    Args:
        acquire: groups whose lease is to be asked for.
        release: groups that another server is waiting for.
        hand_over: a group and the server that is asked to take it, or None.
    """

    acquire: list[str]
    release: list[str]
    hand_over: tuple[str, str] | None


def plan(me: str, live: Collection[str], standings: Sequence[Standing], duration: float) -> Plan:
    """Return what the server `me` is to do.

    Args:
        live: ids of the servers that are alive.
        duration: seconds of a lease.
    """
    servers = {me, *live}
    counts = dict.fromkeys(servers, 0)
    for one in standings:
        if one.holder in counts:
            counts[one.holder] += 1
    fair = -(-len(standings) // len(servers))
    acquire: list[str] = []
    release: list[str] = []
    moving = False
    for one in standings:
        wanted = one.wanted if one.wanted in servers else None
        moving |= wanted is not None and one.holder != wanted
        if one.holder == me and wanted not in (None, me):
            release.append(one.group)
        elif one.holder is None and _is_mine(me, wanted, -one.remaining > duration, counts[me] < fair):
            acquire.append(one.group)
            counts[me] += 1
    if acquire or moving:
        return Plan(acquire, release, None)
    poorest = min(servers, key=lambda server: (counts[server], server))
    spare = [one.group for one in standings if one.holder == me and not one.pinned]
    too_many = counts[me] > counts[poorest] + 1 and spare
    return Plan(acquire, release, (spare[-1], poorest) if too_many else None)


def _is_mine(me: str, wanted: str | None, is_overdue: bool, has_room: bool) -> bool:  # noqa: FBT001 - facts
    """Return whether to ask for a group without a leader."""
    return is_overdue or wanted == me or (wanted is None and has_room)

"""Who is silent: found by the store's index, in pages, counted without being kept.

Silence is taken for absence only of a member that has confirmed an epoch before (RFC 8263's acknowledgements), and only
where epochs change often enough that it would have had something to confirm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.store.records import Status

if TYPE_CHECKING:
    from brokerkm.automation.rule import OnSilence
    from brokerkm.service.live import LiveGroup
    from brokerkm.store.protocol import Store

_PAGE: Final = 1000


class Silent(NamedTuple):
    """How many members are silent, and the first of them."""

    number: int
    first: list[str]


def objection(trigger: OnSilence, group: LiveGroup) -> str:
    """Return why silence says nothing in this group; "" if it does."""
    if not group.record.policy.acknowledge:
        return "members do not confirm epochs, so a quiet one looks like an absent one: set the policy's acknowledge"
    period = group.record.settings.root_period
    if not 0 < 2 * period <= trigger.unseen:
        return (
            "between two epochs there is nothing to confirm: set root_period to at most half of the silence, "
            f"{trigger.unseen // 2} s"
        )
    return ""


def find(store: Store, group: str, cutoff: int, keep: int) -> Silent:
    """Return the seated members that have not been heard since `cutoff`, the first `keep` of them by name.

    Args:
        cutoff: milliseconds since 1970.
    """
    count, first, after = 0, list[str](), ""
    while page := store.members(group, after=after, limit=_PAGE, status=Status.SEATED, unseen_since=cutoff):
        for record in page:
            if record.seen and record.acked:
                count += 1
                if len(first) < keep:
                    first.append(record.member)
        after = page[-1].member
    return Silent(count, first)

"""How members behave: clones, which show by their counters, and flapping devices, which come and go without end.

A request repeated by a broker never gets here, because its time is not new; nor does a restart look like a clone,
because a member keeps its counter before it uses it (`brokerkm.core.admission.Conduct`). What two holders of one state
do look like, a device that was restored from a backup does too; an operator decides which it was.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Response(enum.StrEnum):
    """What follows when a member seems to have a clone."""

    REPORT = "report"
    QUARANTINE = "quarantine"  # its requests are refused for a while; it keeps its place
    REFRESH = "refresh"  # it gets a new leaf key
    EVICT = "evict"


@dataclass(frozen=True, slots=True)
class ConductPolicy:
    """What is asked of members.

    Args:
        clones: what follows when one seems to have a clone.
        changes: how many granted requests a member may make `within` so many seconds; 0 for any number.
        quarantine: seconds for which the requests of one that makes more are refused.
    """

    clones: Response = Response.REPORT
    changes: int = 30
    within: int = 600
    quarantine: int = 600

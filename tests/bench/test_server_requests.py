"""The cost of requests, with fewer members unless BROKERKM_STORM says how many."""

from __future__ import annotations

import os

from brokerkm.bench.server_flood import refusal_cost
from brokerkm.bench.server_requests import sync_storm


def test_a_forged_request_costs_little() -> None:
    """It costs the server a few times what decoding and one HMAC cost, whatever id it comes under.

    The limit in microseconds is `brokerkm bench server`'s: on a machine that runs other tests too it may break.
    """
    flood, *looked_at, signed = refusal_cost()
    assert (flood.ratio or 9) < 2, flood
    assert [50e-6] * 4 == [figure.at_most for figure in looked_at]
    for figure in looked_at:
        assert (figure.ratio or 9) < 6, figure
    assert (signed.ratio or 9) < 3, signed


def test_a_storm_is_served() -> None:
    """All members that ask at once are served, within bounded memory."""
    members = int(os.environ.get("BROKERKM_STORM", "2000"))
    taken, asked, memory = sync_storm(members)
    assert memory.holds, memory
    assert (True, True) == (taken.value > 0, asked.value >= 1)

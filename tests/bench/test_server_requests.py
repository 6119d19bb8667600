"""The cost of requests, with fewer members unless BROKERKM_STORM says how many."""

from __future__ import annotations

import os

from brokerkm.bench.server_requests import refusal_cost, sync_storm


def test_a_forged_request_costs_little() -> None:
    """It costs the server a few times what decoding and one HMAC cost, even where no rate limit keeps it off.

    The limit in microseconds is `brokerkm bench server`'s: on a machine that runs other tests too it may break.
    """
    flood, looked_at, strange = refusal_cost()
    assert flood.at_most == looked_at.at_most == 50e-6
    assert (flood.ratio or 9) < 2, flood
    assert (looked_at.ratio or 9) < 5, looked_at
    assert strange.value > looked_at.value, "an id that was not looked up before costs a look into the store"


def test_a_storm_is_served() -> None:
    """All members that ask at once are served, within bounded memory."""
    members = int(os.environ.get("BROKERKM_STORM", "2000"))
    taken, asked, memory = sync_storm(members)
    assert memory.holds, memory
    assert (True, True) == (taken.value > 0, asked.value >= 1)

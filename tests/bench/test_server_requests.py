"""The cost of requests, with fewer members unless BROKERKM_STORM says how many."""

from __future__ import annotations

import os

from brokerkm.bench.server_requests import refusal_cost, sync_storm


def test_a_forged_request_costs_little() -> None:
    """It costs the server less than 50 microseconds, even where no rate limit keeps it off."""
    flood, looked_at, strange = refusal_cost()
    assert flood.holds, flood
    assert looked_at.holds, looked_at
    assert strange.value > looked_at.value, "an id that was not looked up before costs a look into the store"


def test_a_storm_is_served() -> None:
    """All members that ask at once are served, within bounded memory."""
    members = int(os.environ.get("BROKERKM_STORM", "2000"))
    taken, asked, memory = sync_storm(members)
    assert memory.holds, memory
    assert (True, True) == (taken.value > 0, asked.value >= 1)

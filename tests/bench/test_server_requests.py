"""The cost of requests, with fewer members unless BROKERKM_STORM says how many."""

from __future__ import annotations

import os

import pytest

from brokerkm.bench.server_flood import refusal_cost
from brokerkm.bench.server_requests import sync_storm


def test_a_forged_request_costs_little() -> None:
    """It costs the server a few times what decoding and one HMAC cost, whatever id it comes under.

    The limit in microseconds is `brokerkm bench server`'s. The ratios have to be kept once in three runs: what runs
    beside them on the same cores takes its share of the caches.
    """
    ratios: list[list[float]] = []
    for _ in range(3):
        flood, *looked_at, signed = refusal_cost()
        assert [50e-6] * 4 == [figure.at_most for figure in looked_at]
        ratios.append([figure.ratio or 99.0 for figure in (flood, signed, *looked_at)])
        if ratios[-1][0] < 2 and ratios[-1][1] < 3 and max(ratios[-1]) < 6:
            return
    raise AssertionError(ratios)


@pytest.mark.parametrize("broker", ["memory", "mosquitto"])
def test_a_storm_is_served(broker: str, request: pytest.FixtureRequest) -> None:
    """All members that ask at once are served, within bounded memory; at a real broker as well."""
    members = int(os.environ.get("BROKERKM_STORM", "2000"))
    at = ["memory://storm"] if broker == "memory" else [request.getfixturevalue("mosquitto").url]
    taken, asked, memory = sync_storm(members, *at)
    assert memory.holds, memory
    assert (True, True) == (taken.value > 0, asked.value >= 1)

"""How groups spread over servers: the plan of one server, in each situation."""

from __future__ import annotations

from brokerkm.service.sharing import Plan, plan
from brokerkm.store.lease import Standing

L = 10.0  # seconds of a lease


def standing(
    group: str, holder: str | None, remaining: float = 5.0, wanted: str | None = None, *, pinned: bool = False
) -> Standing:
    """Return how it stands with one group."""
    return Standing(group, holder, remaining, wanted, pinned)


def test_alone_it_takes_all() -> None:
    """The only server asks for every group without a leader."""
    assert Plan(["g", "h"], [], None) == plan("a", ["a"], [standing("g", None, 0), standing("h", None, -3)], L)


def test_it_takes_its_share_and_leaves_the_rest() -> None:
    """With two servers for four groups, each asks for two."""
    free = [standing(name, None, 0) for name in "ghij"]
    assert ["g", "h"] == plan("a", ["a", "b"], free, L).acquire


def test_what_nobody_takes_is_anybodys() -> None:
    """A group that is without a leader for a lease time is taken beyond the share."""
    full = [standing("g", "a"), standing("h", "b"), standing("i", "b")]
    assert [] == plan("b", ["a", "b"], [*full, standing("j", None, -3)], L).acquire
    assert ["j"] == plan("b", ["a", "b"], [*full, standing("j", None, -11)], L).acquire


def test_leases_of_others_are_left_alone() -> None:
    """A group that is led is not asked for, whoever leads it."""
    assert Plan([], [], None) == plan("a", ["a"], [standing("g", "dead", 0.1)], L)


def test_the_rich_hand_over_one_at_a_time() -> None:
    """Who has two more than another server offers it one group, and nothing more until that one has moved."""
    mine = [standing("g", "a"), standing("h", "a"), standing("i", "a")]
    assert Plan([], [], ("i", "b")) == plan("a", ["a", "b"], mine, L)
    asked = [*mine[:2], standing("i", "a", wanted="b")]
    assert Plan([], ["i"], None) == plan("a", ["a", "b"], asked, L)
    released = [*mine[:2], standing("i", None, 0, wanted="b")]
    assert Plan([], [], None) == plan("a", ["a", "b"], released, L)
    assert Plan(["i"], [], None) == plan("b", ["a", "b"], released, L)


def test_a_difference_of_one_is_fair() -> None:
    """Nothing moves when no server has two groups more than another."""
    assert Plan([], [], None) == plan("a", ["a", "b"], [standing("g", "a")], L)


def test_what_an_operator_moved_stays() -> None:
    """Pinned groups are not handed over to even things out."""
    pinned = [standing(name, "a", wanted="a", pinned=True) for name in "ghi"]
    assert Plan([], [], None) == plan("a", ["a", "b"], pinned, L)


def test_a_dead_server_is_wanted_no_more() -> None:
    """A group that was to go to a server which is gone stays, or is taken by another."""
    assert Plan([], [], None) == plan("a", ["a"], [standing("g", "a", wanted="dead")], L)
    assert ["g"] == plan("a", ["a"], [standing("g", None, -1, wanted="dead")], L).acquire

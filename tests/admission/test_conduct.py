"""How often is too often, and when a suspicion is news."""

from __future__ import annotations

from brokerkm.admission.conduct import ConductPolicy
from brokerkm.service.watch import Watch


def test_a_member_that_comes_and_goes() -> None:
    """Three requests in a minute are granted, the fourth is one too many; after a while it may again."""
    watch = Watch(ConductPolicy(changes=3, within=60))
    assert [False, False, False, True] == [watch.flaps("pump", now) for now in (0, 1, 2, 3)]
    assert not watch.flaps("valve", 3)
    assert not watch.flaps("pump", 60)


def test_no_limit() -> None:
    """Zero changes stand for any number."""
    watch = Watch(ConductPolicy(changes=0))
    assert not any(watch.flaps("pump", 0) for _ in range(1000))


def test_one_case_is_reported_once() -> None:
    """Two clones that go on asking are reported once an hour, and each member for itself."""
    watch = Watch(ConductPolicy())
    found = [watch.is_news(member, now) for member, now in (("a", 0), ("a", 3599), ("b", 3599), ("a", 3600))]
    assert [True, False, True, True] == found


def test_what_is_remembered_is_bounded() -> None:
    """The one that was reported first is forgotten first."""
    watch = Watch(ConductPolicy(), most=2)
    assert [True, True, True] == [watch.is_news(name, 0) for name in "abc"]
    assert [False, True] == [watch.is_news(name, 1) for name in "ca"]

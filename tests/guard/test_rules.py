"""What a member may subscribe, publish and receive."""

from __future__ import annotations

import itertools
import random

import pytest

from brokerkm.core.names import Topics
from brokerkm.errors import UsageError
from brokerkm.guard.rules import MAX_FILTERS, DataFilters, Grant, Rank, covers, overlaps
from brokerkm.topics import matches

TOPICS = Topics("plant")
PUMP = Grant(TOPICS, 4, "pump", Rank.MEMBER, 27, DataFilters(("site/%m/#",), ("site/#",)).of("plant", "pump"))


@pytest.mark.parametrize(
    "topic",
    [
        "bkm/1/plant/b",
        "bkm/1/plant/k",
        "bkm/1/plant/m/pump",
        "bkm/1/plant/n/0/6",  # the bucket of the level-1 node of leaf 27
        "bkm/1/plant/n/1/6",
        "bkm/1/plant/n/2/1",
        "bkm/1/plant/n/3/0",
        "bkm/1/plant/n/24/0",  # the tree may grow
        "site/valve",
        "site/#",
        "site/+/state",
        "$share/workers/site/#",
    ],
)
def test_what_a_member_subscribes(topic: str) -> None:
    """It reads its own path, what is for all or for it, and the data."""
    assert PUMP.may_subscribe(topic)


@pytest.mark.parametrize(
    "topic",
    [
        "bkm/1/plant/n/0/7",
        "bkm/1/plant/n/1/7",
        "bkm/1/plant/n/2/0",
        "bkm/1/plant/n/25/0",
        "bkm/1/plant/n/01/6",
        "bkm/1/plant/n/#",
        "bkm/1/plant/n/+/6",
        "bkm/1/plant/m/valve",
        "bkm/1/plant/m/+",
        "bkm/1/plant/r/pump",
        "bkm/1/plant/r/+",
        "bkm/1/plant/x",
        "bkm/1/plant",
        "bkm/1/other/b",
        "bkm/1/+/b",
        "bkm/#",
        "#",
        "+/#",
        "+/1/plant/b",
        "other/topic",
        "$SYS/#",
        "$CONTROL/brokerkm/v1",
        "$share/workers/bkm/1/plant/b",
        "$share/workers",
        "$share/workers/#",
        "site/#/more",
        "site/a+",
        "",
    ],
)
def test_what_a_member_does_not_subscribe(topic: str) -> None:
    """Neither what is another's, nor a wildcard that could bring it, nor what is none of the group's."""
    assert not PUMP.may_subscribe(topic)
    assert not PUMP.may_receive(topic)


def test_what_a_member_publishes() -> None:
    """Its requests, and the data that the group lets it."""
    allowed = [topic for topic in _TOPICS if PUMP.may_publish(topic)]
    assert ["bkm/1/plant/r/pump", "site/pump/state"] == allowed
    assert not PUMP.may_publish("bkm/1/plant/r/pump", retain=True)
    assert PUMP.may_publish("site/pump/state", retain=True)


_TOPICS = [
    "bkm/1/plant/r/pump",
    "bkm/1/plant/r/valve",
    "bkm/1/plant/b",
    "bkm/1/plant/k",
    "bkm/1/plant/n/1/6",
    "bkm/1/plant/m/pump",
    "bkm/1/plant/new",
    "site/pump/state",
    "site/valve/state",
    "site/pump/#",
    "$SYS/x",
    "$CONTROL/brokerkm/v1",
    "",
]


def test_an_applicant() -> None:
    """Whoever asks for a seat writes its request and reads the answer and what all may read, and no data."""
    applicant = Grant(TOPICS, 4, "pump", Rank.APPLICANT)
    assert ["bkm/1/plant/r/pump"] == [topic for topic in _TOPICS if applicant.may_publish(topic)]
    readable = ["bkm/1/plant/b", "bkm/1/plant/k", "bkm/1/plant/m/pump"]
    assert readable == [topic for topic in sorted(_TOPICS) if applicant.may_subscribe(topic)]


def test_the_key_server() -> None:
    """It does everything."""
    server = Grant(TOPICS, 4, "", Rank.SERVER)
    assert server.may_subscribe("bkm/1/plant/r/+")
    assert server.may_publish("bkm/1/plant/n/1/6", retain=True)


def test_the_default_data() -> None:
    """Everything is data but what is brokerkm's, of any group, or the broker's."""
    grant = Grant(TOPICS, 4, "pump", Rank.MEMBER, 0, prefixes=("bkm/1", "other"))
    assert grant.may_subscribe("anything/#")
    assert grant.may_publish("anything")
    refused = ["#", "+", "+/1/#", "other/group/b", "other/#", "other", "+/+/+", "$SYS/#", "bkm/+/plant"]
    assert [] == [pattern for pattern in refused if grant.may_subscribe(pattern) and pattern != "+"]
    assert not grant.may_publish("other/group/b")


def test_its_subscriptions() -> None:
    """What a member needs is what it may have; as many topics as the tree has levels, and four."""
    wanted = list(PUMP.subscriptions(3))
    assert all(PUMP.may_subscribe(topic) for topic in wanted)
    assert 3 + 4 == len(wanted)
    assert 3 == len(list(Grant(TOPICS, 4, "pump", Rank.APPLICANT).subscriptions(3)))


def test_no_wildcard_brings_what_is_not_allowed() -> None:
    """Whatever filter is granted, every topic that it matches is one that may be received."""
    levels = ["bkm", "1", "plant", "n", "b", "site", "pump", "+", "#", "0", "6"]
    topics = [
        "/".join(parts) for size in range(1, 5) for parts in itertools.product(levels[:7] + levels[9:], repeat=size)
    ]
    source = random.Random(2627)
    sample = source.sample(topics, 500)
    for _ in range(3000):
        pattern = "/".join(source.choice(levels) for _ in range(source.randrange(1, 6)))
        if PUMP.may_subscribe(pattern):
            assert all(PUMP.may_receive(topic) for topic in sample if matches(pattern, topic)), pattern


@pytest.mark.parametrize(
    ("allowed", "pattern"),
    [("#", "a"), ("#", "a/#"), ("a/#", "a"), ("a/#", "a/#"), ("a/#", "a/+/b"), ("+", "a"), ("+/b", "a/b"), ("a", "a")],
)
def test_covering(allowed: str, pattern: str) -> None:
    """A filter covers a narrower one."""
    assert covers(allowed, pattern)


@pytest.mark.parametrize(
    ("allowed", "pattern"),
    [("a/#", "#"), ("a/+", "a/#"), ("a/+", "a"), ("a", "a/b"), ("a", "+"), ("+", "a/b"), ("#", "$SYS"), ("+", "$SYS")],
)
def test_not_covering(allowed: str, pattern: str) -> None:
    """It does not cover a wider one, nor what begins with $."""
    assert not covers(allowed, pattern)


def test_overlapping() -> None:
    """A filter overlaps a prefix if it matches it, or something below it."""
    yes = ["#", "bkm/#", "bkm/1", "bkm/1/#", "bkm/+/x", "+/1", "+/+", "+/+/plant/b", "bkm/1/plant"]
    no = ["bkm", "+", "bkm/2", "bkm/2/#", "a/#", "bkm2/1"]
    assert yes == [pattern for pattern in yes + no if overlaps(pattern, "bkm/1")]


def test_bad_data_filters() -> None:
    """Malformed ones, and too many, are refused."""
    with pytest.raises(UsageError, match="only the last"):
        DataFilters(("a/#/b",))
    with pytest.raises(UsageError, match="at most 64"):
        DataFilters(subscribe=("a",) * (MAX_FILTERS + 1))

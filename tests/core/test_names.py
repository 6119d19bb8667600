"""Identifiers and topic names."""

from __future__ import annotations

import pytest
from core.refusal import refused

from brokerkm.core.names import (
    BeaconTopic,
    HandoverTopic,
    MemberTopic,
    NodeTopic,
    RequestTopic,
    TopicName,
    Topics,
    check_identifier,
    is_identifier,
)
from brokerkm.errors import Reason, UsageError

NOT_IDENTIFIERS = ["", "a" * 65, "a/b", "a+b", "a#", "a b", "ä", "a\n", "\0", "\u0661"]


@pytest.mark.parametrize("text", ["a", "Z", "0", "._-", "a" * 64])
def test_identifier_is_accepted(text: str) -> None:
    """Up to 64 letters, digits, dots, underscores and hyphens name a group or a member."""
    assert text == check_identifier(text, "member")


@pytest.mark.parametrize("text", NOT_IDENTIFIERS)
def test_other_text_is_no_identifier(text: str) -> None:
    """Anything else would be ambiguous in a topic."""
    assert not is_identifier(text)
    with pytest.raises(UsageError, match=r"group .* is not 1 to 64 characters"):
        Topics(text)


def test_error_about_identifier_is_short() -> None:
    """A hostile name cannot fill a log."""
    with pytest.raises(UsageError) as caught:
        check_identifier("x" * 100_000, "member")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("prefix", ["", "/", "a/", "/a", "a//b", "a/b/c/d", "a/+", "a b"])
def test_prefix_must_be_one_to_three_levels(prefix: str) -> None:
    """A prefix that would make topics malformed or too deep is refused."""
    with pytest.raises(UsageError, match="prefix"):
        Topics("fleet", prefix)


def test_topics_are_as_specified() -> None:
    """The names under the default prefix are those of the specification."""
    topics = Topics("fleet")
    actual = [topics.node(1, 10), topics.beacon, topics.handover, topics.member("m"), topics.request("m")]
    expected = [f"bkm/1/fleet/{rest}" for rest in ("n/1/10", "b", "k", "m/m", "r/m")]
    assert topics.requests == "bkm/1/fleet/r/+"
    assert expected == actual


def test_deepest_topic_has_seven_slashes_at_most() -> None:
    """The longest prefix stays within what AWS IoT accepts."""
    assert Topics("fleet", "a/b/c").node(0, 0).count("/") <= 7


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("x/fleet/n/0/0", NodeTopic(0, 0)),
        ("x/fleet/n/24/16777215", NodeTopic(24, 16777215)),
        ("x/fleet/b", BeaconTopic()),
        ("x/fleet/k", HandoverTopic()),
        ("x/fleet/m/sensor-7", MemberTopic("sensor-7")),
        ("x/fleet/r/sensor-7", RequestTopic("sensor-7")),
    ],
)
def test_topic_is_parsed(topic: str, expected: TopicName) -> None:
    """What a topic names is found in it."""
    actual = Topics("fleet", "x").parse(topic)
    assert (type(expected), expected) == (type(actual), actual)


@pytest.mark.parametrize(
    "rest",
    [
        *("", "n", "n/0", "n/0/0/0", "n/00/0", "n/0/01", "n/0/-1", "n/25/0", "n/0/16777216", "n/0/1e3", "n/0/\uff11"),
        *(
            "n/0/9999999999999999999999",
            "b/",
            "k/",
            "B",
            "m",
            "m/",
            "m/a/b",
            "m/+",
            "r",
            "r/+",
            "r/a/b",
            "q/1",
            "m/" + "a" * 65,
        ),
    ],
)
def test_other_topic_of_the_group_is_refused(rest: str) -> None:
    """A topic that no side would write names nothing."""
    with refused(Reason.WRONG_TOPIC, "topic"):
        Topics("fleet").parse(f"bkm/1/fleet/{rest}")


@pytest.mark.parametrize("topic", ["bkm/1/fleet2/b", "bkm/1/flee/b", "bkm/2/fleet/b", "bkm/1/fleet", "", "b"])
def test_topic_of_another_group_is_refused(topic: str) -> None:
    """A group's topics are under its own name only."""
    with refused(Reason.WRONG_TOPIC, "topic"):
        Topics("fleet").parse(topic)


@pytest.mark.parametrize(
    ("topic", "expected"),
    [("bkm/1/other/b", True), ("bkm/1", True), ("bkm/10", False), ("plant/bkm/1", False), ("bkm", False)],
)
def test_prefix_is_reserved(topic: str, *, expected: bool) -> None:
    """What lies below the prefix belongs to the protocol, of whatever group."""
    assert expected == Topics("fleet").owns(topic)

"""What a broker, an outsider or an insider sends instead of the truth is refused, and changes nothing."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

import pytest

from brokerkm.core.events import Dropped, MessageReceived, Unreadable
from brokerkm.errors import RefusedError
from proof.fleet import DATA_TOPIC
from proof.mutants import cuts, flips, rebuilt
from proof.scene import NAMES, PLAIN, SIGNED, Case, Scene

if TYPE_CHECKING:
    from collections.abc import Iterable

    from brokerkm.core.member import Member


@functools.cache
def scene(seed: int, group: str = "fleet-01", key: bytes | None = None) -> Scene:
    """Return a scene; nothing that is done with its cases changes it."""
    return Scene(seed, group, key)


def assert_no_effect(member: Member, case: Case, topic: str, payloads: Iterable[bytes]) -> int:
    """Assert that `member` refuses or ignores all of `payloads`, then takes the genuine message; return how many."""
    before, count = member.dump(), 0
    for count, payload in enumerate(payloads, start=1):  # noqa: B007 - counts
        try:
            events = member.receive(topic, payload, case.now)
        except RefusedError:
            events = []
        assert not [event for event in events if not isinstance(event, Dropped)]
        assert before == member.dump()
    for event in member.tick(case.now + 6):
        assert isinstance(event, Dropped | Unreadable)
    assert case.take(member) or before != member.dump()
    return count


SEEDS = pytest.mark.parametrize("seed", [PLAIN, SIGNED], ids=["plain", "signed"])
EACH = pytest.mark.parametrize("name", NAMES)


@EACH
@SEEDS
def test_every_bit_counts(seed: int, name: str) -> None:
    """Every bit of every message is flipped."""
    case = scene(seed).cases[name]
    assert 8 * len(case.payload) == assert_no_effect(case.load(), case, case.topic, flips(case.payload))


@EACH
@SEEDS
def test_every_field_counts(seed: int, name: str) -> None:
    """Every field gets other values and types, is left out, doubled and swapped; messages are cut and extended."""
    case = scene(seed).cases[name]
    mutants = itertools.chain(cuts(case.payload), rebuilt(case.payload))
    assert assert_no_effect(case.load(), case, case.topic, mutants) > 150


@EACH
@SEEDS
def test_replay_changes_nothing(seed: int, name: str) -> None:
    """A message that was taken is not taken again, not even after a restart."""
    case = scene(seed).cases[name]
    member = case.load()
    case.take(member)
    for _ in range(2):
        before = member.dump()
        try:
            events = case.take(member)
        except RefusedError:
            events = []
        assert [] == events
        assert before == member.dump()
        member = type(member).load(before, bytes, case.now)


@EACH
@SEEDS
def test_message_counts_on_its_own_topic_only(seed: int, name: str) -> None:
    """Every message comes on every other topic: of its kind, of other kinds, of the application."""
    one = scene(seed)
    case = one.cases[name]
    topics = one.fleet.server.topics
    names = [topics.member(device.name) for device in one.devices] + [topics.request(one.far.name), DATA_TOPIC]
    nodes = [topics.node(level, index) for level in range(5) for index in range(8)]
    member = case.load()
    for topic in {*names, *nodes, topics.beacon, topics.handover, DATA_TOPIC + "/x", "x"} - {case.topic}:
        assert_no_effect(member if name != "data" else case.load(), case, topic, [case.payload])
        member = case.load()


@EACH
@SEEDS
@pytest.mark.parametrize("other", ["name", "key"])
def test_message_counts_in_its_own_group_only(seed: int, name: str, other: str) -> None:
    """Messages of a twin group, with the same members, keys, epochs and nonces, mean nothing.

    The twin has another name with even the same signing key, or another signing key with even the same name.
    """
    mine = scene(seed)
    twin = scene(seed, "fleet-02") if other == "name" else scene(seed, "fleet-01", bytes(32))
    case, foreign = mine.cases[name], twin.cases[name]
    if name == "data" and other == "key" and seed == PLAIN:
        return  # traffic under the same traffic key in the same group is the group's
    assert foreign.topic == case.topic.replace("fleet-01", twin.fleet.server.group.name)
    assert_no_effect(case.load(), case, case.topic, [foreign.payload])
    assert_no_effect(case.load(), case, foreign.topic, [foreign.payload] if case.topic != foreign.topic else [])


@SEEDS
def test_messages_of_other_kinds_do_not_pass(seed: int) -> None:
    """Every message of the group comes to every member in place of the one that it waits for."""
    one = scene(seed)
    for case, other in itertools.permutations(one.cases.values(), 2):
        if (case.topic, case.state) == (other.topic, other.state) or other.topic == case.topic:
            continue
        assert_no_effect(case.load(), case, case.topic, [other.payload])


def test_scene_has_every_message() -> None:
    """The scenes above have all messages that a member takes."""
    assert set(NAMES) == set(scene(PLAIN).cases) == set(scene(SIGNED).cases)
    data = scene(PLAIN).cases["data"]
    assert isinstance(data.take(data.load())[0], MessageReceived)

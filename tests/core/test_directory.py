"""The directory of members against a plain dict."""

from __future__ import annotations

from random import Random

import pytest

from brokerkm.core.directory import Directory


def test_new_directory_is_empty() -> None:
    """Nobody is in a new directory, and its slots have no names."""
    directory = Directory()
    assert (0, None, None, []) == (len(directory), directory.slot("m"), directory.member(0), list(directory))
    assert "m" not in directory


def test_member_is_found_both_ways() -> None:
    """Name gives slot, slot gives name, and the slots between are empty."""
    directory = Directory()
    directory.add("sensor", 3)
    assert (3, "sensor", None, None) == (
        directory.slot("sensor"),
        directory.member(3),
        directory.member(2),
        directory.member(4),
    )
    assert "sensor" in directory


@pytest.mark.parametrize("other", ["senso", "sensors", "ensor", "", "Sensor"])
def test_similar_name_is_not_found(other: str) -> None:
    """Names are compared whole."""
    directory = Directory()
    directory.add("sensor", 0)
    assert directory.slot(other) is None


@pytest.mark.parametrize("name", ["x", "y" * 64, "z" * 255])
def test_name_of_any_length_is_kept(name: str) -> None:
    """Names of up to 255 bytes come back."""
    directory = Directory()
    directory.add(name, 0)
    assert (name, 0) == (directory.member(0), directory.slot(name))


def test_removed_member_is_gone() -> None:
    """A removed name is found neither way, and its slot can be given again."""
    directory = Directory()
    directory.add("a", 0)
    directory.remove("a")
    assert (None, None, 0) == (directory.slot("a"), directory.member(0), len(directory))
    directory.add("b", 0)
    assert ("b", 0, None) == (directory.member(0), directory.slot("b"), directory.slot("a"))


def test_member_comes_back_at_another_slot() -> None:
    """A name may be removed and added again."""
    directory = Directory()
    directory.add("a", 0)
    directory.remove("a")
    directory.add("a", 5)
    assert ([(5, "a")], 1) == (list(directory), len(directory))


def test_removing_an_unknown_member_is_a_key_error() -> None:
    """Who is not there cannot be removed."""
    with pytest.raises(KeyError, match="ghost"):
        Directory().remove("ghost")


def test_members_are_listed_by_slot() -> None:
    """Iteration is in order of slots, not of names or of joining."""
    directory = Directory()
    for name, slot in (("c", 2), ("a", 7), ("b", 0)):
        directory.add(name, slot)
    assert [(0, "b"), (2, "c"), (7, "a")] == list(directory)


def test_table_that_is_full_of_removed_names_still_ends_a_search() -> None:
    """Endless joining and leaving neither fills the table nor the buffer of names."""
    directory = Directory()
    for turn in range(2000):
        directory.add(f"m{turn}", 0)
        directory.remove(f"m{turn}")
    assert directory.slot("m0") is None
    assert len(directory._names) < 100
    assert len(directory._table) == 8


def test_directory_agrees_with_a_dict() -> None:
    """100,000 names come and half of them go, at random: everybody else stays where they are."""
    rng, directory, slots = Random(7), Directory(), dict[str, int]()
    for slot in range(100_000):
        name = f"device-{slot * 7919 % 100_003:x}"
        directory.add(name, slot)
        slots[name] = slot
    for name in rng.sample(sorted(slots), 50_000):
        directory.remove(name)
        del slots[name]
    assert slots == {name: directory.slot(name) for name in slots}
    assert sorted((slot, name) for name, slot in slots.items()) == list(directory)
    assert len(slots) == len(directory)


def test_memory_is_given_back() -> None:
    """After most members have left, the names that are gone take no more room than those that stay."""
    directory = Directory()
    for slot in range(10_000):
        directory.add(f"device-{slot}", slot)
    for slot in range(100, 10_000):
        directory.remove(f"device-{slot}")
    live = sum(1 + len(f"device-{slot}") for slot in range(100))
    assert len(directory._names) <= 2 * live + 1
    assert [(slot, f"device-{slot}") for slot in range(100)] == list(directory)

"""Seats that are looked up in the store: a group works with them as with a list of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from store.planted import NOW, Planted

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Suite
from brokerkm.core.directory import Directory
from brokerkm.core.group import Group
from brokerkm.core.tree import KeyTree
from brokerkm.errors import UsageError
from brokerkm.store import MemoryStore
from brokerkm.store.seats import StoredSeats

if TYPE_CHECKING:
    from brokerkm.core.directory import Seats


@pytest.fixture
def planted() -> Planted:
    """Plant a group whose seats are looked up; the tree's key material is drawn as before."""
    made = Planted(MemoryStore(), members=40)
    tree = KeyTree.load(4, made.group.tree.height, made.store.pages("plant"))
    seats = StoredSeats(made.store, "plant", tree.count)
    made.group = Group("plant", bytes(range(32)), epoch=1, time=made.group.time, tree=tree, directory=seats)
    return made


def test_seats_are_found(planted: Planted) -> None:
    """By id, all of them, and how many there are."""
    seats = planted.group.directory
    assert (40, 7, None) == (len(seats), seats.slot("m7"), seats.slot("none"))
    assert ("m7" in seats, "none" in seats) == (True, False)
    assert [(slot, f"m{slot}") for slot in range(40)] == list(seats)


def test_a_group_moves_on(planted: Planted) -> None:
    """Evictions, joins and refreshed leaves come out as with a list in memory."""
    reference = Directory()
    for slot, member in planted.group.directory:
        reference.add(member, slot)
    group = planted.group
    for member in ("m3", "m9"):
        group.evict(member)
        reference.remove(member)
    for name in ("new", "m5"):  # one takes the lowest slot that is free, the other has one
        group.enroll(Enrollment(name))
    reference.add("new", 3)
    old = group.leaf_key("m5")
    commit = planted.commit()
    assert [("m5", True), ("new", False)] == sorted(
        (seat.enrollment.member, seat.refreshed) for seat in commit.change.seated
    )
    assert (list(reference), len(reference)) == (list(group.directory), len(group.directory))
    assert (39, old == group.leaf_key("m5")) == (group.tree.count, False)
    assert [] == planted.store.verify()


def test_an_empty_store_is_not_taken_for_none() -> None:
    """A group without members still asks its store."""
    seats: Seats = StoredSeats(MemoryStore(), "plant", 0)
    assert Group("plant", os.urandom(32), directory=seats).directory is seats


def test_nobody_is_evicted_twice(planted: Planted) -> None:
    """What the store says counts at once."""
    planted.evict("m1")
    with pytest.raises(UsageError, match="is not a member"):
        planted.group.evict("m1")


def test_a_slot_that_is_known_is_not_looked_up(planted: Planted) -> None:
    """Who has the member's record at hand gets its Welcome without asking the store."""
    who = Enrollment("stranger", kem_public=Suite.X25519.public_key(bytes(range(32))))
    assert planted.group.welcome(who, NOW, 2)
    with pytest.raises(UsageError, match="is not a member"):
        planted.group.welcome(who, NOW)

"""What a commit changes and sends, against a slow model, by random sequences."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from core.slow import SlowTree
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

from brokerkm.core.commit import Enrollment
from brokerkm.core.group import Group

if TYPE_CHECKING:
    from brokerkm.core.commit import Commit
    from brokerkm.core.tree import KeyTree


class Pair:
    """A real group and its slow model, driven by the same random sequence."""

    def __init__(self, seed: int, degree: int) -> None:
        self.rng = Random(seed)
        self.group = Group("fleet", bytes(32), degree=degree)
        self.slow = SlowTree(degree)
        self.names = 0

    def commit(self) -> Commit:
        """Make one commit of random changes in both."""
        rng, group = self.rng, self.group
        members = sorted(self.slow.slots)
        rng.shuffle(members)
        leaving = members[: rng.choice((0, 0, 1, 2, 5)) if len(members) > 8 else 0]
        refreshing = members[len(leaving) : len(leaving) + rng.choice((0, 0, 0, 1, 3))]
        joining = [f"m{self.names + number}" for number in range(rng.choice((0, 1, 1, 2, 3, 9)))]
        self.names += len(joining)
        height = group.tree.height
        rotations = [(height, 0, False)] * (rng.random() < 0.1) + [(height, 0, True)] * (rng.random() < 0.05)
        if rng.random() < 0.15:
            level = rng.randint(1, height)
            rotations.append((level, rng.randrange(group.tree.degree ** (height - level)), rng.random() < 0.5))
        for name in leaving:
            group.evict(name)
        for name in (*joining, *refreshing):
            group.enroll(Enrollment(name))
        for level, index, deep in rotations:
            group.rotate(level, index, deep=deep)
        commit = group.commit(1.0, rng.randbytes)
        self.slow.commit(joining, leaving, refreshing, rotations)
        return commit


def fields(payload: bytes) -> tuple[int, int, list[tuple[int | None, int, int, bytes]], bytes]:
    """Return epoch, height, entries and chain of a Rekey, read with plain msgpack."""
    message: list[Any] = msgpack.unpackb(payload)
    return message[2], message[3], [tuple(entry) for entry in message[4]], message[5]


def versions(tree: KeyTree) -> dict[tuple[int, int], tuple[int, int]]:
    """Return birth and step of each inner node that has a key."""
    return {
        (level, index): tree.get(level, index)[1:]
        for level in range(1, tree.height + 1)
        for index in range(len(tree.levels[level]))
        if tree.birth(level, index)
    }


SEQUENCES = pytest.mark.parametrize(
    ("seed", "degree"), [(seed, degree) for degree in (2, 3, 4, 8) for seed in range(3)]
)


@SEQUENCES
def test_versions_are_those_of_the_model(seed: int, degree: int) -> None:
    """Fresh, ratcheted and untouched keys are where the rules say, after each of many commits."""
    pair = Pair(seed, degree)
    for _ in range(60):
        pair.commit()
        tree = pair.group.tree
        assert (pair.slow.height, pair.slow.versions) == (tree.height, versions(tree))
        leaves = {slot: tree.birth(0, slot) for slot in range(len(tree.levels[0])) if tree.birth(0, slot)}
        assert pair.slow.leaves == leaves
        assert {slot: name for name, slot in pair.slow.slots.items()} == dict(pair.group.directory)


@SEQUENCES
def test_messages_are_those_of_the_model(seed: int, degree: int) -> None:
    """Each commit sends the messages of the rules: same topics, same entries, and a chain up to the root."""
    pair = Pair(seed, degree)
    for _ in range(60):
        commit = pair.commit()
        sent = {(rekey.level, rekey.index): fields(rekey.payload) for rekey in commit.rekeys}
        assert len(sent) == len(commit.rekeys)
        assert pair.slow.messages == {topic: [entry[:3] for entry in body[2]] for topic, body in sent.items()}
        for (level, _), (epoch, height, _, chain) in sent.items():
            assert (commit.epoch, pair.slow.height, 40 * (height - level - 1)) == (epoch, height, len(chain))


@SEQUENCES
def test_wraps_hold_the_fresh_keys(seed: int, degree: int) -> None:
    """Each entry opens with its node's key, and the chain leads from there to the root key."""
    pair = Pair(seed, degree)
    for _ in range(25):
        commit = pair.commit()
        tree = pair.group.tree
        for rekey in commit.rekeys:
            _, height, entries, chain = fields(rekey.payload)
            for slot, _, _, wrapped in entries:
                index = rekey.index if slot is None else slot
                key = aes_key_unwrap(tree.get(rekey.level, index).key, wrapped)
                for level in range(rekey.level + 1, height + 1):
                    index //= degree
                    assert tree.get(level, index).key == key
                    if level < height:
                        at = 40 * (level - rekey.level - 1)
                        key = aes_key_unwrap(key, chain[at : at + 40])


@SEQUENCES
def test_each_remaining_member_has_one_message_if_the_root_is_fresh(seed: int, degree: int) -> None:
    """A fresh root reaches each who stays by exactly one message; a ratcheted one needs none."""
    pair = Pair(seed, degree)
    for _ in range(60):
        commit = pair.commit()
        tree = pair.group.tree
        stayed = [slot for slot, birth in pair.slow.leaves.items() if birth < commit.epoch]
        count = Counter[int]()
        for rekey in commit.rekeys:
            for slot, *_ in fields(rekey.payload)[2]:
                count.update([slot] if slot is not None else pair.slow.below((rekey.level, rekey.index)))
        expected = int(tree.birth(tree.height, 0) == commit.epoch)
        assert dict.fromkeys(stayed, expected) == {slot: count[slot] for slot in stayed}


TABLE_1 = [(8, 2, 3), (9, 3, 4), (16, 2, 4), (2048, 2, 11), (2187, 3, 14)]


@pytest.mark.parametrize(("members", "degree", "most"), TABLE_1)
def test_eviction_costs_at_most_what_rfc_2627_counts(members: int, degree: int, most: int) -> None:
    """RFC 2627, table 1, multi-key column: messages to exclude one user of a full tree."""
    group, random = Group("fleet", bytes(32), degree=degree), Random(1)
    for number in range(members):
        group.enroll(Enrollment(f"m{number}"))
    group.commit(1.0, random.randbytes)
    group.evict("m5")
    assert len(group.commit(2.0, random.randbytes).rekeys) <= most


@pytest.mark.parametrize("joining", [1, 3, 16])
def test_joins_cost_no_rekey(joining: int) -> None:
    """Who is there already needs no message to follow a join, as long as the tree does not grow."""
    group, random = Group("fleet", bytes(32)), Random(1)
    for number in range(48):
        group.enroll(Enrollment(f"m{number}"))
    group.commit(1.0, random.randbytes)
    for number in range(joining):
        group.enroll(Enrollment(f"new{number}"))
    assert () == group.commit(2.0, random.randbytes).rekeys


def test_member_that_joins_below_a_fresh_node_gets_no_message() -> None:
    """A slot emptied and given again in one commit has no entry: its new holder gets a Welcome."""
    group, random = Group("fleet", bytes(32)), Random(1)
    for name in "abcd":
        group.enroll(Enrollment(name))
    group.commit(1.0, random.randbytes)
    group.evict("b")
    group.enroll(Enrollment("e"))
    (rekey,) = group.commit(2.0, random.randbytes).rekeys
    assert [0, 2, 3] == [slot for slot, *_ in fields(rekey.payload)[2]]
    assert 1 == group.directory.slot("e")

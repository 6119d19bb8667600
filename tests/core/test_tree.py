"""The key tree: shape, slots, keys and stored pages."""

from __future__ import annotations

import struct
from random import Random

import pytest
from core.world import World

from brokerkm.core.commit import Enrollment
from brokerkm.core.directory import Directory
from brokerkm.core.group import Group
from brokerkm.core.tree import PAGE_NODES, RECORD_SIZE, KeyTree
from brokerkm.core.welcome import NodeKey
from brokerkm.errors import StoreError, UsageError

PAGE = bytes(RECORD_SIZE)


def pages(tree: KeyTree) -> list[tuple[int, int, bytes]]:
    """Return all pages of `tree`."""
    return [
        (level, number, tree.page(level, number))
        for level, nodes in enumerate(tree.levels)
        for number in range(-(-len(nodes) // PAGE_NODES))
    ]


def used_group(degree: int, seed: int = 1, size: int = 90) -> Group:
    """Return a group that has grown, lost members and got new ones."""
    world = World(seed, degree=degree)
    rng = Random(seed)
    for turn in range(6):
        names = [f"m{turn}-{number}" for number in range(size // 6)]
        for name in names:
            world.group.enroll(Enrollment(name))
        for _, name in rng.sample(list(world.group.directory), len(world.group.directory) // 4):
            world.group.evict(name)
        world.commit()
    return world.group


@pytest.mark.parametrize("degree", [-1, 0, 1, 65])
def test_degree_outside_2_to_64_is_refused(degree: int) -> None:
    """Messages have no room for more siblings, and one child makes no tree."""
    with pytest.raises(UsageError, match=f"degree {degree}"):
        KeyTree(degree)


@pytest.mark.parametrize("degree", [2, 3, 4, 64])
def test_new_tree_is_empty(degree: int) -> None:
    """A new tree has a root without a key, and nobody in it."""
    tree = KeyTree(degree)
    assert (1, 0, 0, NodeKey(bytes(32), 0, 0)) == (tree.height, tree.count, tree.birth(1, 0), tree.get(1, 0))


def test_tree_has_room_for_2_to_the_24_at_most() -> None:
    """Beyond the limits nothing is allocated."""
    tree = KeyTree(2)
    with pytest.raises(UsageError, match="16777216"):
        tree.extend(24, (1 << 24) + 1)
    with pytest.raises(UsageError, match="16777216"):
        tree.extend(25, 1)
    assert [1, 1] == [len(level) for level in tree.levels]


def test_extending_keeps_what_is_there() -> None:
    """Growing arrays loses no key."""
    tree = KeyTree(3)
    key = NodeKey(b"k" * 32, 5, 2)
    tree.set(1, {0: key})
    tree.extend(3, 27)
    assert key == tree.get(1, 0)
    assert [27, 9, 3, 1] == [len(level) for level in tree.levels]


def test_replaced_key_is_overwritten_in_place() -> None:
    """An old key is nowhere in the tree's memory after it was replaced."""
    tree = KeyTree(4)
    tree.set(1, {0: NodeKey(b"a" * 32, 1, 0)})
    tree.set(1, {0: NodeKey(b"b" * 32, 2, 0)})
    assert b"b" * 32 == tree.levels[1].keys


def test_birth_of_a_node_beyond_the_arrays_is_0() -> None:
    """What was never there has no key."""
    assert 0 == KeyTree(4).birth(0, 1000)


def test_path_goes_from_parent_to_root() -> None:
    """Each level's key on the way is that of slot divided by degree to the level."""
    tree = KeyTree(3)
    tree.extend(3, 27)
    tree.grow(3)
    nodes = {(1, 7): b"1" * 32, (2, 2): b"2" * 32, (3, 0): b"3" * 32}
    for (level, index), key in nodes.items():
        tree.set(level, {index: NodeKey(key, level, level)})
    assert tuple(NodeKey(key, level, level) for (level, _), key in nodes.items()) == tree.path(22)


def test_page_is_keys_then_births_then_steps() -> None:
    """The stored form has big-endian numbers after the keys."""
    tree = KeyTree(4)
    tree.extend(2, 8)
    tree.set(1, {0: NodeKey(b"a" * 32, 258, 3), 1: NodeKey(b"b" * 32, 1, 65535)})
    assert b"a" * 32 + b"b" * 32 + struct.pack(">QQHH", 258, 1, 3, 65535) == tree.page(1, 0)


def test_page_shows_changes_that_are_not_applied() -> None:
    """A commit's pages can be stored before the tree has them; the tree stays as it is."""
    tree = KeyTree(4)
    tree.extend(1, 2)
    page = tree.page(0, 0, {1: NodeKey(b"x" * 32, 7, 0), 128: NodeKey(b"y" * 32, 7, 0)})
    assert bytes(32) + b"x" * 32 + struct.pack(">QQHH", 0, 7, 0, 0) == page
    assert 0 == tree.birth(0, 1)


def test_second_page_begins_at_node_128() -> None:
    """Pages have 128 nodes, the last as many as are left."""
    tree = KeyTree(64)
    tree.extend(2, 130)
    tree.set(0, {128: NodeKey(b"x" * 32, 7, 0)})
    assert b"x" * 32 + bytes(32) + struct.pack(">QQHH", 7, 0, 0, 0) == tree.page(0, 1)
    assert 128 * RECORD_SIZE == len(tree.page(0, 0))


@pytest.mark.parametrize("degree", [2, 3, 4, 16, 64])
def test_tree_is_loaded_from_its_pages(degree: int) -> None:
    """A stored tree comes back with all keys, counts and free slots, in whatever order its pages are read."""
    tree = used_group(degree).tree
    stored = pages(tree)
    Random(1).shuffle(stored)
    loaded = KeyTree.load(degree, tree.height, iter(stored))
    assert pages(tree) == pages(loaded)
    assert [level.members for level in tree.levels[1:]] == [level.members for level in loaded.levels[1:]]
    assert (tree.height, tree.count) == (loaded.height, loaded.count)
    free = {slot for slot in range(tree.used) if not tree.birth(0, slot)}
    assert {slot for slot in free if slot < loaded.used} == set(loaded.free)


def test_loaded_tree_hands_out_the_lowest_slots() -> None:
    """After a restart slots are still handed out lowest free first."""
    group = used_group(4)
    tree, directory = KeyTree.load(4, group.tree.height, pages(group.tree)), Directory()
    for slot, name in group.directory:
        directory.add(name, slot)
    restarted = Group("fleet", bytes(32), epoch=group.epoch, tree=tree, directory=directory)
    names = [f"new{number}" for number in range(len(tree.free) + 2)]
    for name in names:
        restarted.enroll(Enrollment(name))
    restarted.commit(1.0, Random(1).randbytes)
    taken = {slot for slot, _ in group.directory}
    assert [slot for slot in range(200) if slot not in taken][: len(names)] == [directory.slot(name) for name in names]


def test_empty_tree_is_loaded() -> None:
    """No pages make an empty tree."""
    tree = KeyTree.load(4, 2, [])
    assert (2, 0, 0, []) == (tree.height, tree.count, tree.used, tree.free)


@pytest.mark.parametrize(
    ("height", "page"),
    [
        (2, (3, 0, PAGE)),  # no such level
        (2, (-1, 0, PAGE)),
        (2, (0, -1, PAGE)),
        (2, (2, 1, PAGE)),  # a second root page
        (2, (2, 0, PAGE * 2)),  # two roots
        (2, (1, 0, PAGE * 5)),  # a tree of degree 4 and height 2 has 4 nodes at level 1
        (2, (0, 0, PAGE * 17)),
        (2, (0, 0, b"")),
        (2, (0, 0, PAGE[:-1])),
        (4, (0, 0, PAGE * 129)),  # more than a page
        (24, (0, 1 << 17, PAGE)),  # slot 2^24
        (24, (0, 1 << 60, PAGE)),
    ],
)
def test_damaged_page_is_refused(height: int, page: tuple[int, int, bytes]) -> None:
    """A page that cannot be one of the tree is an error of the store, and allocates nothing."""
    with pytest.raises(StoreError, match=f"stored page {page[1]} of level {page[0]}"):
        KeyTree.load(4, height, [page])


@pytest.mark.parametrize("height", [-1, 0, 25])
def test_damaged_height_is_refused(height: int) -> None:
    """A stored height has to be one that trees have."""
    with pytest.raises(StoreError, match=f"stored height {height}"):
        KeyTree.load(4, height, [])


def test_missing_inner_page_leaves_members_counted() -> None:
    """Members are counted by their leaves, whatever else the store has lost."""
    tree = used_group(4).tree
    loaded = KeyTree.load(4, tree.height, [page for page in pages(tree) if page[0] < 2])
    assert tree.count == loaded.levels[tree.height].members[0]

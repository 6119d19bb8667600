"""Makes commits as vectors of the kinds `commit` and `evict` say."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import load_signing_key
from brokerkm.core.group import Group
from brokerkm.core.names import Topics
from brokerkm.core.rekeying import build_rekeys
from brokerkm.core.renewal import Rotation, renew
from brokerkm.core.spares import settle
from brokerkm.core.tree import KeyTree
from brokerkm.core.welcome import NodeKey
from schemas.material import SERVER_SEED, Stream, hexed

if TYPE_CHECKING:
    from schemas.material import Fields, Json


def load_tree(given: dict[str, Any]) -> KeyTree:
    """Return the tree whose occupied nodes a vector lists as [level, index, birth, step, key]."""
    tree = KeyTree(given["degree"])
    height = given["height"]
    slots = [index for level, index, *_ in given["tree"] if level == 0]
    tree.extend(height, max(slots, default=0) + 1)
    tree.grow(height)
    for level, index, birth, step, key in given["tree"]:
        tree.set(level, {index: NodeKey(bytes.fromhex(key), birth, step)})
    tree.used = max(slots, default=-1) + 1
    tree.count_members(slots, 1)
    return tree


def dump_tree(tree: KeyTree) -> list[Json]:
    """Return the nodes that have a key, as vectors list them."""
    return [
        [level, index, node.birth, node.step, node.key.hex()]
        for level in range(tree.height + 1)
        for index in range(len(tree.levels[level]))
        if tree.birth(level, index)
        for node in (tree.get(level, index),)
    ]


def commit(given: dict[str, Any]) -> Fields:
    """Return the fresh nodes, the new keys and the messages of one commit."""
    tree = load_tree(given)
    seated = given["seated"]
    height = tree.height
    while max(seated, default=0) >= tree.degree**height:
        height += 1
    tree.extend(height, max([tree.used, *(slot + 1 for slot in seated)]))
    random = bytes.fromhex(given["random"])
    at = 0

    def draw(size: int) -> bytes:
        nonlocal at
        at += size
        return random[at - size : at]

    renewal = renew(
        tree,
        given["epoch"],
        height,
        emptied=given["emptied"],
        seated=seated,
        rotations=[Rotation(*rotation) for rotation in given["rotations"]],
        random=draw,
    )
    spared: Fields = {}
    if "spares" in given:
        root_alone = all(rotation == [tree.height, 0, False] for rotation in given["rotations"])
        before = tuple(bytes.fromhex(spare) for spare in given["spares"])
        shuts_out = bool(given["emptied"]) or not root_alone
        after = settle(before, renewal, given["epoch"], shuts_out=shuts_out, wanted=given["spares_wanted"], random=draw)
        spared = {"spares": hexed(after)}
    assert at == len(random)
    key = load_signing_key(bytes.fromhex(given["server_seed"]))
    topics = Topics(given["group"])
    return {
        "height": height,
        "fresh": [[level, index] for level, nodes in enumerate(renewal.fresh) for index in sorted(nodes)],
        "nodes": [
            [level, index, node.birth, node.step, node.key.hex()]
            for level, nodes in enumerate(renewal.nodes)
            for index, node in sorted(nodes.items())
            if node.birth
        ],
        "messages": [
            {"topic": topics.node(rekey.level, rekey.index), "payload": rekey.payload.hex()}
            for rekey in build_rekeys(tree, renewal, given["epoch"], given["group"], key)
        ],
        **spared,
    }


def evict(given: dict[str, Any]) -> Fields:
    """Return how many messages it takes to evict one of a full tree's users."""
    return {"messages": _count_messages(given["users"], given["degree"], given["evicted"])}


@functools.cache
def _count_messages(users: int, degree: int, evicted: int) -> int:
    group = Group("g", SERVER_SEED, degree=degree)
    random = Stream("full tree")
    many = random(32 * 1024)
    for user in range(users):
        group.enroll(Enrollment(str(user)))
    group.commit(0, lambda size: many * (size // len(many)) + many[: size % len(many)])
    group.evict(str(evicted))
    return len(group.commit(0, random).rekeys)

"""The Rekey messages of one commit: one to each cover node or bucket, signed one by one or in blocks.

*Cover* nodes are the occupied children of fresh nodes that are not fresh themselves. Members under cover node `c` get
`AES-KW(K_c, K_parent(c))` and a chain of wraps from there to the root, which all messages below the same fresh node
share. This is the server's hot path: it assembles encoded messages from encoded parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokerkm.core.commit import NodeRekey
from brokerkm.core.crypto import KEY_SIZE, labelled, wrap_key
from brokerkm.core.messages import Kind
from brokerkm.core.rekey import Rekey
from brokerkm.core.signing import encode_proved, sign_all
from brokerkm.core.wire import VERSION, pack

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from brokerkm.core.renewal import Renewal
    from brokerkm.core.tree import KeyTree


def build_rekeys(
    tree: KeyTree, renewal: Renewal, epoch: int, group: str, key: Ed25519PrivateKey
) -> tuple[NodeRekey, ...]:
    """Return the signed Rekeys of a commit, from the root's children down: what most members wait for comes first.

    `tree` still has the keys from before the commit.
    """
    head = encode_proved((VERSION, Kind.REKEY, epoch, renewal.height), 4)
    nodes: list[tuple[int, int]] = []
    bodies: list[bytes] = []  # messages up to their proofs
    contexts: list[bytes] = []
    chains: dict[int, bytes] = {}
    for level in range(renewal.height, 0, -1):
        context = labelled(Rekey.LABEL, group, level - 1, 0)[:-1]  # all but the index
        chains = _chains(renewal, level, chains, tree.degree)
        for index, chain in chains.items():
            tail = pack(chain)
            for child, entries in _entries(tree, renewal, level, index):
                nodes.append((level - 1, child))
                bodies.append(head + entries + tail)
                contexts.append(context + pack(child))
    messages = sign_all(key, bodies, contexts)
    return tuple([NodeRekey(level, index, message) for (level, index), message in zip(nodes, messages, strict=True)])


def _chains(renewal: Renewal, level: int, above: dict[int, bytes], degree: int) -> dict[int, bytes]:
    """Return the chain from each fresh node of `level` up to the root, given those of the level above."""
    nodes = renewal.nodes[level]
    if level == renewal.height:
        return dict.fromkeys(renewal.fresh[level], b"")
    parents = renewal.nodes[level + 1]
    return {
        index: wrap_key(nodes[index].key, parents[index // degree].key) + above[index // degree]
        for index in sorted(renewal.fresh[level])
    }


def _entries(tree: KeyTree, renewal: Renewal, level: int, index: int) -> list[tuple[int, bytes]]:
    """Return the cover nodes below a fresh node, each with its encoded entries; for level 1, its bucket."""
    key, degree = renewal.nodes[level][index].key, tree.degree
    children = range(index * degree, (index + 1) * degree)
    if level == 1:
        bucket = _bucket(tree, renewal, children, key)
        return [(index, pack(bucket))] if bucket else []
    fresh, changed, old = renewal.fresh[level - 1], renewal.nodes[level - 1], tree.levels[level - 1]
    members, keys, births, steps = old.members, old.keys, old.births, old.steps
    entries: list[tuple[int, bytes]] = []
    for child in children:
        # Nobody was removed below a node that is not fresh; if nobody was there before, only joiners are there now.
        if child in fresh or child >= len(members) or not members[child]:
            continue
        if child in changed:
            kek, birth, step = changed[child]
        else:
            kek, birth, step = bytes(keys[child * KEY_SIZE : (child + 1) * KEY_SIZE]), births[child], steps[child]
        entries.append((child, pack(((None, birth, step, wrap_key(kek, key)),))))
    return entries


def _bucket(tree: KeyTree, renewal: Renewal, slots: range, key: bytes) -> list[tuple[int, int, int, bytes]]:
    """Return one entry for each member at `slots` that was there before and stays."""
    changed, leaves = renewal.nodes[0], tree.levels[0]
    keys, births = leaves.keys, leaves.births
    return [
        (slot, births[slot], 0, wrap_key(bytes(keys[slot * KEY_SIZE : (slot + 1) * KEY_SIZE]), key))
        for slot in slots[: max(len(births) - slots.start, 0)]
        if births[slot] and slot not in changed
    ]

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
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from brokerkm.core.renewal import Renewal
    from brokerkm.core.tree import KeyTree


def build_rekeys(
    tree: KeyTree, renewal: Renewal, epoch: int, group: str, key: Ed25519PrivateKey
) -> tuple[NodeRekey, ...]:
    """Return the signed Rekeys of a commit; `tree` still has the keys from before it."""
    nodes: list[tuple[int, int]] = []
    bodies: list[bytes] = []
    for node, body in _bodies(tree, renewal, epoch):
        nodes.append(node)
        bodies.append(body)
    heads = [labelled(Rekey.LABEL, group, level, 0)[:-1] for level in range(renewal.height)]  # all but the index
    messages = sign_all(key, bodies, [heads[level] + pack(index) for level, index in nodes])
    return tuple(NodeRekey(*node, message) for node, message in zip(nodes, messages, strict=True))


def _bodies(tree: KeyTree, renewal: Renewal, epoch: int) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield each message up to its proof, from the root's children down: what most members wait for comes first."""
    head = encode_proved((VERSION, Kind.REKEY, epoch, renewal.height), 4)
    degree = tree.degree
    chains: dict[int, bytes] = {}
    for level in range(renewal.height, 0, -1):
        nodes, above = renewal.nodes[level], chains
        chains = {}
        for index in sorted(renewal.fresh[level]):
            key = nodes[index].key
            if level == renewal.height:
                chain = b""
            else:
                parent = index // degree
                chain = wrap_key(key, renewal.nodes[level + 1][parent].key) + above[parent]
            chains[index] = chain
            children = range(index * degree, (index + 1) * degree)
            if level == 1:
                entries = _bucket(tree, renewal, children, key)
                if entries:
                    yield (0, index), head + pack(entries) + pack(chain)
            else:
                tail = pack(chain)
                for child, entry in _covers(tree, renewal, level - 1, children, key):
                    yield (level - 1, child), head + entry + tail


def _covers(tree: KeyTree, renewal: Renewal, level: int, children: range, key: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each cover node among `children` with its encoded entry for `key`."""
    fresh, changed, old = renewal.fresh[level], renewal.nodes[level], tree.levels[level]
    members, keys, births, steps = old.members, old.keys, old.births, old.steps
    for child in children:
        # Nobody was removed below a node that is not fresh; if nobody was there before, only joiners are there now.
        if child in fresh or child >= len(members) or not members[child]:
            continue
        if child in changed:
            kek, birth, step = changed[child]
        else:
            kek, birth, step = bytes(keys[child * KEY_SIZE : (child + 1) * KEY_SIZE]), births[child], steps[child]
        yield child, pack(((None, birth, step, wrap_key(kek, key)),))


def _bucket(tree: KeyTree, renewal: Renewal, slots: range, key: bytes) -> list[tuple[int, int, int, bytes]]:
    """Return one entry for each member at `slots` that was there before and stays."""
    changed, leaves = renewal.nodes[0], tree.levels[0]
    keys, births = leaves.keys, leaves.births
    return [
        (slot, births[slot], 0, wrap_key(bytes(keys[slot * KEY_SIZE : (slot + 1) * KEY_SIZE]), key))
        for slot in slots[: max(len(births) - slots.start, 0)]
        if births[slot] and slot not in changed
    ]

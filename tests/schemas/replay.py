"""Runs the real code on a vector: what the tests compare with what the vector expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from brokerkm.core import crypto
from brokerkm.core.cover import complete_subtree_cover
from brokerkm.core.data import traffic_key
from brokerkm.core.merkle import leaf_hash, root_and_proofs
from brokerkm.core.names import BeaconTopic, HandoverTopic, MemberTopic, NodeTopic, RequestTopic, Topics
from brokerkm.core.request import TokenKey, request_key
from brokerkm.core.tree import KeyTree
from brokerkm.core.welcome import NodeKey
from brokerkm.errors import RefusedError
from schemas import replay_group, replay_member, replay_message
from schemas.material import error, hexed

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.material import Fields


def run(kind: str, given: dict[str, Any]) -> Fields:
    """Return what becomes of the input of a vector of `kind`."""
    try:
        return KINDS[kind](given)
    except RefusedError as refused:
        return error(refused.reason, refused.field)


def _topic(given: dict[str, Any]) -> Fields:
    name = Topics(given["group"], given["prefix"]).parse(given["topic"])
    match name:
        case NodeTopic(level, index):
            return {"node": [level, index]}
        case BeaconTopic():
            return {"beacon": []}
        case HandoverTopic():
            return {"handover": []}
        case MemberTopic(member):
            return {"member": [member]}
        case RequestTopic(member):
            return {"request": [member]}


def _derive(given: dict[str, Any]) -> Fields:
    key = bytes.fromhex(given["key"])
    match given["function"]:
        case "ratchet":
            derived = crypto.ratchet(key, given["steps"])
        case "tek":
            derived = traffic_key(given["group"], NodeKey(key, given["birth"], given["step"]))
        case "sender":
            derived = crypto.derive(
                key, "brokerkm v1 sender", given["sender"], bytes.fromhex(given["salt"]), given["algorithm"]
            )
        case "token":
            derived = TokenKey.from_secret(bytes.fromhex(given["id"]), key).key
        case "request":
            derived = request_key(key)
        case other:
            raise KeyError(other)
    return {"key": derived.hex()}


def _wrap(given: dict[str, Any]) -> Fields:
    keys = [bytes.fromhex(key) for key in given["keys"]]
    return {"wrapped": b"".join(map(crypto.wrap_key, keys, keys[1:])).hex()}


def _unwrap(given: dict[str, Any]) -> Fields:
    return {"key": crypto.unwrap_key(bytes.fromhex(given["kek"]), bytes.fromhex(given["wrapped"]), "wrapped").hex()}


def _block(given: dict[str, Any]) -> Fields:
    leaves = [leaf_hash(bytes.fromhex(signed)) for signed in given["signed"]]
    root, proofs = root_and_proofs(leaves)
    return {"leaves": hexed(leaves), "root": root.hex(), "proofs": hexed(proofs)}


def _cover(given: dict[str, Any]) -> Fields:
    tree = KeyTree(given["degree"])
    tree.extend(given["height"], given["degree"] ** given["height"])
    tree.grow(given["height"])
    tree.count_members(given["occupied"], 1)
    return {"cover": hexed(complete_subtree_cover(tree, given["wanted"]))}


KINDS: Final[dict[str, Callable[[dict[str, Any]], Fields]]] = {
    "topic": _topic,
    "derive": _derive,
    "wrap": _wrap,
    "unwrap": _unwrap,
    "block": _block,
    "cover": _cover,
    "encode": replay_message.encode,
    "open": replay_message.open_,
    "commit": replay_group.commit,
    "evict": replay_group.evict,
    "member": replay_member.run,
}

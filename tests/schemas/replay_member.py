"""Takes a member through a vector of the kind `member`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from brokerkm.core.crypto import Suite
from brokerkm.core.member import Member
from brokerkm.core.memory import Memory, Profile
from brokerkm.core.path import KeyPath
from brokerkm.core.policy import Policy
from brokerkm.core.state import State
from brokerkm.core.welcome import NodeKey
from brokerkm.errors import RefusedError
from schemas.material import Stream, error, hexed

if TYPE_CHECKING:
    from brokerkm.core.events import Event
    from schemas.material import Fields, Json


def run(given: dict[str, Any]) -> Fields:
    """Return what each step brings, and how the member stands in the end."""
    member = load(given["member"])
    steps: list[Json] = [_step(member, step) for step in given["steps"]]
    path = member._memory.path
    keys: list[Json] = [] if path is None else [[node.birth, node.step, node.key.hex()] for node in path.keys]
    return {"steps": steps, "state": str(member.state), "epoch": member.epoch, "path": keys}


def load(it: dict[str, Any]) -> Member:
    """Return the member that a vector describes."""
    path = None
    if it["path"]:
        birth, key = it["leaf"]
        nodes = [NodeKey(bytes.fromhex(key), birth, step) for birth, step, key in it["path"]]
        path = KeyPath(it["slot"], it["degree"], NodeKey(bytes.fromhex(key), birth, 0), nodes)
    memory = Memory(
        Profile(it["group"], it["member"], bytes.fromhex(it["server_key"]), Suite(it["suite"])),
        bytes.fromhex(it["identity_seed"]),
        kem_seed=bytes.fromhex(it["kem_seed"]),
        join_seed=bytes.fromhex(it["kem_seed"]),
        join_nonces=[bytes.fromhex(nonce) for nonce in it["join_nonces"]],
        sync_nonces=[bytes.fromhex(nonce) for nonce in it["sync_nonces"]],
        state=State(it["state"]),
        epoch=it["epoch"],
        path=path,
        policy=Policy.from_fields(it["policy"]),
        spares=dict(enumerate(bytes.fromhex(spare) for spare in it.get("spares", ()))),
        heard=it["now"],
    )
    return Member.load(memory.encode(), Stream("member"), it["now"])


def _step(member: Member, step: dict[str, Any]) -> Fields:
    now = step["now"]
    if "tick" in step:
        return {"events": [_event(event) for event in member.tick(now)]}
    try:
        events = member.receive(step["topic"], bytes.fromhex(step["payload"]), now)
    except RefusedError as refused:
        return error(refused.reason, refused.field)
    return {"events": [_event(event) for event in events]}


def _event(event: Event) -> Fields:
    fields: Fields = {"event": type(event).__name__}
    for item in dataclasses.fields(event):
        value = getattr(event, item.name)
        match value:
            case bytes():
                fields[item.name] = value.hex()
            case str():
                fields[item.name] = str(value)
            case Policy():
                fields[item.name] = hexed(value.fields)
            case _:
                fields[item.name] = int(value)
    return fields

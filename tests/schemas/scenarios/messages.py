"""Every message once or twice as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from brokerkm.core.crypto import Suite, labelled, wrap_key
from brokerkm.core.policy import Policy
from brokerkm.core.request import TokenKey
from brokerkm.core.signing import sign_all
from brokerkm.core.welcome import Certificate
from schemas.material import (
    GROUP,
    IDENTITY_PUBLIC,
    IDENTITY_SEED,
    MEMBER,
    NOW_MS,
    SERVER_KEY,
    SERVER_PUBLIC,
    SERVER_SEED,
    TOPIC,
    Fields,
    Json,
    Vector,
    draw,
    hexed,
    issue,
)
from schemas.replay import run

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER: Fields = {"server_seed": SERVER_SEED.hex(), "group": GROUP}
NAMES: Fields = {"group": GROUP, "member": MEMBER}
NONCE = draw("nonce", 16)
TOKEN = TokenKey.from_secret(draw("token id", 8), draw("token secret", 32))
CERTIFICATE = Certificate.issue(SERVER_KEY, GROUP, MEMBER, IDENTITY_PUBLIC, NOW_MS + 86_400_000)
CERTIFIED: Fields = {
    "chain": [certificate.hex() for certificate in issue(MEMBER, draw("device", 32))],
    "key_seed": draw("device", 32).hex(),
}
KEYS = [draw(f"key {number}", 32) for number in range(6)]
LEAF = draw("leaf", 32)
SEEDS: list[Json] = [SERVER_SEED.hex(), draw("second server", 32).hex(), draw("third server", 32).hex()]
ROOT: list[Json] = [7, 2, draw("root", 32).hex()]


def wrapped(one: int, other: int) -> bytes:
    """Return a key wrapped by another, by their numbers."""
    return wrap_key(KEYS[one], KEYS[other])


CHAIN = wrapped(1, 2) + wrapped(2, 3)
BUCKET: list[Json] = [
    [20, 3, 0, wrapped(4, 1).hex()],
    [22, 5, 0, wrapped(5, 1).hex()],
]


def vectors() -> Iterator[Vector]:
    """Yield each message: what it is made of, and its bytes."""
    for name, (description, given) in _cases().items():
        yield Vector(name, description, "encode", given, run("encode", given))
    yield _rekey_in_block()


def _message(kind: str, context: Fields, fields: Fields) -> Fields:
    return {"message": kind, **context, "fields": fields}


def _cases() -> dict[str, tuple[str, Fields]]:
    bucket: Fields = {"epoch": 9, "height": 3, "entries": BUCKET, "chain": CHAIN.hex()}
    node: Fields = {
        "epoch": 300,
        "height": 3,
        "entries": [[None, 7, 2, wrapped(0, 3).hex()]],
        "chain": "",
    }
    rules: Json = [60, 10, 900, 0, 1, 2, 120]
    beacon: Fields = {"epoch": 9, "height": 3, "birth": 7, "step": 2, "time": NOW_MS, "due": 30, "policy": rules}
    unborn = {**beacon, "epoch": 0, "height": 1, "birth": 0, "step": 0, "policy": hexed(Policy().fields)}
    refusing: Fields = {"nonce": NONCE.hex(), "time": NOW_MS}
    asked: Fields = {**refusing, "counter": 300}
    small, large = (suite.public_key(draw("kem", suite.seed_size)).hex() for suite in Suite)
    token: Fields = {"id": TOKEN.id.hex(), "key": TOKEN.key.hex()}
    joiner: Fields = {**NAMES, "identity_seed": IDENTITY_SEED.hex()}
    leaf: Fields = {**NAMES, "leaf_key": LEAF.hex()}
    data: Fields = {"sender": MEMBER, "salt": draw("salt", 8).hex(), "counter": 0, "plaintext": b"21.4".hex()}
    topic: Fields = {"group": GROUP, "topic": TOPIC, "root": ROOT}
    some: Fields = {
        "time": NOW_MS,
        "slot": None,
        "birth": 7,
        "step": 2,
        "salt": NONCE.hex(),
        "plaintext": b"open valve 3".hex(),
    }
    under: Fields = {**SERVER, "node_key": KEYS[0].hex()}
    server: Fields = {**SERVER, "member": MEMBER}
    return {
        "rekey-bucket": ("Two leaves of bucket 10.", _message("rekey", {**SERVER, "level": 0, "index": 10}, bucket)),
        "rekey-node": ("A child of the root: no chain.", _message("rekey", {**SERVER, "level": 2, "index": 1}, node)),
        "beacon": ("Root key of epoch 7, two joins later.", _message("beacon", SERVER, beacon)),
        "beacon-unborn": ("A group that never had a member.", _message("beacon", SERVER, unborn)),
        "handover": (
            "From the first key over a second to a third.",
            _message("handover", {"group": GROUP, "server_seeds": SEEDS}, {"times": [NOW_MS, NOW_MS + 1]}),
        ),
        "goodbye": ("Evicted.", _message("goodbye", server, {"epoch": 9, "reason": 1, "salt": "0f" * 16})),
        "goodbye-destroyed": (
            "The group is no more: to everybody.",
            _message("goodbye", {**server, "member": ""}, {"epoch": 10, "reason": 3, "salt": "3c" * 16}),
        ),
        "goodbye-left": ("Left.", _message("goodbye", server, {"epoch": 70000, "reason": 2, "salt": "f0" * 16})),
        "join-listed": (
            "Suite 1; the identity is listed.",
            _message("join", joiner, {**asked, "kem_public": small}),
        ),
        "join-token": (
            "Suite 2; a token lets the identity in.",
            _message("join", {**joiner, "token": token}, {**asked, "kem_public": large}),
        ),
        "join-certificate": (
            "Suite 1; a device certificate lets the identity in.",
            _message("join", {**joiner, "certificate": CERTIFIED}, {**asked, "kem_public": small}),
        ),
        "sync": ("The current keys, please.", _message("sync", leaf, {**asked, "epoch": 9})),
        "ack": ("I have the keys of epoch 9.", _message("ack", leaf, {**asked, "epoch": 9})),
        "leave": ("Take me out.", _message("leave", leaf, asked)),
        "data": ("The first message after a start.", _message("data", topic, data)),
        "data-chacha": (
            "Under the other algorithm, with a sender's key of its own.",
            _message("data", topic, {**data, "algorithm": 2}),
        ),
        "data-empty": (
            "Nothing to say, for the 70,000th time.",
            _message("data", topic, {**data, "counter": 70_000, "plaintext": ""}),
        ),
        "data-signed": (
            "With the sender's signature and certificate.",
            _message(
                "data",
                {**topic, "identity_seed": IDENTITY_SEED.hex()},
                {**data, "certificate": hexed(CERTIFICATE.fields)},
            ),
        ),
        "refusal": ("The time is wrong.", _message("refusal", server, {**refusing, "reason": 3})),
        "subgroup-node": ("Under an inner node.", _message("subgroup", {**under, "level": 2, "index": 1}, some)),
        "subgroup-leaf": (
            "Under one leaf of bucket 10.",
            _message("subgroup", {**under, "level": 0, "index": 10}, {**some, "slot": 20, "step": 0}),
        ),
    }


def _rekey_in_block() -> Vector:
    """Take the first message of the second block of a large commit."""
    bodies = [bytes.fromhex("98010109") + b"\x03" + bytes((0x91, 0x94, 0xC0, 7, 0, 0xC4, 40)) for _ in range(80)]
    bodies = [body + wrapped(0, 3) + b"\xc4\x00" for body in bodies]
    contexts = [labelled("brokerkm v1 rekey", GROUP, 2, index) for index in range(len(bodies))]
    payload = sign_all(SERVER_KEY, bodies, contexts)[16]
    given: Fields = {"message": "rekey", "group": GROUP, "level": 2, "index": 16}
    given |= {"server_key": SERVER_PUBLIC.hex(), "payload": payload.hex()}
    description = "One of 80 Rekeys that a commit signed in blocks of 16: four hashes lead to the signed root."
    return Vector("rekey-block", description, "open", given, run("open", given))


def payload_of(name: str) -> bytes:
    """Return the encoded message of the vector called `name`."""
    return bytes.fromhex(cast("str", run("encode", _cases()[name][1])["payload"]))

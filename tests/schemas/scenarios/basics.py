"""Topics, derived keys, key wrap, blocks and covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.material import GROUP, Fields, Json, Vector, draw, error
from schemas.replay import run

if TYPE_CHECKING:
    from collections.abc import Iterator


def vectors() -> Iterator[Vector]:
    """Yield what needs no message."""
    yield from _topics()
    yield from _keys()
    yield from _wraps()
    yield from _blocks()
    yield from _covers()


def _topics() -> Iterator[Vector]:
    good: dict[str, tuple[str, str, Fields]] = {
        "node": ("An inner node.", "n/3/41", {"node": [3, 41]}),
        "bucket": ("Level 0: the bucket of level-1 node 5.", "n/0/5", {"node": [0, 5]}),
        "root-of-highest": ("The root of the highest tree.", "n/24/0", {"node": [24, 0]}),
        "beacon": ("The group's Beacon.", "b", {"beacon": []}),
        "handover": ("The group's hand-overs.", "k", {"handover": []}),
        "member": ("What is for one member.", "m/sensor-7", {"member": ["sensor-7"]}),
        "request": ("One member's requests.", "r/sensor-7", {"request": ["sensor-7"]}),
    }
    for name, (description, tail, expect) in good.items():
        given: Fields = {"prefix": "bkm/1", "group": GROUP, "topic": f"bkm/1/{GROUP}/{tail}"}
        yield Vector(f"topic-{name}", description, "topic", given, expect)
    bad = {
        "other-group": ("Another group, whose name begins alike.", f"bkm/1/{GROUP}2/b"),
        "other-prefix": ("Another prefix.", f"bkm/2/{GROUP}/b"),
        "level-25": ("No tree is that high.", f"bkm/1/{GROUP}/n/25/0"),
        "leading-zero": ("A number has one spelling.", f"bkm/1/{GROUP}/n/1/01"),
        "index-beyond": ("Index 2^24.", f"bkm/1/{GROUP}/n/1/16777216"),
        "negative-index": ("A sign.", f"bkm/1/{GROUP}/n/1/-1"),
        "too-deep": ("One level more.", f"bkm/1/{GROUP}/n/1/2/3"),
        "bad-member": ("A space in a member id.", f"bkm/1/{GROUP}/m/sensor 7"),
        "unknown-branch": ("A branch that there is not.", f"bkm/1/{GROUP}/x"),
    }
    for name, (description, topic) in bad.items():
        given = {"prefix": "bkm/1", "group": GROUP, "topic": topic}
        yield Vector(f"topic-{name}", description, "topic", given, error("wrong-topic", "topic"))


def _keys() -> Iterator[Vector]:
    key, root = draw("node", 32).hex(), draw("root", 32).hex()
    sender: Fields = {"function": "sender", "key": draw("tek", 32).hex(), "sender": "sensor-7"}
    sender["salt"] = draw("salt", 8).hex()
    given: dict[str, tuple[str, Fields]] = {
        "ratchet-1": ("A node key, one step on.", {"function": "ratchet", "key": key, "steps": 1}),
        "ratchet-3": ("A node key, three steps on.", {"function": "ratchet", "key": key, "steps": 3}),
        "tek": ("The TEK of a root key.", {"function": "tek", "key": root, "group": GROUP, "birth": 7, "step": 2}),
        "sender-key": ("One sender's key; the key given is the TEK.", {**sender, "algorithm": 1}),
        "sender-key-chacha": ("The same for the other algorithm.", {**sender, "algorithm": 2}),
        "token-key": (
            "The MAC key of an enrollment token; the key given is its secret.",
            {"function": "token", "key": draw("token secret", 32).hex(), "id": draw("token id", 8).hex()},
        ),
        "request-key": (
            "The MAC key of Sync and Leave; the key given is the leaf's.",
            {"function": "request", "key": draw("leaf", 32).hex()},
        ),
    }
    for name, (description, fields) in given.items():
        yield Vector(f"derive-{name}", description, "derive", fields, run("derive", fields))


def _wraps() -> Iterator[Vector]:
    one, two, *more = (draw(f"key {number}", 32).hex() for number in range(5))
    # RFC 3394, section 4.6: 256 bits of key data with a 256-bit KEK.
    kek = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    data = "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f"
    wrapped = "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"
    yield Vector("wrap-rfc3394", "RFC 3394, section 4.6.", "wrap", {"keys": [kek, data]}, {"wrapped": wrapped})
    yield Vector("unwrap-rfc3394", "And back.", "unwrap", {"kek": kek, "wrapped": wrapped}, {"key": data})
    keys: list[Json] = [one, two, *more]
    given: Fields = {"keys": keys}
    yield Vector("wrap-chain", "Each key wraps the next: 160 bytes.", "wrap", given, run("wrap", given))
    given = {"kek": two, "wrapped": wrapped}
    yield Vector("unwrap-wrong-key", "Not the key it was wrapped by.", "unwrap", given, error("bad-seal", "wrapped"))
    given = {"kek": kek, "wrapped": wrapped[:-2] + "20"}
    yield Vector("unwrap-damaged", "One bit flipped.", "unwrap", given, error("bad-seal", "wrapped"))
    given = {"kek": kek, "wrapped": wrapped[:-16]}
    yield Vector("unwrap-short", "Eight bytes too few.", "unwrap", given, error("bad-seal", "wrapped"))


def _blocks() -> Iterator[Vector]:
    for count in (2, 5, 16):
        signed: list[Json] = [draw(f"message {number}", 20).hex() for number in range(count)]
        given: Fields = {"signed": signed}
        description = f"The Merkle tree over the signed bytes of {count} messages; an odd node moves up."
        yield Vector(f"block-{count}", description, "block", given, run("block", given))


def _covers() -> Iterator[Vector]:
    eight: list[Json] = list(range(8))
    cases: dict[str, tuple[str, list[Json], list[Json], list[Json]]] = {
        "all": ("Everybody: the root.", eight, eight, [[3, 0]]),
        "all-but-one": ("Everybody but slot 5.", eight, [0, 1, 2, 3, 4, 6, 7], [[0, 4], [1, 3], [2, 0]]),
        "scattered": ("No two under one node.", eight, [0, 2, 5, 7], [[0, 0], [0, 2], [0, 5], [0, 7]]),
        "empty-slots": ("Slots that nobody has count for neither side.", [0, 1, 2, 6], [2, 6], [[1, 1], [2, 1]]),
    }
    for name, (description, occupied, wanted, cover) in cases.items():
        given: Fields = {"degree": 2, "height": 3, "occupied": occupied, "wanted": wanted}
        yield Vector(f"cover-{name}", description, "cover", given, {"cover": cover})

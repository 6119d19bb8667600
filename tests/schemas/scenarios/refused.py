"""Messages that are refused: malformed, forged, out of place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack

from brokerkm.core.crypto import labelled, load_signing_key
from brokerkm.core.data import Sealer, traffic_key
from brokerkm.core.policy import Policy
from brokerkm.core.welcome import Certificate, NodeKey
from schemas.material import (
    GROUP,
    IDENTITY,
    IDENTITY_PUBLIC,
    MEMBER,
    NOW_MS,
    SERVER_KEY,
    SERVER_PUBLIC,
    TOPIC,
    Fields,
    Json,
    Vector,
    draw,
    error,
)
from schemas.replay import run
from schemas.scenarios.messages import (
    BUCKET,
    CERTIFICATE,
    CERTIFIED,
    CHAIN,
    LEAF,
    NONCE,
    ROOT,
    TOKEN,
    payload_of,
    wrapped,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

STRANGER = load_signing_key(draw("stranger", 32))


def vectors() -> Iterator[Vector]:
    """Yield one refusal a vector."""
    yield from _encodings()
    yield from _beacons()
    yield from _rekeys()
    yield from _notices()
    yield from _requests()
    yield from _data()


def refused(name: str, description: str, given: Fields, payload: bytes, *why: str) -> Vector:
    """Return the vector of a message that is refused; `why` is the reason and the field."""
    return Vector(name, description, "open", {**given, "payload": payload.hex()}, error(*why))


def signed(label: str, context: tuple[object, ...], *fields: object) -> bytes:
    """Return a message of any fields with a true signature of the server."""
    head = bytes((0x90 | len(fields) + 1,)) + msgpack.packb(fields)[1:]
    return head + msgpack.packb(SERVER_KEY.sign(labelled(label, *context) + head))


BEACON: Fields = {"message": "beacon", "group": GROUP, "server_key": SERVER_PUBLIC.hex()}


def beacon(*fields: object, policy: object = Policy().fields) -> bytes:
    """Return a signed Beacon of `fields` and a policy."""
    return signed("brokerkm v1 beacon", (GROUP,), 1, 2, *fields, policy)


def _encodings() -> Iterator[Vector]:
    good = payload_of("beacon")
    elements = msgpack.unpackb(good)
    cases = {
        "empty": ("No byte at all.", b"", "truncated", "message"),
        "truncated": ("The last byte is missing.", good[:-1], "truncated", "message"),
        "truncated-length": (
            "Bytes that claim to be 4 GiB.",
            b"\x92\x01\xc6\xff\xff\xff\xff",
            "truncated",
            "message",
        ),
        "trailing": ("One byte more.", good + b"\0", "trailing", "message"),
        "not-msgpack": ("A byte that msgpack does not have.", b"\xc1", "wrong-type", "message"),
        "not-an-array": ("A map.", b"\x81\x01\x02", "wrong-type", "message"),
        "an-integer": ("A number alone.", b"\x01", "wrong-type", "message"),
        "nested": ("Two thousand arrays in each other.", b"\x91" * 2000 + b"\xc0", "wrong-type", "message"),
        "invalid-utf8": ("Text that is not UTF-8.", b"\x9a\x01\x02\xa1\xff" + good[5:], "wrong-type", "message"),
        "no-elements": ("An empty array.", b"\x90", "wrong-length", "message"),
        "oversized": ("16 KiB and one byte.", good + bytes(16_385 - len(good)), "oversized", "message"),
        "wrong-version": ("Version 2.", b"\x9a\x02" + good[2:], "wrong-version", "version"),
        "version-float": ("Version 1.0.", b"\x9a\xcb\x3f\xf0" + bytes(6) + good[2:], "wrong-version", "version"),
        "version-true": ("True is not 1.", b"\x9a\xc3" + good[2:], "wrong-version", "version"),
        "unknown-type": ("Type 11.", b"\x9a\x01\x0b" + good[3:], "wrong-message", "type"),
        "other-type": ("A Refusal where a Beacon belongs.", payload_of("refusal"), "wrong-message", "type"),
        "element-missing": ("Eight elements.", msgpack.packb(elements[:-1]), "wrong-length", "message"),
        "element-extra": ("Ten elements.", msgpack.packb([*elements, None]), "wrong-length", "message"),
        "long-integer": ("9 in two bytes.", good[:3] + b"\xcc\x09" + good[4:], "not-canonical", "message"),
        "long-array": ("An array with a 16-bit length.", b"\xdc\0\x0a" + good[1:], "not-canonical", "message"),
        "long-binary": (
            "The signature with a 16-bit length.",
            good[:-66] + b"\xc5\0\x40" + good[-64:],
            "not-canonical",
            "message",
        ),
    }
    for name, (description, payload, reason, field) in cases.items():
        yield refused(f"encoding-{name}", description, BEACON, payload, reason, field)


def _beacons() -> Iterator[Vector]:
    good = payload_of("beacon")
    huge = 1 << 63
    cases = {
        "epoch-2-63": ("2^63: one too many.", beacon(huge, 3, 7, 2, NOW_MS, 30), "out-of-range", "epoch"),
        "epoch-2-64": ("2^64 - 1.", beacon(2 * huge - 1, 3, 7, 2, NOW_MS, 30), "out-of-range", "epoch"),
        "epoch-negative": ("-1.", beacon(-1, 3, 0, 2, NOW_MS, 30), "out-of-range", "epoch"),
        "epoch-float": ("9.0.", beacon(9.0, 3, 7, 2, NOW_MS, 30), "wrong-type", "epoch"),
        "epoch-text": ('"9".', beacon("9", 3, 7, 2, NOW_MS, 30), "wrong-type", "epoch"),
        "epoch-nil": ("nil.", beacon(None, 3, 7, 2, NOW_MS, 30), "wrong-type", "epoch"),
        "height-0": ("A leaf is no root.", beacon(9, 0, 7, 2, NOW_MS, 30), "out-of-range", "height"),
        "height-25": ("Higher than any tree.", beacon(9, 25, 7, 2, NOW_MS, 30), "out-of-range", "height"),
        "birth-ahead": ("A root from the future.", beacon(9, 3, 10, 2, NOW_MS, 30), "out-of-range", "birth"),
        "step-65536": ("A step too many.", beacon(9, 3, 7, 65_536, NOW_MS, 30), "out-of-range", "step"),
        "policy-five": (
            "A policy of five rules.",
            beacon(9, 3, 7, 2, NOW_MS, 30, policy=[30, 5, 300, 1, 0]),
            "wrong-length",
            "policy",
        ),
        "algorithm-3": (
            "An algorithm that there is not.",
            beacon(9, 3, 7, 2, NOW_MS, 30, policy=[30, 5, 300, 1, 0, 3, 0]),
            "out-of-range",
            "policy.algorithm",
        ),
        "due-0": ("Due at once.", beacon(9, 3, 7, 2, NOW_MS, 0), "out-of-range", "due"),
        "signature-short": ("63 bytes.", good[:-66] + b"\xc4\x3f" + good[-64:-1], "wrong-length", "signature"),
        "signature-forged": ("One bit flipped.", good[:-1] + bytes((good[-1] ^ 1,)), "bad-signature", "signature"),
        "changed": (
            "Epoch 10 under the signature of epoch 9.",
            good[:3] + b"\x0a" + good[4:],
            "bad-signature",
            "signature",
        ),
    }
    for name, (description, payload, reason, field) in cases.items():
        yield refused(f"beacon-{name}", description, BEACON, payload, reason, field)
    other: Fields = {**BEACON, "group": "fleet-02"}
    yield refused("beacon-other-group", "Another group's.", other, good, "bad-signature", "signature")
    other = {**BEACON, "server_key": IDENTITY_PUBLIC.hex()}
    yield refused("beacon-other-server", "Another server's.", other, good, "bad-signature", "signature")


def rekey(level: int, entries: object, chain: object, *proof: object, height: object = 3, epoch: object = 9) -> bytes:
    """Return a signed Rekey of index 10; `proof` is nil unless it is given."""
    return signed("brokerkm v1 rekey", (GROUP, level, 10), 1, 1, epoch, height, entries, chain, *(proof or (None,)))


def _rekeys() -> Iterator[Vector]:
    given: Fields = {"message": "rekey", "group": GROUP, "level": 0, "index": 10, "server_key": SERVER_PUBLIC.hex()}
    above: Fields = {**given, "level": 1}
    two = [[slot, birth, step, bytes.fromhex(text)] for slot, birth, step, text in _rows(BUCKET)]
    node = [None, 7, 2, wrapped(0, 3)]
    cases = {
        "epoch-0": ("Nothing is born in epoch 0.", rekey(0, two, CHAIN, epoch=0), "out-of-range", "epoch"),
        "height-low": (
            "A root at level 0.",
            rekey(0, two, CHAIN, height=0),
            "out-of-range",
            "height",
        ),
        "height-25": ("Higher than any tree.", rekey(0, two, CHAIN * 12, height=25), "out-of-range", "height"),
        "chain-short": ("One key too few.", rekey(0, two, CHAIN[:40]), "wrong-length", "chain"),
        "chain-long": ("One key too many.", rekey(0, two, CHAIN + CHAIN[:40]), "wrong-length", "chain"),
        "chain-ragged": ("Half a key.", rekey(0, two, CHAIN[:60]), "wrong-length", "chain"),
        "chain-text": ("Text.", rekey(0, two, "a" * 80), "wrong-type", "chain"),
        "entries-none": ("For nobody.", rekey(0, [], CHAIN), "wrong-length", "entries"),
        "entries-65": ("More than a node has children.", rekey(0, [two[0]] * 65, CHAIN), "wrong-length", "entries"),
        "entries-nil": ("nil.", rekey(0, None, CHAIN), "wrong-type", "entries"),
        "entries-unsorted": ("Slot 22 before 20.", rekey(0, two[::-1], CHAIN), "out-of-range", "entries.slot"),
        "entries-double": ("Slot 20 twice.", rekey(0, [two[0]] * 2, CHAIN), "out-of-range", "entries.slot"),
        "entry-short": ("Three elements.", rekey(0, [two[0][:3]], CHAIN), "wrong-length", "entries"),
        "slot-nil": ("An entry of a bucket has a slot.", rekey(0, [node], CHAIN), "wrong-type", "entries.slot"),
        "slot-beyond": ("Slot 2^24.", rekey(0, [[1 << 24, *two[0][1:]]], CHAIN), "out-of-range", "entries.slot"),
        "leaf-step": (
            "A ratcheted leaf key.",
            rekey(0, [[20, 3, 1, CHAIN[:40]]], CHAIN),
            "out-of-range",
            "entries.step",
        ),
        "birth-0": (
            "Never born.",
            rekey(0, [[20, 0, 0, CHAIN[:40]]], CHAIN),
            "out-of-range",
            "entries.birth",
        ),
        "wrapped-short": ("39 bytes.", rekey(0, [[20, 3, 0, CHAIN[:39]]], CHAIN), "wrong-length", "entries.wrapped"),
        "proof-empty": ("No hash: that is what nil says.", rekey(0, two, CHAIN, b""), "wrong-length", "proof"),
        "proof-ragged": ("17 bytes.", rekey(0, two, CHAIN, bytes(17)), "wrong-length", "proof"),
        "proof-long": ("Five hashes.", rekey(0, two, CHAIN, bytes(80)), "wrong-length", "proof"),
        "proof-forged": ("A proof of something else.", rekey(0, two, CHAIN, bytes(32)), "bad-signature", "signature"),
        "other-epoch": (
            "Epoch 10 under the signature of epoch 9.",
            b"\x98\x01\x01\x0a" + rekey(0, two, CHAIN)[4:],
            "bad-signature",
            "signature",
        ),
    }
    for name, (description, payload, reason, field) in cases.items():
        yield refused(f"rekey-{name}", description, given, payload, reason, field)
    payload = rekey(1, [[20, *node[1:]]], CHAIN[:40])
    yield refused("rekey-slot-above", "Only buckets have slots.", above, payload, "wrong-type", "entries.slot")
    payload = rekey(1, [node, node], CHAIN[:40])
    yield refused("rekey-two-above", "A node has one key.", above, payload, "wrong-length", "entries")
    other: Fields = {**given, "index": 11}
    payload = payload_of("rekey-bucket")
    yield refused("rekey-other-topic", "From bucket 10 on 11.", other, payload, "bad-signature", "signature")
    other = {**given, "group": "fleet-02"}
    yield refused("rekey-other-group", "Another group's.", other, payload, "bad-signature", "signature")


def _rows(entries: list[Json]) -> list[tuple[int, int, int, str]]:
    return [(slot, birth, step, text) for slot, birth, step, text in entries]  # type: ignore[misc,union-attr]


def _notices() -> Iterator[Vector]:
    key = SERVER_PUBLIC.hex()
    given: Fields = {"message": "goodbye", "group": GROUP, "member": MEMBER, "server_key": key}
    other: Fields = {**given, "member": "sensor-8"}
    yield refused("goodbye-other-member", "To another.", other, payload_of("goodbye"), "bad-signature", "signature")
    payload = signed("brokerkm v1 goodbye", (GROUP, MEMBER), 1, 4, 9, 4, bytes(16), None)
    yield refused("goodbye-reason-4", "No such reason.", given, payload, "out-of-range", "reason")
    payload = signed("brokerkm v1 goodbye", (GROUP, MEMBER), 1, 4, 9, 3, bytes(16), None)
    yield refused("goodbye-destroyed-one", "To one alone.", given, payload, "out-of-range", "reason")
    payload = signed("brokerkm v1 goodbye", (GROUP, ""), 1, 4, 9, 1, bytes(16), None)
    everybody: Fields = {**given, "member": ""}
    yield refused("goodbye-evicted-all", "Everybody is evicted.", everybody, payload, "out-of-range", "reason")
    payload = signed("brokerkm v1 goodbye", (GROUP, MEMBER), 1, 4, 0, 1, bytes(16), None)
    yield refused("goodbye-epoch-0", "Nobody was in before epoch 1.", given, payload, "out-of-range", "epoch")
    payload = signed("brokerkm v1 goodbye", (GROUP, MEMBER), 1, 4, 9, 1, bytes(15), None)
    yield refused("goodbye-salt-short", "15 bytes.", given, payload, "wrong-length", "salt")
    given = {"message": "refusal", "group": GROUP, "member": MEMBER, "server_key": key}
    payload = signed("brokerkm v1 refusal", (GROUP, MEMBER), 1, 9, NONCE, 5, NOW_MS)
    yield refused("refusal-reason-5", "No such reason.", given, payload, "out-of-range", "reason")
    payload = signed("brokerkm v1 refusal", (GROUP, MEMBER), 1, 9, NONCE[:15], 1, NOW_MS)
    yield refused("refusal-nonce-short", "15 bytes.", given, payload, "wrong-length", "nonce")
    payload = signed("brokerkm v1 goodbye", (GROUP, MEMBER), 1, 9, NONCE, 1, NOW_MS)
    yield refused("refusal-other-label", "Signed as a Goodbye.", given, payload, "bad-signature", "signature")
    under: Fields = {"message": "subgroup", "group": GROUP, "level": 2, "index": 1, "server_key": key}
    under["node_key"] = draw("key 0", 32).hex()
    payload = payload_of("subgroup-node")
    elsewhere: Fields = {**under, "index": 0}
    yield refused("subgroup-other-topic", "From the node beside.", elsewhere, payload, "bad-signature", "signature")
    elsewhere = {**under, "node_key": draw("key 1", 32).hex()}
    yield refused("subgroup-other-key", "Not the key it is under.", elsewhere, payload, "bad-seal", "ciphertext")
    elsewhere = {**under, "level": 0, "index": 10}
    yield refused("subgroup-slot-missing", "A bucket needs a slot.", elsewhere, payload, "wrong-type", "slot")


def _requests() -> Iterator[Vector]:
    names: Fields = {"group": GROUP, "member": MEMBER, "now": NOW_MS + 5, "last_time": 0, "last_counter": 299}
    token: Fields = {"id": TOKEN.id.hex(), "key": TOKEN.key.hex()}
    identity = IDENTITY_PUBLIC.hex()
    listed: Fields = {"message": "join", **names, "suite": 1, "listed_identity": identity, "token": None}
    tokened: Fields = {"message": "join", **names, "suite": 2, "listed_identity": None, "token": token}
    one, two = payload_of("join-listed"), payload_of("join-token")
    cut = msgpack.packb([*msgpack.unpackb(two)[:7], TOKEN.id, None, two[-64:]])
    certified: Fields = {**listed, "listed_identity": None, "certificate": CERTIFIED}
    three = payload_of("join-certificate")
    before, chain, proof = msgpack.unpackb(three)[:7], *msgpack.unpackb(three)[7:9]
    long = msgpack.packb([*before, [chain[1]] * 5, proof, three[-64:]])
    none = msgpack.packb([*before, [], proof, three[-64:]])
    other = msgpack.packb([*before, chain, proof[:-1] + bytes((proof[-1] ^ 1,)), three[-64:]])
    stranger: Json = STRANGER.public_key().public_bytes_raw().hex()
    wrong: Json = draw("wrong", 32).hex()
    joins: dict[str, tuple[str, Fields, bytes, str, str]] = {
        "early": ("Five minutes and 5 ms late.", {**listed, "now": NOW_MS + 300_005}, one, "wrong-time", "time"),
        "future": ("From the future.", {**listed, "now": NOW_MS - 300_001}, one, "wrong-time", "time"),
        "replay": ("Not newer than the last.", {**listed, "last_time": NOW_MS}, one, "replay", "time"),
        "other-identity": (
            "Another key is listed.",
            {**listed, "listed_identity": stranger},
            one,
            "bad-signature",
            "identity",
        ),
        "no-token": (
            "Not listed, and no token.",
            {**listed, "listed_identity": None},
            one,
            "unknown-token",
            "credential",
        ),
        "unknown-token": ("A token that there is not.", {**tokened, "token": None}, two, "unknown-token", "credential"),
        "token-mac": ("Another secret.", {**tokened, "token": {**token, "key": wrong}}, two, "bad-mac", "proof"),
        "proof-missing": ("A token without MAC.", tokened, cut, "wrong-type", "proof"),
        "no-authority": (
            "A certificate where none is good enough.",
            {**certified, "certificate": None},
            three,
            "bad-certificate",
            "credential",
        ),
        "possession": ("Not by the certificate's key.", certified, other, "bad-signature", "proof"),
        "chain-long": ("Five certificates.", certified, long, "wrong-length", "credential"),
        "chain-empty": ("No certificate.", certified, none, "wrong-length", "credential"),
        "signature": ("One bit flipped.", listed, one[:-1] + bytes((one[-1] ^ 1,)), "bad-signature", "signature"),
        "other-member": ("Another's request.", {**listed, "member": "sensor-8"}, one, "bad-signature", "signature"),
        "other-suite": ("A key of suite 1.", {**listed, "suite": 2}, one, "wrong-length", "kem_public"),
    }
    for name, (description, given, payload, reason, field) in joins.items():
        yield refused(f"join-{name}", description, given, payload, reason, field)
    member: Fields = {"message": "sync", **names, "leaf_key": LEAF.hex()}
    sync = payload_of("sync")
    syncs: dict[str, tuple[str, Fields, bytes, str, str]] = {
        "mac": ("One bit flipped.", member, sync[:-1] + bytes((sync[-1] ^ 1,)), "bad-mac", "mac"),
        "other-leaf": ("Another leaf's key.", {**member, "leaf_key": wrong}, sync, "bad-mac", "mac"),
        "unknown-member": ("Nobody of that name.", {**member, "leaf_key": None}, sync, "unknown-member", "member"),
        "late": ("Older than five minutes.", {**member, "now": NOW_MS + 300_001}, sync, "wrong-time", "time"),
        "replay": ("Not newer than the last.", {**member, "last_time": NOW_MS}, sync, "replay", "time"),
        "as-leave": ("A Sync for a Leave.", {**member, "message": "leave"}, sync, "wrong-message", "type"),
    }
    for name, (description, given, payload, reason, field) in syncs.items():
        yield refused(f"sync-{name}", description, given, payload, reason, field)
    ack = payload_of("ack")
    yield refused(
        "ack-mac", "One bit flipped.", {**member, "message": "ack"}, ack[:-1] + bytes((ack[-1] ^ 1,)), "bad-mac", "mac"
    )
    yield refused("ack-as-sync", "An Ack for a Sync.", member, ack, "wrong-message", "type")
    for counter, (name, text) in {
        299: ("steady", "The counter is higher than the last."),
        300: ("repeated", "The counter of the last request: two hold one state."),
        301: ("behind", "A lower counter than the last: somebody goes on from a copy."),
    }.items():
        given = {**member, "last_counter": counter, "payload": sync.hex()}
        yield Vector(f"sync-{name}", text, "open", given, run("open", given))
    leave = payload_of("leave")
    given = {**member, "message": "leave", "group": "fleet-02"}
    yield refused("leave-other-group", "Of another group.", given, leave, "bad-mac", "mac")


def data(counter: int = 0, certificate: Certificate | None = None, topic: str = TOPIC) -> bytes:
    """Return a Data message by the member of all vectors."""
    sealer = Sealer(GROUP, MEMBER, draw("salt", 8), "bkm/1/")
    sealer.certificate, sealer.identity = certificate, IDENTITY
    root = NodeKey(draw("root", 32), 7, 2)
    sealer.use(traffic_key(GROUP, root), 7, 2)
    sealer._counter = counter
    return sealer.seal(topic, b"21.4")


def _data() -> Iterator[Vector]:
    given: Fields = {"message": "data", "group": GROUP, "topic": TOPIC, "root": ROOT, "now": NOW_MS}
    given |= {"server_key": SERVER_PUBLIC.hex(), "source_authentication": False}
    strict: Fields = {**given, "source_authentication": True}
    good, sealed = data(), data(certificate=CERTIFICATE)
    salt, text = draw("salt", 8), good[-20:]
    expired = Certificate.issue(SERVER_KEY, GROUP, MEMBER, IDENTITY_PUBLIC, NOW_MS - 1)
    other = Certificate.issue(SERVER_KEY, GROUP, "sensor-8", IDENTITY_PUBLIC, NOW_MS + 1)
    self_made = Certificate.issue(STRANGER, GROUP, MEMBER, IDENTITY_PUBLIC, NOW_MS + 1)
    bare = [1, 8, 7, 2, MEMBER, salt, 0, text]

    def with_(at: int, value: object) -> bytes:
        return msgpack.packb([*bare[:at], value, *bare[at + 1 :]])

    not_utf8 = good.replace(b"\xa8sensor-7", b"\xa8sensor\xff7")
    stripped = msgpack.packb(msgpack.unpackb(sealed)[:8])
    cases: dict[str, tuple[str, Fields, bytes, str, str]] = {
        "other-topic": ("On another topic.", {**given, "topic": "plant/pressure"}, good, "bad-seal", "ciphertext"),
        "other-group": ("In another group.", {**given, "group": "fleet-02"}, good, "bad-seal", "ciphertext"),
        "other-counter": ("Counter 1 for 0.", given, with_(6, 1), "bad-seal", "ciphertext"),
        "other-sender": (
            "As somebody else.",
            given,
            with_(4, "sensor-8"),
            "bad-seal",
            "ciphertext",
        ),
        "tag": ("One bit flipped.", given, good[:-1] + bytes((good[-1] ^ 1,)), "bad-seal", "ciphertext"),
        "no-tag": ("Shorter than a tag.", given, with_(7, text[:15]), "wrong-length", "ciphertext"),
        "sender-space": (
            "Not an id.",
            given,
            with_(4, "sensor 7"),
            "out-of-range",
            "sender",
        ),
        "sender-65": (
            "65 characters.",
            given,
            with_(4, "a" * 65),
            "out-of-range",
            "sender",
        ),
        "sender-bytes": (
            "Not text.",
            given,
            with_(4, b"sensor-7"),
            "wrong-type",
            "sender",
        ),
        "sender-utf8": ("Text that is not UTF-8.", given, not_utf8, "wrong-type", "message"),
        "salt-short": ("Seven bytes.", given, with_(5, salt[:7]), "wrong-length", "salt"),
        "counter-2-63": ("2^63.", given, with_(6, 1 << 63), "out-of-range", "counter"),
        "counter-negative": ("-1.", given, with_(6, -1), "out-of-range", "counter"),
        "birth-0": ("Before all keys.", given, with_(2, 0), "out-of-range", "birth"),
        "step-65536": ("A step too many.", given, with_(3, 65_536), "out-of-range", "step"),
        "nine": ("A certificate alone.", given, msgpack.packb([*bare, None]), "wrong-length", "message"),
        "long-counter": ("0 in two bytes.", given, good[:-23] + b"\xcc\x00" + good[-22:], "not-canonical", "message"),
        "not-signed": ("The policy wants signatures.", strict, good, "not-signed", "signature"),
        "stripped": ("The signature taken away.", strict, stripped, "bad-seal", "ciphertext"),
        "source": ("One bit flipped.", strict, sealed[:-1] + bytes((sealed[-1] ^ 1,)), "bad-signature", "signature"),
        "expired": ("An old certificate.", strict, data(certificate=expired), "wrong-time", "certificate.expiry"),
        "other-certificate": (
            "Another member's certificate.",
            strict,
            data(certificate=other),
            "bad-signature",
            "certificate.signature",
        ),
        "self-made": (
            "A certificate that the server did not sign.",
            strict,
            data(certificate=self_made),
            "bad-signature",
            "certificate.signature",
        ),
    }
    for name, (description, where, payload, reason, field) in cases.items():
        yield refused(f"data-{name}", description, where, payload, reason, field)

"""The vectors hold for an implementation that shares no code with the first one."""

from __future__ import annotations

import hmac
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas import reference
from schemas.test_vectors import VECTORS


def of_kind(kind: str) -> list[str]:
    """Return the names of the vectors of a kind that tell a success."""
    return [name for name, vector in VECTORS.items() if vector["kind"] == kind and "error" not in vector["expect"]]


def raw(value: str) -> bytes:
    """Return the bytes in hex."""
    return bytes.fromhex(value)


@pytest.mark.parametrize("name", of_kind("derive"))
def test_derived_keys(name: str) -> None:
    """Each derivation is HKDF-Expand with the label and context that the specification names."""
    given = VECTORS[name]["input"]
    key = raw(given["key"])
    expected = {
        "ratchet": lambda: reference.ratchet(key, given["steps"]),
        "tek": lambda: reference.expand(
            key, reference.labelled("brokerkm v1 tek", given["group"], given["birth"], given["step"])
        ),
        "sender": lambda: reference.expand(
            key, reference.labelled("brokerkm v1 sender", given["sender"], raw(given["salt"]), given["algorithm"])
        ),
        "token": lambda: reference.expand(key, reference.labelled("brokerkm v1 token", raw(given["id"]))),
        "request": lambda: reference.expand(key, reference.labelled("brokerkm v1 request")),
    }[given["function"]]()
    assert VECTORS[name]["expect"]["key"] == expected.hex()


@pytest.mark.parametrize("name", of_kind("wrap"))
def test_wraps(name: str) -> None:
    """Each wrapped key is RFC 3394's, and unwraps."""
    keys = [raw(key) for key in VECTORS[name]["input"]["keys"]]
    wrapped = b"".join(map(reference.wrap, keys, keys[1:]))
    assert VECTORS[name]["expect"]["wrapped"] == wrapped.hex()
    assert [reference.unwrap(kek, wrapped[40 * at :][:40]) for at, kek in enumerate(keys[:-1])] == keys[1:]


@pytest.mark.parametrize("name", of_kind("block"))
def test_blocks(name: str) -> None:
    """Root and proofs are those of the labelled and sorted hashes."""
    leaves = [reference.leaf_hash(raw(signed)) for signed in VECTORS[name]["input"]["signed"]]
    expect = VECTORS[name]["expect"]
    assert expect["leaves"] == [leaf.hex() for leaf in leaves]
    assert expect["root"] == reference.block_root(leaves).hex()
    for at, proof in zip(leaves, expect["proofs"], strict=True):
        for start in range(0, len(proof), 32):
            at = reference.node_hash(at, raw(proof[start : start + 32]))  # noqa: PLW2901 - on the way up
        assert at.hex() == expect["root"]


@pytest.mark.parametrize("name", of_kind("encode"))
def test_messages(name: str) -> None:
    """Each message has the elements that its fields name, and a proof that holds."""
    vector = VECTORS[name]
    given, fields, payload = vector["input"], vector["input"]["fields"], raw(vector["expect"]["payload"])
    elements = msgpack.unpackb(payload)
    assert msgpack.packb(elements) == payload
    assert elements[0] == 1
    MESSAGES[given["message"]](given, fields, payload)


def _server(given: dict[str, Any]) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(raw(given["server_seed"])).public_key().public_bytes_raw()


def _rekey(given: dict[str, Any], fields: dict[str, Any], payload: bytes) -> None:
    context = (given["group"], given["level"], given["index"])
    found = reference.check_signed(_server(given), payload, "brokerkm v1 rekey", *context, proved=True)
    entries = [[slot, birth, step, raw(wrapped)] for slot, birth, step, wrapped in fields["entries"]]
    assert found[1:7] == [1, fields["epoch"], fields["height"], entries, raw(fields["chain"]), None]


def _beacon(given: dict[str, Any], fields: dict[str, Any], payload: bytes) -> None:
    found = reference.check_signed(_server(given), payload, "brokerkm v1 beacon", given["group"])
    names = ("epoch", "height", "birth", "step", "time", "due", "policy")
    assert found[1:-1] == [2, *(fields[name] for name in names)]


def _goodbye(given: dict[str, Any], fields: dict[str, Any], payload: bytes) -> None:
    names = (given["group"], given["member"])
    found = reference.check_signed(_server(given), payload, "brokerkm v1 goodbye", *names, proved=True)
    assert found[1:-1] == [4, fields["epoch"], fields["reason"], bytes.fromhex(fields["salt"]), None]


def _join(given: dict[str, Any], fields: dict[str, Any], payload: bytes) -> None:
    elements, signed = reference.split(payload, 1)
    _, maced = reference.split(payload, 2)
    context = reference.labelled("brokerkm v1 join", given["group"], given["member"])
    identity = Ed25519PrivateKey.from_private_bytes(raw(given["identity_seed"])).public_key().public_bytes_raw()
    Ed25519PublicKey.from_public_bytes(identity).verify(elements[-1], context + signed)
    credential, proof = None, elements[8]
    if "certificate" in given:
        credential = [raw(certificate) for certificate in given["certificate"]["chain"]]
        possession = reference.labelled("brokerkm v1 possession", given["group"], given["member"])
        device = Ed25519PrivateKey.from_private_bytes(raw(given["certificate"]["key_seed"]))
        device.public_key().verify(proof, possession + maced)
    if "token" in given:
        credential = raw(given["token"]["id"])
        assert proof == hmac.digest(raw(given["token"]["key"]), context + maced, "sha256")
    asked = [raw(fields["nonce"]), fields["time"], fields["counter"], raw(fields["kem_public"])]
    assert elements[1:-1] == [5, *asked, identity, credential, proof]
    assert (credential is None) == (proof is None)


def _proof(given: dict[str, Any], fields: dict[str, Any], payload: bytes) -> None:
    elements, maced = reference.split(payload, 1)
    context = reference.labelled(f"brokerkm v1 {given['message']}", given["group"], given["member"])
    key = reference.expand(raw(given["leaf_key"]), reference.labelled("brokerkm v1 request"))
    asked = [raw(fields["nonce"]), fields["time"], fields["counter"], *([fields["epoch"]] if "epoch" in fields else [])]
    tag = hmac.digest(key, context + maced, "sha256")
    assert elements[1:] == [{"sync": 6, "leave": 7, "ack": 12}[given["message"]], *asked, tag]


def _data(given: dict[str, Any], fields: dict[str, Any], payload: bytes) -> None:
    birth, step, key = given["root"]
    root, algorithm = (birth, step, raw(key)), fields.get("algorithm", 1)
    plaintext = reference.open_data(payload, given["group"], given["topic"], root, algorithm)
    found = msgpack.unpackb(payload)
    assert plaintext.hex() == fields["plaintext"]
    assert found[1:7] == [8, birth, step, fields["sender"], raw(fields["salt"]), fields["counter"]]


def _refusal(given: dict[str, Any], fields: dict[str, Any], payload: bytes) -> None:
    names = (given["group"], given["member"])
    found = reference.check_signed(_server(given), payload, "brokerkm v1 refusal", *names)
    assert found[1:-1] == [9, raw(fields["nonce"]), fields["reason"], fields["time"]]


def _subgroup(given: dict[str, Any], fields: dict[str, Any], payload: bytes) -> None:
    context = (given["group"], given["level"], given["index"])
    found = reference.check_signed(_server(given), payload, "brokerkm v1 subgroup", *context)
    salt = raw(fields["salt"])
    assert found[1:7] == [10, fields["time"], fields["slot"], fields["birth"], fields["step"], salt]
    _, header = reference.split(payload, 2)
    key = reference.expand(raw(given["node_key"]), reference.labelled("brokerkm v1 subgroup", salt))
    bound = reference.labelled("brokerkm v1 subgroup", *context) + header
    assert AESGCM(key).decrypt(bytes(12), found[7], bound).hex() == fields["plaintext"]


def _handover(given: dict[str, Any], fields: dict[str, Any], payload: bytes) -> None:
    keys = [Ed25519PrivateKey.from_private_bytes(raw(seed)).public_key() for seed in given["server_seeds"]]
    (kind, links) = msgpack.unpackb(payload)[1:]
    assert kind == 11
    for before, key, time, link in zip(keys, keys[1:], fields["times"], links, strict=False):
        assert link[:2] == [key.public_bytes_raw(), time]
        before.verify(link[2], reference.labelled("brokerkm v1 handover", given["group"], *link[:2]))
    assert len(links) == len(keys) - 1 == len(fields["times"])


MESSAGES = {
    "handover": _handover,
    "rekey": _rekey,
    "beacon": _beacon,
    "goodbye": _goodbye,
    "join": _join,
    "sync": _proof,
    "leave": _proof,
    "ack": _proof,
    "data": _data,
    "refusal": _refusal,
    "subgroup": _subgroup,
}


@pytest.mark.parametrize("name", [name for name in of_kind("open") if name.startswith("welcome")])
def test_welcomes(name: str) -> None:
    """Each Welcome opens by RFC 9180's own formulas, in both suites."""
    vector = VECTORS[name]
    given, expect, payload = vector["input"], vector["expect"], raw(vector["input"]["payload"])
    names = (given["group"], given["member"])
    found = reference.check_signed(raw(given["server_key"]), payload, "brokerkm v1 welcome", *names)
    info = reference.labelled("brokerkm v1 welcome", *names, found[2])
    sealed = msgpack.unpackb(reference.hpke_open(given["suite"], raw(given["kem_seed"]), found[3], info))
    assert sealed[:4] == [expect["epoch"], expect["time"], expect["slot"], expect["degree"]]
    assert [sealed[4][0], sealed[4][1].hex()] == expect["leaf"]
    assert [[birth, step, key.hex()] for birth, step, key in sealed[5]] == expect["path"]
    assert sealed[6] == expect["policy"]
    assert [spare.hex() for spares in sealed[8:] for spare in spares] == expect.get("spares", [])
    if sealed[7] is not None:
        identity, expiry, signature = sealed[7]
        signed = reference.labelled("brokerkm v1 certificate", *names, identity, expiry)
        Ed25519PublicKey.from_public_bytes(raw(given["server_key"])).verify(signature, signed)


@pytest.mark.parametrize("name", of_kind("commit"))
def test_commits(name: str) -> None:
    """Who stays gets one message if the root is fresh, else none, and by it all the fresh keys of its path."""
    vector = VECTORS[name]
    given, expect = vector["input"], vector["expect"]
    server_key = Ed25519PrivateKey.from_private_bytes(raw(given["server_seed"])).public_key().public_bytes_raw()
    degree, height = given["degree"], expect["height"]
    before = {(level, index): (birth, step, raw(key)) for level, index, birth, step, key in given["tree"]}
    after = {(level, index): (birth, step, raw(key)) for level, index, birth, step, key in expect["nodes"]}
    fresh = {(level, index) for level, index in expect["fresh"]}
    by_node = {tuple(map(int, item["topic"].split("/")[-2:])): raw(item["payload"]) for item in expect["messages"]}
    for slot in [index for level, index in before if level == 0 and index not in given["emptied"]]:
        path = [(0, slot // degree), *((level, slot // degree**level) for level in range(1, height + 1))]
        mine = [node for node in path if node in by_node]
        assert len(mine) == ((height, 0) in fresh)
        for level, index in mine:
            context = (given["group"], level, index)
            found = reference.check_signed(
                server_key, by_node[level, index], "brokerkm v1 rekey", *context, proved=True
            )
            (entry,) = [entry for entry in found[4] if entry[0] in {None, slot}]
            birth, step, key = before[(level, index) if level else (0, slot)]
            assert birth == entry[1]
            keys = reference.apply_rekey(found, slot, reference.ratchet(key, entry[2] - step))
            assert keys == [after[node][2] for node in path[level + 1 :]]
        for node in path[1:]:  # what is not fresh was ratcheted, if it changed at all
            if node in after and node not in fresh and node in before:
                birth, step, key = before[node]
                assert after[node] == (birth, after[node][1], reference.ratchet(key, after[node][1] - step))

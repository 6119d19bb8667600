"""Encodes and opens single messages as vectors of the kinds `encode` and `open` say."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from brokerkm.core import admission
from brokerkm.core.crypto import Algorithm, Suite, labelled, load_signing_key, load_verify_key
from brokerkm.core.data import Data, Sealer, traffic_key
from brokerkm.core.handover import Handover
from brokerkm.core.messages import Kind
from brokerkm.core.notice import Goodbye, GoodbyeReason, Refusal, RefusalReason
from brokerkm.core.opener import Opener
from brokerkm.core.policy import Policy
from brokerkm.core.rekey import Beacon, Rekey
from brokerkm.core.request import Ack, Asked, Join, Leave, Sync, TokenKey
from brokerkm.core.signing import encode_proved, sign_all
from brokerkm.core.subgroup import Subgroup
from brokerkm.core.welcome import Certificate, NodeKey, Welcome
from brokerkm.core.wire import VERSION
from schemas.material import Papers, hexed

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.material import Fields


def raw(value: Any) -> bytes:  # noqa: ANN401 - a value from JSON
    """Return the bytes in hex."""
    return bytes.fromhex(value)


def _names(given: dict[str, Any]) -> tuple[str, str]:
    return given["group"], given["member"]


def _node(given: dict[str, Any]) -> tuple[str, int, int]:
    return given["group"], given["level"], given["index"]


def token_key(given: dict[str, Any]) -> TokenKey | None:
    """Return the token that a vector gives, if it gives one."""
    token = given.get("token")
    return token and TokenKey(raw(token["id"]), raw(token["key"]))


def _root(given: dict[str, Any]) -> NodeKey:
    birth, step, key = given["root"]
    return NodeKey(raw(key), birth, step)


def encode(given: dict[str, Any]) -> Fields:
    """Return the encoded message."""
    return {"payload": ENCODERS[given["message"]](given, given["fields"]).hex()}


def _encode_rekey(given: dict[str, Any], fields: dict[str, Any]) -> bytes:
    entries = [(slot, birth, step, raw(wrapped)) for slot, birth, step, wrapped in fields["entries"]]
    body = encode_proved((VERSION, Kind.REKEY, fields["epoch"], fields["height"], entries, raw(fields["chain"])), 2)
    return sign_all(load_signing_key(raw(given["server_seed"])), [body], [labelled(Rekey.LABEL, *_node(given))])[0]


def _encode_beacon(given: dict[str, Any], fields: dict[str, Any]) -> bytes:
    at = (fields["epoch"], fields["height"], fields["birth"], fields["step"])
    key, policy = load_signing_key(raw(given["server_seed"])), Policy.from_fields(fields["policy"])
    return Beacon.seal(key, given["group"], at, fields["time"], due=fields["due"], policy=policy)


def _encode_handover(given: dict[str, Any], fields: dict[str, Any]) -> bytes:
    keys, times = [load_signing_key(raw(seed)) for seed in given["server_seeds"]], fields["times"]
    links = [
        Handover.sign(one, given["group"], other.public_key().public_bytes_raw(), time)
        for (one, other), time in zip(pairwise(keys), times, strict=True)
    ]
    return Handover(tuple(links)).encode()


def _encode_goodbye(given: dict[str, Any], fields: dict[str, Any]) -> bytes:
    key, salt = load_signing_key(raw(given["server_seed"])), raw(fields["salt"])
    evicted = [(given["member"], GoodbyeReason(fields["reason"]))]
    return Goodbye.seal_all(key, given["group"], fields["epoch"], evicted, lambda _: salt)[0]


def _asked(fields: dict[str, Any]) -> Asked:
    return Asked(raw(fields["nonce"]), fields["time"], fields["counter"])


def _encode_join(given: dict[str, Any], fields: dict[str, Any]) -> bytes:
    return Join.seal(
        load_signing_key(raw(given["identity_seed"])),
        *_names(given),
        raw(fields["kem_public"]),
        credential=token_key(given) or Papers.from_vector(given),
        asked=_asked(fields),
    )


def _encode_sync(given: dict[str, Any], fields: dict[str, Any]) -> bytes:
    return Sync.seal(raw(given["leaf_key"]), *_names(given), asked=_asked(fields), epoch=fields["epoch"])


def _encode_leave(given: dict[str, Any], fields: dict[str, Any]) -> bytes:
    return Leave.seal(raw(given["leaf_key"]), *_names(given), asked=_asked(fields))


def _encode_ack(given: dict[str, Any], fields: dict[str, Any]) -> bytes:
    return Ack.seal(raw(given["leaf_key"]), *_names(given), asked=_asked(fields), epoch=fields["epoch"])


def _encode_data(given: dict[str, Any], fields: dict[str, Any]) -> bytes:
    sealer = Sealer(given["group"], fields["sender"], raw(fields["salt"]), "bkm/1/")
    if "identity_seed" in given:
        sealer.identity = load_signing_key(raw(given["identity_seed"]))
        identity, expiry, signature = fields["certificate"]
        sealer.certificate = Certificate(raw(identity), expiry, raw(signature))
    root = _root(given)
    algorithm = Algorithm(fields.get("algorithm", 1))
    sealer.use(traffic_key(given["group"], root), root.birth, root.step, algorithm)
    sealer._counter = fields["counter"]
    return sealer.seal(given["topic"], raw(fields["plaintext"]))


def _encode_refusal(given: dict[str, Any], fields: dict[str, Any]) -> bytes:
    key, reason = load_signing_key(raw(given["server_seed"])), RefusalReason(fields["reason"])
    return Refusal.seal(key, *_names(given), nonce=raw(fields["nonce"]), reason=reason, time=fields["time"])


def _encode_subgroup(given: dict[str, Any], fields: dict[str, Any]) -> bytes:
    node = NodeKey(raw(given["node_key"]), fields["birth"], fields["step"])
    return Subgroup.seal(
        load_signing_key(raw(given["server_seed"])),
        _node(given),
        node,
        raw(fields["plaintext"]),
        slot=fields["slot"],
        time=fields["time"],
        salt=raw(fields["salt"]),
    )


ENCODERS: Final[dict[str, Callable[[dict[str, Any], dict[str, Any]], bytes]]] = {
    "rekey": _encode_rekey,
    "beacon": _encode_beacon,
    "handover": _encode_handover,
    "goodbye": _encode_goodbye,
    "join": _encode_join,
    "sync": _encode_sync,
    "leave": _encode_leave,
    "ack": _encode_ack,
    "data": _encode_data,
    "refusal": _encode_refusal,
    "subgroup": _encode_subgroup,
}


def open_(given: dict[str, Any]) -> Fields:
    """Return the fields of the message once everything about it has been checked; raises `RefusedError`."""
    return OPENERS[given["message"]](given, raw(given["payload"]))


def _open_rekey(given: dict[str, Any], payload: bytes) -> Fields:
    it = Rekey.decode(payload, given["level"])
    it.verify(load_verify_key(raw(given["server_key"]), "server_key"), *_node(given))
    return {
        "epoch": it.epoch,
        "height": it.height,
        "entries": hexed(it.entries),
        "chain": it.chain.hex(),
        "proof": hexed(it.proof),
    }


def _open_beacon(given: dict[str, Any], payload: bytes) -> Fields:
    it = Beacon.decode(payload)
    it.verify(load_verify_key(raw(given["server_key"]), "server_key"), given["group"])
    return {
        "epoch": it.epoch,
        "height": it.height,
        "birth": it.birth,
        "step": it.step,
        "time": it.time,
        "due": it.due,
        "policy": hexed(it.policy.fields),
    }


def _open_welcome(given: dict[str, Any], payload: bytes) -> Fields:
    it = Welcome.decode(payload)
    it.verify(load_verify_key(raw(given["server_key"]), "server_key"), *_names(given))
    sealed = it.open(Suite(given["suite"]), raw(given["kem_seed"]), *_names(given))
    spares: Fields = {"spares": hexed(sealed.spares)} if sealed.spares else {}
    return {
        "nonce": it.nonce.hex(),
        "epoch": sealed.epoch,
        "time": sealed.time,
        "slot": sealed.slot,
        "degree": sealed.degree,
        "leaf": [sealed.leaf.birth, sealed.leaf.key.hex()],
        "path": [[node.birth, node.step, node.key.hex()] for node in sealed.path],
        "policy": hexed(sealed.policy.fields),
        "certificate": hexed(sealed.certificate and sealed.certificate.fields),
        **spares,
    }


def _open_handover(given: dict[str, Any], payload: bytes) -> Fields:
    links = Handover.decode(payload).after(raw(given["server_key"]), given["group"])
    return {"links": [[link.key.hex(), link.time] for link in links]}


def _open_goodbye(given: dict[str, Any], payload: bytes) -> Fields:
    it = Goodbye.decode(payload)
    it.verify(load_verify_key(raw(given["server_key"]), "server_key"), *_names(given))
    return {"epoch": it.epoch, "reason": int(it.reason), "salt": hexed(it.salt), "proof": hexed(it.proof)}


def _open_join(given: dict[str, Any], payload: bytes) -> Fields:
    it = Join.decode(payload, Suite(given["suite"]))
    listed = given["listed_identity"]
    admission.check_join(
        it,
        *_names(given),
        now=given["now"],
        last_time=given["last_time"],
        identity=listed and raw(listed),
        token=token_key(given),
        certificates=Papers.from_vector(given),
    )
    return {
        "nonce": it.nonce.hex(),
        "time": it.time,
        "counter": it.counter,
        "conduct": admission.conduct(it.counter, given["last_counter"]).value,
        "kem_public": it.kem_public.hex(),
        "identity": it.identity.hex(),
        "credential": hexed(it.credential),
    }


def _open_proof(given: dict[str, Any], payload: bytes) -> Fields:
    it = {"sync": Sync, "leave": Leave, "ack": Ack}[given["message"]].decode(payload)
    key = given["leaf_key"]
    times = {"now": given["now"], "last_time": given["last_time"]}
    admission.check_proof(it, *_names(given), leaf_key=key and raw(key), **times)
    fields: Fields = {"nonce": it.nonce.hex(), "time": it.time, "counter": it.counter}
    fields["conduct"] = admission.conduct(it.counter, given["last_counter"]).value
    if not isinstance(it, Leave):
        fields["epoch"] = it.epoch
    return fields


def _open_data(given: dict[str, Any], payload: bytes) -> Fields:
    server_key, group = load_verify_key(raw(given["server_key"]), "server_key"), given["group"]
    opener = Opener(group, lambda certificate, sender, now: certificate.verify(server_key, group, sender, now))
    root = _root(given)
    opener.accept((root.birth, root.step), traffic_key(given["group"], root))
    data = Data.decode(payload)
    message = opener.open(data, given["topic"], given["now"] / 1000, signed=given["source_authentication"])
    return {
        "sender": message.sender,
        "salt": data.header.salt.hex(),
        "counter": data.header.counter,
        "plaintext": message.payload.hex(),
        "certificate": hexed(data.certificate and data.certificate.fields),
    }


def _open_refusal(given: dict[str, Any], payload: bytes) -> Fields:
    it = Refusal.decode(payload)
    it.verify(load_verify_key(raw(given["server_key"]), "server_key"), *_names(given))
    return {"nonce": it.nonce.hex(), "reason": int(it.reason), "time": it.time}


def _open_subgroup(given: dict[str, Any], payload: bytes) -> Fields:
    it = Subgroup.decode(payload, given["level"])
    it.verify(load_verify_key(raw(given["server_key"]), "server_key"), _node(given))
    plaintext = it.open(raw(given["node_key"]), _node(given))
    return {
        "time": it.time,
        "slot": it.slot,
        "birth": it.birth,
        "step": it.step,
        "salt": it.salt.hex(),
        "plaintext": plaintext.hex(),
    }


OPENERS: Final[dict[str, Callable[[dict[str, Any], bytes], Fields]]] = {
    "rekey": _open_rekey,
    "beacon": _open_beacon,
    "welcome": _open_welcome,
    "handover": _open_handover,
    "goodbye": _open_goodbye,
    "join": _open_join,
    "sync": _open_proof,
    "leave": _open_proof,
    "ack": _open_proof,
    "data": _open_data,
    "refusal": _open_refusal,
    "subgroup": _open_subgroup,
}

"""What is in a captured message, field by field, for somebody who holds no keys.

Everything that can be read without a key is named as the specification names it. What is wrapped, sealed or encrypted
stays so: a captured message tells no key. Signatures are checked if the server's public key is known.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from brokerkm.core.crypto import WRAPPED_KEY_SIZE, Suite, load_verify_key
from brokerkm.core.data import MAX_DATA, Data
from brokerkm.core.handover import Handover
from brokerkm.core.messages import Kind
from brokerkm.core.names import DEFAULT_PREFIX, BeaconTopic, HandoverTopic, MemberTopic, NodeTopic, RequestTopic, Topics
from brokerkm.core.notice import Goodbye, Refusal
from brokerkm.core.rekey import Beacon, Rekey
from brokerkm.core.request import Ack, Join, Leave, Sync
from brokerkm.core.subgroup import Subgroup
from brokerkm.core.welcome import Welcome
from brokerkm.core.wire import message_type, unpack_array
from brokerkm.errors import Reason, RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Value: TypeAlias = "int | str | bytes | list[Value] | dict[str, Value] | None"
"""What a field may hold; bytes become hexadecimal when they are printed."""

_Check: TypeAlias = "Callable[[Ed25519PublicKey, Place], None]"
_Parts: TypeAlias = "tuple[dict[str, Value], _Check | None]"
_Reader: TypeAlias = "Callable[[bytes, int | None], _Parts]"
_Home: TypeAlias = type[NodeTopic] | type[BeaconTopic] | type[HandoverTopic] | type[MemberTopic] | type[RequestTopic]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message was captured: the protocol's topic, taken apart.

    Args:
        home: which of the five kinds of topic it is.
        level, index: of a node.
        member: whose topic it is.
    """

    home: _Home
    group: str
    level: int | None = None
    index: int | None = None
    member: str | None = None

    @property
    def fields(self) -> dict[str, Value]:
        """What the topic says, and the message therefore does not."""
        named = {"group": self.group, "level": self.level, "index": self.index, "member": self.member}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One message taken apart.

    Args:
        kind: its type, as the specification calls it.
        fields: name to value, in the order of the wire.
        check: checks what the server has signed, given its public key and the place; None for what it does not sign.
    """

    kind: Kind
    fields: dict[str, Value]
    check: _Check | None


def place(topic: str, prefix: str = DEFAULT_PREFIX) -> Place | None:
    """Return the protocol's topic that `topic` is, or None if it is one of an application.

    Raises:
        RefusedError: it is below the prefix, but no topic of the protocol.
        UsageError: `prefix` cannot be one.
    """
    if not Topics("any", prefix).owns(topic):
        return None
    group, *rest = topic[len(prefix) + 1 :].split("/")
    if not rest:
        raise RefusedError(Reason.WRONG_TOPIC, "topic")
    try:
        name = Topics(group, prefix).parse(topic)
    except UsageError:
        raise RefusedError(Reason.WRONG_TOPIC, "topic") from None
    match name:
        case NodeTopic(level, index):
            return Place(NodeTopic, group, level, index)
        case MemberTopic(member) | RequestTopic(member):
            return Place(type(name), group, member=member)
        case BeaconTopic() | HandoverTopic():
            return Place(type(name), group)


def dissect(payload: bytes, where: Place | None) -> Anatomy:
    """Return the message in `payload`.

    Args:
        payload: the bytes as captured.
        where: the protocol's topic it was captured on, None if unknown or an application's.

    Raises:
        RefusedError: it is malformed, or has no business on that topic; names the field.
    """
    code = message_type(payload, MAX_DATA)
    try:
        kind = Kind(code)
    except ValueError:
        raise RefusedError(Reason.WRONG_MESSAGE, "type", f"{code} is none of 1 to {len(Kind)}") from None
    homes, read = _TYPES[kind]
    if where is not None and where.home not in homes:
        raise RefusedError(Reason.WRONG_TOPIC, "topic", f"no place for a {kind.name.lower()}")
    fields, check = read(payload, None if where is None else where.level)
    return Anatomy(kind, fields, check)


def outline(payload: bytes) -> list[str]:
    """Return the type and size of each element of a message that may be malformed; empty if it is no array."""
    try:
        return [_sketch(element) for element in unpack_array(payload, MAX_DATA)]
    except RefusedError:
        return []


def _sketch(element: object) -> str:
    match element:
        case str() | bytes() | list():
            unit = {str: "characters", bytes: "bytes", list: "elements"}[type(element)]  # pyright: ignore[reportUnknownArgumentType]
            return f"{len(element)} {unit}"  # pyright: ignore[reportUnknownArgumentType]
        case int() | None:
            return "nil" if element is None else str(element)
        case _:
            return type(element).__name__


def _rekey(payload: bytes, level: int | None) -> _Parts:
    if level is None:
        level = _guess_level(payload)
    rekey = Rekey.decode(payload, level)
    wraps = [rekey.chain[at : at + WRAPPED_KEY_SIZE] for at in range(0, len(rekey.chain), WRAPPED_KEY_SIZE)]
    fields: dict[str, Value] = {
        "epoch": rekey.epoch,
        "height": rekey.height,
        "entries": [dict(entry._asdict()) for entry in rekey.entries],
        "chain": [*wraps],
        "proof": rekey.proof,
        "signature": rekey.signature,
    }

    return fields, lambda key, where: rekey.verify(key, where.group, where.level or 0, where.index or 0)


def _guess_level(payload: bytes) -> int:
    """Return the level of the topic that a Rekey must have come from: its height less what its chain climbs."""
    match unpack_array(payload):
        case [_, _, _, int() as height, _, bytes() as chain, *_] if height > len(chain) // WRAPPED_KEY_SIZE:
            return height - 1 - len(chain) // WRAPPED_KEY_SIZE
        case _:
            return 0  # malformed, and the decoder will say how


def _subgroup(payload: bytes, level: int | None) -> _Parts:
    if level is None:  # a slot is named on a bucket's topic only
        elements = unpack_array(payload)
        level = 1 if len(elements) > 3 and elements[3] is None else 0  # noqa: PLR2004 - version, type, time, slot
    subgroup = Subgroup.decode(payload, level)
    fields: dict[str, Value] = {
        "time": subgroup.time,
        "slot": subgroup.slot,
        "birth": subgroup.birth,
        "step": subgroup.step,
        "salt": subgroup.salt,
        "ciphertext": subgroup.ciphertext,
        "signature": subgroup.signature,
    }

    return fields, lambda key, where: subgroup.verify(key, (where.group, where.level or 0, where.index or 0))


def _beacon(payload: bytes, _level: int | None) -> _Parts:
    beacon = Beacon.decode(payload)
    fields: dict[str, Value] = {
        "epoch": beacon.epoch,
        "height": beacon.height,
        "birth": beacon.birth,
        "step": beacon.step,
        "time": beacon.time,
        "due": beacon.due,
        "policy": {item.name: int(getattr(beacon.policy, item.name)) for item in dataclasses.fields(beacon.policy)},
        "signature": beacon.signature,
    }
    return fields, (lambda key, where: beacon.verify(key, where.group))


def _handover(payload: bytes, _level: int | None) -> _Parts:
    handover = Handover.decode(payload)
    links: list[Value] = [dict(link._asdict()) for link in handover.links]

    def check(key: Ed25519PublicKey, where: Place) -> None:
        handover.after(key.public_bytes_raw(), where.group)

    return {"links": links}, check


def _welcome(payload: bytes, _level: int | None) -> _Parts:
    welcome = Welcome.decode(payload)
    fields: dict[str, Value] = {"nonce": welcome.nonce, "sealed": welcome.sealed, "signature": welcome.signature}
    return fields, lambda key, where: welcome.verify(key, where.group, where.member or "")


def _goodbye(payload: bytes, _level: int | None) -> _Parts:
    goodbye = Goodbye.decode(payload)
    fields: dict[str, Value] = {
        "epoch": goodbye.epoch,
        "reason": goodbye.reason.name.lower(),
        "salt": goodbye.salt,
        "proof": goodbye.proof,
        "signature": goodbye.signature,
    }
    return fields, lambda key, where: goodbye.verify(key, where.group, where.member or "")


def _refusal(payload: bytes, _level: int | None) -> _Parts:
    refusal = Refusal.decode(payload)
    fields: dict[str, Value] = {
        "nonce": refusal.nonce,
        "reason": refusal.reason.name.lower(),
        "time": refusal.time,
        "signature": refusal.signature,
    }
    return fields, lambda key, where: refusal.verify(key, where.group, where.member or "")


def _join(payload: bytes, _level: int | None) -> _Parts:
    try:
        join, suite = Join.decode(payload, Suite.MLKEM768_X25519), Suite.MLKEM768_X25519
    except RefusedError:
        join, suite = Join.decode(payload, Suite.X25519), Suite.X25519
    fields: dict[str, Value] = {
        "nonce": join.nonce,
        "time": join.time,
        "counter": join.counter,
        "kem_public": join.kem_public,
        "suite": suite.name.lower(),
        "identity": join.identity,
        "credential": list(join.chain) or join.token,
        "proof": join.proof or None,
        "signature": join.signature,
    }

    # By the key that it names itself: shows that the sender holds it, not that the server lists it.
    return fields, lambda _, where: join.verify_signature(where.group, where.member or "")


def _sync(payload: bytes, _level: int | None) -> _Parts:
    sync = Sync.decode(payload)
    return _asked(sync) | {"epoch": sync.epoch, "mac": sync.mac}, None


def _leave(payload: bytes, _level: int | None) -> _Parts:
    leave = Leave.decode(payload)
    return _asked(leave) | {"mac": leave.mac}, None


def _ack(payload: bytes, _level: int | None) -> _Parts:
    ack = Ack.decode(payload)
    return _asked(ack) | {"epoch": ack.epoch, "mac": ack.mac}, None


def _asked(request: Sync | Leave | Ack) -> dict[str, Value]:
    return {"nonce": request.nonce, "time": request.time, "counter": request.counter}


def _data(payload: bytes, _level: int | None) -> _Parts:
    data = Data.decode(payload)
    fields: dict[str, Value] = {**data.header._asdict(), "ciphertext": data.ciphertext}
    if data.certificate is not None:
        identity, expiry, signature = data.certificate.fields
        fields["certificate"] = {"identity": identity, "expiry": expiry, "signature": signature}
        fields["signature"] = data.signature
    return fields, None


_TYPES: Final[dict[Kind, tuple[tuple[_Home, ...], _Reader]]] = {
    Kind.REKEY: ((NodeTopic,), _rekey),
    Kind.BEACON: ((BeaconTopic,), _beacon),
    Kind.HANDOVER: ((HandoverTopic,), _handover),
    Kind.WELCOME: ((MemberTopic,), _welcome),
    Kind.GOODBYE: ((MemberTopic, BeaconTopic), _goodbye),
    Kind.JOIN: ((RequestTopic,), _join),
    Kind.SYNC: ((RequestTopic,), _sync),
    Kind.LEAVE: ((RequestTopic,), _leave),
    Kind.ACK: ((RequestTopic,), _ack),
    Kind.DATA: ((), _data),
    Kind.REFUSAL: ((MemberTopic,), _refusal),
    Kind.SUBGROUP: ((NodeTopic,), _subgroup),
}


def check_signature(anatomy: Anatomy, server_key: bytes, where: Place) -> bool | None:
    """Return whether the signature over a message is good; None if its type has none that can be checked so.

    Raises:
        RefusedError: `server_key` is no Ed25519 public key.
    """
    key = load_verify_key(server_key, "server_key")
    if anatomy.check is None:
        return None
    try:
        anatomy.check(key, where)
    except RefusedError:
        return False
    return True

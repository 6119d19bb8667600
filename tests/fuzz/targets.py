"""Everything that reads bytes from others or from disk, as functions of bytes: only a refusal may come out."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import msgpack
from proof.scene import PLAIN, SIGNED, Scene

from brokerkm.core.crypto import Suite
from brokerkm.core.data import Data
from brokerkm.core.handover import Handover
from brokerkm.core.member import Member
from brokerkm.core.memory import Memory
from brokerkm.core.names import Topics
from brokerkm.core.notice import Goodbye, Refusal
from brokerkm.core.policy import Policy
from brokerkm.core.rekey import Beacon, Rekey
from brokerkm.core.request import Ack, Asked, Join, Leave, Sync
from brokerkm.core.subgroup import Subgroup
from brokerkm.core.tree import KeyTree
from brokerkm.core.welcome import Certificate, Welcome, WelcomeSecrets
from brokerkm.core.wire import message_type
from brokerkm.descriptor import Descriptor, EnrollmentToken
from brokerkm.errors import RefusedError, StoreError, UsageError
from brokerkm.offline import OfflineBundle, OfflineRequest

if TYPE_CHECKING:
    from collections.abc import Callable

TOPICS: Final = Topics("fleet-01")


@functools.cache
def scene(seed: int) -> Scene:
    """Return a scene with a genuine message of every kind."""
    return Scene(seed)


def _receive(data: bytes) -> None:
    """Deliver to each of two members, on a topic of its own: the first byte says which."""
    if not data:
        return
    for seed in (PLAIN, SIGNED):
        one = scene(seed)
        state = one.cases["data"].state
        member = Member.load(state, bytes, one.fleet.now)
        before, topics = member.dump(), (*member.filters, "plant/1", TOPICS.member("device-1"), TOPICS.node(9, 9))
        topics = (*topics, TOPICS.handover)
        try:
            events = member.receive(topics[data[0] % len(topics)], data[1:], one.fleet.now)
        except RefusedError:
            events = []
        # Nobody can sign for the server or for a member by chance; anybody may replay what the member waits for.
        genuine = {case.payload for seed in (PLAIN, SIGNED) for case in scene(seed).cases.values()}
        assert data[1:] in genuine or (not events and before == member.dump())


def _load(data: bytes) -> None:
    """Load a state, and do with it what can be done."""
    member = Member.load(data, bytes, 1e6)
    again = Member.load(member.dump(), bytes, 1e6)
    assert (member.state, member.epoch, member.filters) == (again.state, again.epoch, again.filters)
    _ = member.next_deadline
    member.tick(2e6)


def _pages(data: bytes) -> None:
    """Load a tree of which one page is not what was written: the first bytes say which."""
    head, page = data[:4].ljust(4, b"\0"), data[4:]
    degree, height, level, number = (value % 26 for value in head)
    KeyTree.load(degree + 2, height, [(level, number, page)])


def _value(decode: Callable[[object], object]) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        try:
            value: Any = msgpack.unpackb(data)
        except (ValueError, msgpack.UnpackException):
            return
        decode(value)

    return target


def _text(parse: Callable[[str], object]) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        parse(data.decode("utf-8", "surrogateescape"))

    return target


ALLOWED: Final = (RefusedError, StoreError)
MALFORMED: Final = (UsageError,)  # what a person wrote, or a file that a person keeps

TARGETS: Final[dict[str, tuple[Callable[[bytes], object], tuple[type[Exception], ...]]]] = {
    "type": (message_type, ALLOWED),
    "rekey-bucket": (functools.partial(Rekey.decode, level=0), ALLOWED),
    "rekey": (functools.partial(Rekey.decode, level=2), ALLOWED),
    "rekey-top": (functools.partial(Rekey.decode, level=23), ALLOWED),
    "beacon": (Beacon.decode, ALLOWED),
    "welcome": (Welcome.decode, ALLOWED),
    "welcome-sealed": (WelcomeSecrets.decode, ALLOWED),
    "goodbye": (Goodbye.decode, ALLOWED),
    "handover": (Handover.decode, ALLOWED),
    "refusal": (Refusal.decode, ALLOWED),
    "join": (functools.partial(Join.decode, suite=Suite.X25519), ALLOWED),
    "join-hybrid": (functools.partial(Join.decode, suite=Suite.MLKEM768_X25519), ALLOWED),
    "sync": (Sync.decode, ALLOWED),
    "leave": (Leave.decode, ALLOWED),
    "ack": (Ack.decode, ALLOWED),
    "data": (Data.decode, ALLOWED),
    "subgroup": (functools.partial(Subgroup.decode, level=1), ALLOWED),
    "subgroup-leaf": (functools.partial(Subgroup.decode, level=0), ALLOWED),
    "policy": (_value(Policy.from_fields), ALLOWED),
    "certificate": (_value(Certificate.from_fields), ALLOWED),
    "memory": (Memory.decode, ALLOWED),
    "load": (_load, ALLOWED),
    "pages": (_pages, ALLOWED),
    "topic": (_text(TOPICS.parse), ALLOWED),
    "descriptor": (Descriptor.from_json, MALFORMED),
    "token": (_text(EnrollmentToken.parse), MALFORMED),
    "request-file": (OfflineRequest.from_json, MALFORMED),
    "bundle-file": (OfflineBundle.from_json, MALFORMED),
    "receive": (_receive, ()),
}


def run(name: str, data: bytes) -> bool:
    """Feed a target; return whether it took the bytes. Any exception but a refusal comes out."""
    target, allowed = TARGETS[name]
    try:
        target(data)
    except allowed:
        return False
    return True


def seeds(name: str) -> list[bytes]:
    """Return bytes that the target takes, to begin with."""
    return _seeds()[name]


@functools.cache
def _seeds() -> dict[str, list[bytes]]:
    one, signed = scene(PLAIN), scene(SIGNED)
    device = one.devices[0]
    now = one.fleet.now
    cases = {case_name: case.payload for case_name, case in one.cases.items()}
    group = one.fleet.server.group
    path = group.tree.path(0)
    time = int(now * 1000)
    certificate = signed.devices[0].member._memory.certificate
    secrets = WelcomeSecrets(group.epoch, time, 0, 2, group.tree.get(0, 0), path, group.policy, certificate)
    hybrid = Join.seal(
        device.member._identity,
        "fleet-01",
        device.name,
        bytes(Suite.MLKEM768_X25519.public_size),
        credential=None,
        asked=Asked(bytes(16), time, 1),
    )
    level = TOPICS.node(1, 7)
    plain = Descriptor(broker="mqtt://localhost", group="plant", suite=Suite.X25519, server_key=bytes(32))
    return {
        **{case_name: [payload] for case_name, payload in cases.items()},
        "type": list(cases.values()),
        "rekey-top": [],
        "data": [cases["data"], signed.cases["data"].payload],
        "welcome": [cases["welcome"], cases["welcome-sync"]],
        "welcome-sealed": [secrets.encode()],
        "join": [payload for topic, payload in one.fleet.log if "/r/" in topic][:2],
        "join-hybrid": [hybrid],
        "sync": [device.sync(now)],
        "leave": [device.leave(now)],
        "ack": [Ack.seal(bytes(32), "fleet-01", device.name, asked=Asked(bytes(16), time, 2), epoch=3)],
        "policy": [msgpack.packb(group.policy.fields)],
        "certificate": [msgpack.packb(certificate.fields if certificate else ())],
        "memory": [case.state for case in signed.cases.values()],
        "load": [case.state for case in signed.cases.values()],
        "pages": [bytes((0, 1, 0, 0)) + KeyTree(2).page(0, 0), bytes((0, 3, 1, 0)) + group.tree.page(1, 0)],
        "topic": [
            text.encode() for text in (level, TOPICS.beacon, TOPICS.handover, TOPICS.member("a"), TOPICS.request("a"))
        ],
        "descriptor": [
            Descriptor(
                broker="mqtt://localhost",
                group="plant",
                suite=Suite.X25519,
                server_key=bytes(32),
                token=EnrollmentToken(bytes(8), bytes(32)),
                token_expires=1,
            )
            .to_json()
            .encode()
        ],
        "token": [str(EnrollmentToken(bytes(8), bytes(32))).encode()],
        "request-file": [OfflineRequest("plant", "pump", b"join").to_json().encode()],
        "bundle-file": [OfflineBundle(plain, "pump", b"welcome").to_json().encode()],
        "receive": [bytes((place,)) + payload for place in range(10) for payload in cases.values()],
    }

"""Welcomes. HPKE draws randomness of its own, so what is sealed is kept in the vectors' files once it is there."""

from __future__ import annotations

import json
import pathlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from brokerkm.core.crypto import Suite, labelled
from brokerkm.core.policy import Policy
from brokerkm.core.signing import sign
from brokerkm.core.welcome import Certificate, NodeKey, Recipient, Welcome, WelcomeSecrets
from brokerkm.core.wire import pack
from schemas.material import (
    GROUP,
    IDENTITY_PUBLIC,
    MEMBER,
    NOW_MS,
    SERVER_KEY,
    SERVER_PUBLIC,
    Fields,
    Vector,
    draw,
    error,
)
from schemas.replay import run
from schemas.scenarios.world import JOIN_NONCE, KEM_SEED, SYNC_NONCE, TOPICS, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER: Final = pathlib.Path(__file__).parents[3] / "schemas" / "vectors"
_SEEDS: Final = {suite: KEM_SEED if suite is Suite.X25519 else draw("kem", suite.seed_size) for suite in Suite}
_sealed: Final[dict[str, bytes]] = {}
_keep = True


def reseal() -> None:
    """Seal everything anew instead of keeping what the files have."""
    global _keep  # noqa: PLW0603 - one command, one run
    _keep = False


def _kept(name: str, seal: Callable[[], bytes]) -> bytes:
    """Return the payload in the file of the vector called `name`, or a new one."""
    path = FOLDER / f"{name}.json"
    if name not in _sealed:
        there = _keep and path.exists()
        _sealed[name] = bytes.fromhex(json.loads(path.read_text())["input"]["payload"]) if there else seal()
    return _sealed[name]


def _secrets(epoch: int = 9, slot: int = 5, height: int = 3, birth: int = 7) -> WelcomeSecrets:
    path = tuple(NodeKey(draw(f"path {level}", 32), birth, level - 1) for level in range(1, height + 1))
    leaf = NodeKey(draw("leaf", 32), 4, 0)
    return WelcomeSecrets(epoch, NOW_MS, slot, 2, leaf, path, Policy(), None)


def _certified() -> WelcomeSecrets:
    policy = Policy(grace=60, hold=10, max_silence=900, stop_when_silent=False, source_authentication=True)
    certificate = Certificate.issue(SERVER_KEY, GROUP, MEMBER, IDENTITY_PUBLIC, NOW_MS + 86_400_000)
    it = _secrets()
    return WelcomeSecrets(it.epoch, it.time, it.slot, it.degree, it.leaf, it.path, policy, certificate)


def _spared(count: int) -> WelcomeSecrets:
    return replace(_secrets(), spares=tuple(draw(f"spare {number}", 32) for number in range(count)))


def _given(suite: Suite) -> Fields:
    return {
        "message": "welcome",
        "suite": int(suite),
        "group": GROUP,
        "member": MEMBER,
        "server_key": SERVER_PUBLIC.hex(),
        "kem_seed": _SEEDS[suite].hex(),
    }


def _seal(suite: Suite, secrets: WelcomeSecrets) -> bytes:
    to = Recipient(MEMBER, suite.public_key(_SEEDS[suite]), JOIN_NONCE)
    return Welcome.seal(SERVER_KEY, suite, GROUP, to, secrets)


def _seal_bytes(plaintext: bytes) -> bytes:
    """Return a Welcome that is right but for what is sealed in it."""
    suite = Suite.X25519
    info = labelled(Welcome.LABEL, GROUP, MEMBER, JOIN_NONCE)
    sealed = suite.seal(suite.public_key(KEM_SEED), plaintext, info)
    return sign(SERVER_KEY, labelled(Welcome.LABEL, GROUP, MEMBER), (1, 3, JOIN_NONCE, sealed))


def vectors() -> Iterator[Vector]:
    """Yield Welcomes that open, that do not, and what a member makes of them."""
    for suite, secrets in ((Suite.X25519, _secrets()), (Suite.MLKEM768_X25519, _certified())):
        name = f"welcome-{int(suite)}"
        payload = _kept(name, lambda suite=suite, secrets=secrets: _seal(suite, secrets))  # type: ignore[misc]
        given: Fields = {**_given(suite), "payload": payload.hex()}
        description = f"Suite {int(suite)}" + (", with a sender certificate." if secrets.certificate else ".")
        yield Vector(name, description, "open", given, run("open", given))
    payload = _kept("welcome-spares", lambda: _seal(Suite.X25519, _spared(3)))
    given = {**_given(Suite.X25519), "payload": payload.hex()}
    description = "With three spares, as it is carried to a device by file."
    yield Vector("welcome-spares", description, "open", given, run("open", given))
    yield from _refused(_good())
    yield from _contents()
    yield from _members()


def _good() -> bytes:
    return _kept("welcome-1", lambda: _seal(Suite.X25519, _secrets()))


def _refused(good: bytes) -> Iterator[Vector]:
    given = _given(Suite.X25519)
    context = labelled(Welcome.LABEL, GROUP, MEMBER)
    body = Welcome.decode(good).sealed
    other_nonce = sign(SERVER_KEY, context, (1, 3, SYNC_NONCE, body))
    damaged = sign(SERVER_KEY, context, (1, 3, JOIN_NONCE, body[:-1] + bytes((body[-1] ^ 1,))))
    short = sign(SERVER_KEY, context, (1, 3, JOIN_NONCE, body[:31]))
    cases = {
        "forged": (
            "One bit flipped.",
            good[:-1] + bytes((good[-1] ^ 1,)),
            "bad-signature",
            "signature",
        ),
        "resealed": ("Sealed for another request, and signed anew.", other_nonce, "bad-seal", "sealed"),
        "damaged": ("One bit of what is sealed flipped, and signed anew.", damaged, "bad-seal", "sealed"),
        "short": ("Shorter than an encapsulated key, and signed anew.", short, "bad-seal", "sealed"),
    }
    for name, (description, payload, reason, field) in cases.items():
        where: Fields = {**given, "payload": payload.hex()}
        yield Vector(f"welcome-{name}", description, "open", where, error(reason, field))
    where = {**given, "member": "sensor-8", "payload": good.hex()}
    yield Vector("welcome-other-member", "To another.", "open", where, error("bad-signature", "signature"))
    where = {**given, "kem_seed": draw("wrong", 32).hex(), "payload": good.hex()}
    yield Vector("welcome-other-key", "Not the key it is sealed to.", "open", where, error("bad-seal", "sealed"))


def _contents() -> Iterator[Vector]:
    plain, spared = _secrets().encode(), _spared(1).encode()
    cases = {
        "slot-beyond": ("Slot 8 of 8.", _secrets(slot=8).encode(), "out-of-range", "slot"),
        "no-path": ("A tree without a root.", _secrets(height=0).encode(), "wrong-length", "path"),
        "path-25": ("A path of 25 keys.", _secrets(height=25).encode(), "wrong-length", "path"),
        "path-ahead": ("A key of a later epoch.", _secrets(birth=10).encode(), "out-of-range", "path.birth"),
        "epoch-0": ("Epoch 0.", _secrets(epoch=0).encode(), "out-of-range", "epoch"),
        "sealed-trailing": ("One byte more.", plain + b"\0", "trailing", "message"),
        "sealed-long": ("The epoch in two bytes.", plain[:1] + b"\xcc" + plain[1:], "not-canonical", "message"),
        "sealed-seven": ("An element less.", b"\x97" + plain[1:-1], "wrong-length", "sealed"),
        "sealed-ten": ("An element more.", b"\x9a" + spared[1:] + pack(0), "wrong-length", "sealed"),
        "spares-number": ("A number in the place of spares.", b"\x99" + plain[1:] + pack(0), "wrong-type", "spares"),
        "spares-none": (
            "No spare, where one is the least.",
            b"\x99" + plain[1:] + b"\x90",
            "wrong-length",
            "spares",
        ),
        "spares-33": ("33 spares.", _spared(33).encode(), "wrong-length", "spares"),
        "spares-short": ("A spare of 31 bytes.", b"\x99" + plain[1:] + pack([bytes(31)]), "wrong-length", "spares"),
    }
    for name, (description, plaintext, reason, field) in cases.items():
        payload = _kept(f"welcome-{name}", lambda plaintext=plaintext: _seal_bytes(plaintext))  # type: ignore[misc]
        given: Fields = {**_given(Suite.X25519), "payload": payload.hex()}
        yield Vector(f"welcome-{name}", description, "open", given, error(reason, field))


def _members() -> Iterator[Vector]:
    payload = _good()
    own = TOPICS.member(MEMBER)
    world = World()
    world.member = world.state("joining")
    world.take(own, payload)
    world.take(own, payload)
    description = "The answer to its Join; the same again is nothing new."
    yield world.vector("member-joined", description, "Joined", "")
    world = World()
    world.take(own, payload)
    description = "A newer Welcome for one that is in already."
    yield world.vector("member-synced", description, "Synced")
    world = World()
    world.member = {**world.state("joining"), "join_nonces": [SYNC_NONCE.hex()], "sync_nonces": []}
    world.take(own, payload)
    yield world.vector("member-welcome-unasked", "The answer to another request.", "wrong-nonce nonce")
    world = World()
    world.member = {**world.state(), "epoch": 10}
    world.take(own, payload)
    yield world.vector("member-welcome-overtaken", "A Welcome of an epoch before its own is ignored.", "")

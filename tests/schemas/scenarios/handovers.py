"""One server key after another: chains that lead on, chains that do not, and a member that follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokerkm.core.crypto import load_signing_key
from brokerkm.core.handover import Handover, Link
from brokerkm.core.rekey import Beacon
from schemas.material import GROUP, NOW_MS, SERVER_PUBLIC, SERVER_SEED, Fields, Vector, draw, error
from schemas.replay import run
from schemas.scenarios.world import TOPICS, World

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEDS = [SERVER_SEED, draw("second server", 32), draw("third server", 32), draw("stranger", 32)]
KEYS = [load_signing_key(seed) for seed in SEEDS]
PUBLIC = [key.public_key().public_bytes_raw() for key in KEYS]


def vectors() -> Iterator[Vector]:
    """Yield chains by themselves, and what a member makes of one."""
    yield from _walks()
    yield from _refused()
    yield from _members()


def link(old: int, new: int, time: int = NOW_MS, group: str = GROUP) -> Link:
    """Return the link from one key to another, by their numbers."""
    return Handover.sign(KEYS[old], group, PUBLIC[new], time)


def _given(key: int, *links: Link) -> Fields:
    payload = Handover(links).encode().hex()
    return {"message": "handover", "group": GROUP, "server_key": PUBLIC[key].hex(), "payload": payload}


def _walks() -> Iterator[Vector]:
    chain = (link(0, 1), link(1, 2, NOW_MS + 1))
    for key, (name, text) in enumerate(
        {
            "handover-first": "Believed is the key of before the first link: both are followed.",
            "handover-second": "Believed is the key in between: the second link is followed.",
            "handover-newest": "Believed is the newest key: there is nothing to follow.",
        }.items()
    ):
        given = _given(key, *chain)
        yield Vector(name, text, "open", given, run("open", given))


def _refused() -> Iterator[Vector]:
    one, two = link(0, 1), link(1, 2, NOW_MS + 1)
    cases: dict[str, tuple[str, tuple[Link, ...], str, str]] = {
        "stranger": ("A chain of somebody else's.", (link(3, 2),), "bad-signature", "links.signature"),
        "inserted": (
            "A link of a stranger's own between two.",
            (one, link(3, 3, NOW_MS + 1), two._replace(time=NOW_MS + 2)),
            "bad-signature",
            "links.signature",
        ),
        "appended": ("And after them.", (one, link(3, 3, NOW_MS + 1)), "bad-signature", "links.signature"),
        "left-out": ("The first link is missing.", (two,), "bad-signature", "links.signature"),
        "other-key": ("Another key.", (one._replace(key=PUBLIC[3]),), "bad-signature", "links.signature"),
        "other-time": ("Another time.", (one._replace(time=NOW_MS - 1),), "bad-signature", "links.signature"),
        "other-group": ("Another group's.", (link(0, 1, group="fleet-02"),), "bad-signature", "links.signature"),
        "time-equal": ("Two at one time.", (one, two._replace(time=NOW_MS)), "out-of-range", "links.time"),
        "key-twice": ("There and back.", (one, two, link(2, 1, NOW_MS + 2)), "out-of-range", "links.key"),
        "no-links": ("None.", (), "wrong-length", "links"),
        "long": (
            "65 links.",
            tuple(Link(draw(f"link {time}", 32), time, bytes(64)) for time in range(65)),
            "wrong-length",
            "links",
        ),
    }
    for name, (text, links, reason, field) in cases.items():
        yield Vector(f"handover-{name}", text, "open", _given(0, *links), error(reason, field))


def _members() -> Iterator[Vector]:
    world = World()
    root = world.group.tree.get(3, 0)
    at = (9, 3, root.birth, root.step)
    old = Beacon.seal(KEYS[0], GROUP, at, NOW_MS + 99_000, due=30, policy=world.group.policy)
    one = world.group.hand_over(SEEDS[1], world.now + 1)
    two = world.group.hand_over(SEEDS[2], world.now + 2)
    new = world.group.beacon(world.now + 3)
    world.take(TOPICS.beacon, new)
    world.take(TOPICS.handover, two)
    world.take(TOPICS.beacon, new)
    world.take(TOPICS.beacon, old)
    world.take(TOPICS.handover, one)
    world.take(TOPICS.handover, two)
    bad, chain = "bad-signature signature", "bad-signature links.signature"
    text = "A Beacon by a key not believed, the way to it, that Beacon again; then the way back, which leads nowhere."
    yield world.vector("member-handover", text, bad, "ServerKeyChanged", "", bad, chain, "")
    assert world.member["server_key"] == SERVER_PUBLIC.hex()
    world = World()
    world.group.hand_over(SEEDS[1], world.now + 1)
    world.group.evict("m6")
    topic, payload = world.mine(world.commit())
    world.take(topic, payload)
    world.take(TOPICS.handover, world.group.handover or b"")
    world.take(topic, payload)
    text = "A Rekey by the new key is taken when the retained messages come again."
    yield world.vector("member-handover-rekey", text, bad, "ServerKeyChanged", "Rekeyed")

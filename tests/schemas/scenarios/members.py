"""What one member makes of what it receives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokerkm.core.crypto import Algorithm, labelled, load_signing_key
from brokerkm.core.notice import Goodbye, GoodbyeReason, RefusalReason
from brokerkm.core.policy import Policy
from brokerkm.core.rekey import Beacon
from brokerkm.core.signing import sign_all
from schemas.material import GROUP, MEMBER, NOW, SERVER_KEY, Stream, Vector, draw
from schemas.scenarios.world import JOIN_NONCE, SLOT, SYNC_NONCE, TOPICS, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brokerkm.core.commit import Commit

STRANGER = load_signing_key(draw("stranger", 32))
OWN = TOPICS.member(MEMBER)
BUCKET = TOPICS.node(0, SLOT // 2)
PLANT = "plant/temperature"
AES, CHACHA = Policy(), Policy(algorithm=Algorithm.CHACHA20_POLY1305)


def vectors() -> Iterator[Vector]:
    """Yield one story of a member each."""
    yield from _rekeys()
    yield from _rekeys_refused()
    yield from _gaps()
    yield from _beacons()
    yield from _policies()
    yield from _endings()
    yield from _data()
    yield from _spares()
    yield from _subgroups()


def _evicted(slot: int) -> tuple[World, str, bytes]:
    """Return a world after the eviction of `slot`, and the Rekey for the member."""
    world = World()
    world.group.evict(f"m{slot}")
    commit = world.commit()
    return (world, *world.mine(commit))


def _rekeys() -> Iterator[Vector]:
    for slot, where in ((4, "bucket"), (6, "node"), (0, "child of the root")):
        world, topic, payload = _evicted(slot)
        world.take(topic, payload)
        name = f"member-rekey-{where.split()[0]}"
        yield world.vector(name, f"Slot {slot} is evicted: the Rekey comes on the topic of the {where}.", "Rekeyed")
    world = World()
    world.enroll("m8")
    commit = world.commit()
    topic, payload = world.mine(commit)
    world.take(topic, payload)
    yield world.vector("member-growth", "A ninth member: the root's topic carries the key of a new root.", "Rekeyed")
    world = World()
    world.group.evict("m7")
    first = world.mine(world.commit())
    world.enroll("n7")
    world.commit()
    world.group.evict("m0")
    second = world.mine(world.commit())
    world.take(*first)
    world.take(*second)
    description = "An eviction, a join that nobody is told of, an eviction: the entry names the step to ratchet to."
    yield world.vector("member-ratchet", description, "Rekeyed", "Rekeyed")
    world, topic, payload = _evicted(6)
    world.take(topic, payload)
    world.take(topic, payload)
    yield world.vector("member-rekey-replayed", "The same Rekey again is nothing new.", "Rekeyed", "")
    world = World()
    world.group.evict("m6")
    old = world.mine(world.commit())
    world.group.evict("m7")
    new = world.mine(world.commit())
    world.take(*new)
    world.take(*old)
    yield world.vector("member-rekey-older", "A Rekey of an older epoch after a newer one is ignored.", "Rekeyed", "")


def _resign(payload: bytes, level: int, index: int) -> bytes:
    """Return a single-signed Rekey with a true signature after its bytes were changed."""
    return sign_all(SERVER_KEY, [payload[:-67]], [labelled("brokerkm v1 rekey", GROUP, level, index)])[0]


def _rekeys_refused() -> Iterator[Vector]:
    world, topic, payload = _evicted(6)
    world.take(TOPICS.node(1, 3), payload)
    world.take(TOPICS.node(2, 0), payload)
    world.take(TOPICS.node(1, SLOT // 4), payload)
    expected = ("wrong-topic topic",) * 3
    yield world.vector("member-not-its-topic", "A Rekey on topics that are not of its path.", *expected)
    world, topic, payload = _evicted(6)
    level, index = map(int, topic.split("/")[-2:])
    body = payload[:-67]
    forged = body + b"\xc0\xc4\x40" + STRANGER.sign(labelled("brokerkm v1 rekey", GROUP, level, index) + body)
    world.take(topic, forged)
    yield world.vector("member-rekey-insider", "Signed by somebody else.", "bad-signature signature")
    world, topic, payload = _evicted(6)
    at = payload.index(b"\xc4\x28") + 2
    world.take(topic, _resign(payload[:at] + bytes(40) + payload[at + 40 :], 1, SLOT // 2))
    world.take(topic, payload)
    description = "A wrapped key that does not open, though the server signed it; the true one is taken."
    yield world.vector("member-bad-wrap", description, "bad-seal entries.wrapped", "Rekeyed")
    world, topic, payload = _evicted(4)
    at = payload.rindex(b"\xc4\x50") + 2
    world.take(topic, _resign(payload[:at] + bytes(80) + payload[at + 80 :], 0, SLOT // 2))
    yield world.vector(
        "member-bad-chain", "The entry opens and the chain does not: nothing is taken.", "bad-seal chain"
    )
    world = World()
    world.group.evict("m4")
    first = world.mine(world.commit())
    world.group.evict("m6")
    topic, payload = world.mine(world.commit())
    world.take(*first)
    at = payload.index(b"\x94\xc0\x02") + 2
    world.take(topic, _resign(payload[:at] + b"\x01" + payload[at + 1 :], 1, SLOT // 2))
    description = "An entry under a key that was replaced before, of birth 1 where 2 is held."
    yield world.vector("member-wrong-birth", description, "Rekeyed", "wrong-birth birth")
    world, topic, payload = _evicted(6)
    world.take(topic, payload[:3] + b"\x03\x02" + payload[5:])
    yield world.vector("member-height-changed", "The chain has one key too many now.", "wrong-length chain")
    world = World()
    world.take(TOPICS.beacon, world.group.refusal(MEMBER, JOIN_NONCE, RefusalReason.TRY_LATER, world.now))
    world.take(OWN, world.group.beacon(world.now))
    world.take(TOPICS.request(MEMBER), world.group.beacon(world.now))
    world.take(TOPICS.member("m0"), world.group.beacon(world.now))
    world.take(OWN, b"")
    expected = ("wrong-message type", "wrong-message type", "wrong-message type", "wrong-topic topic", "")
    description = "Messages on topics where they do not belong, and an empty one, which is a retained one cleared."
    yield world.vector("member-misplaced", description, *expected)


def _gaps() -> Iterator[Vector]:
    world = World()
    world.group.evict("m4")
    first = world.mine(world.commit())
    world.group.evict("m6")
    second = world.mine(world.commit())
    world.take(*second)
    world.take(*first)
    description = "Two Rekeys in the wrong order: the second waits for the first."
    yield world.vector("member-overtaken", description, "", "Rekeyed")
    world.steps = world.steps[:1]
    world.tick(world.now + 4)
    world.tick(world.now + 5)
    world.take(*first, now=world.now + 60)
    description = "The second Rekey alone: stale after hold, and active again when the first comes after all."
    yield world.vector("member-stale", description, "", "", "Stale", "Rekeyed Recovered")
    world = World()
    payload = world.rekeys(_without(world))[BUCKET]
    world.take(BUCKET, payload)
    world.tick(world.now + 5)
    description = "A Rekey of its own bucket without an entry for it: it may be out, and asks."
    yield world.vector("member-no-entry", description, "", "Stale")


def _without(world: World) -> Commit:
    """Evict the member itself, and a leaf on the other side so that there is a Rekey for its neighbour."""
    world.group.evict(MEMBER)
    return world.commit()


def _beacon(world: World, *at: int, age: int = 0, policy: Policy = AES) -> bytes:
    root = world.group.tree.get(3, 0)
    epoch, birth, step = at or (world.group.epoch, root.birth, root.step)
    return Beacon.seal(SERVER_KEY, GROUP, (epoch, 3, birth, step), (world.now - age) * 1000, due=30, policy=policy)


def _beacons() -> Iterator[Vector]:
    world = World()
    world.group.evict("m7")
    topic, payload = world.mine(world.commit())
    world.take(topic, payload)
    world.enroll("n7")
    world.take(TOPICS.beacon, world.commit().beacon)
    description = "A join: no Rekey, the Beacon says how far to ratchet the root."
    yield world.vector("member-beacon-step", description, "Rekeyed", "")
    world = World()
    world.take(TOPICS.beacon, _beacon(world, 2, 2, 0))
    world.tick(world.now + 5)
    description = "A root that was born since: the Rekey is missing, and the member stale after hold."
    yield world.vector("member-beacon-gap", description, "", "Stale")
    world = World()
    new = _beacon(world, 9, 1, 3)
    world.take(TOPICS.beacon, new)
    world.take(TOPICS.beacon, _beacon(world, 8, 1, 2))
    world.take(TOPICS.beacon, new)
    description = "An older Beacon and the same again move nothing."
    yield world.vector("member-beacon-older", description, "", "", "")
    world = World()
    world.tick(world.now + 300)
    world.tick(world.now + 301)
    world.now += 310
    world.take(TOPICS.beacon, _beacon(world))
    description = "No Beacon for longer than max_silence, and then one."
    yield world.vector("member-silence", description, "", "Silent", "Heard")
    world = World()
    world.now += 310
    world.tick(world.now)
    world.take(TOPICS.beacon, _beacon(world, age=301))
    world.take(TOPICS.beacon, _beacon(world, age=300))
    description = "A Beacon that was kept back for 301 s is no sign of life; one of 300 s is."
    yield world.vector("member-beacon-kept-back", description, "Silent", "", "Heard")


def _policies() -> Iterator[Vector]:
    world = World()
    sealed = world.data(0), world.data(1, algorithm=Algorithm.CHACHA20_POLY1305), world.data(2)
    world.take(PLANT, sealed[0])
    world.take(PLANT, sealed[1])
    world.take(TOPICS.beacon, _beacon(world, policy=CHACHA))
    world.take(PLANT, sealed[2])
    world.tick(world.now + 30)
    world.take(PLANT, world.data(3), now=world.now + 30)
    world.tick(world.now + 35)
    description = "Data of the other algorithm waits for the policy; the earlier one is opened for grace seconds more."
    good, given_up = "MessageReceived", "Dropped Unreadable"
    yield world.vector("policy-algorithm", description, good, "", f"PolicyChanged {good}", good, "", "", given_up)
    world = World()
    world.take(TOPICS.beacon, _beacon(world, policy=Policy(source_authentication=True)))
    world.take(PLANT, world.data(0))
    world.tick(world.now + 30)
    world.take(PLANT, world.data(1), now=world.now + 30)
    description = "Signatures are asked for: what has none is received for grace seconds, and then refused."
    yield world.vector("policy-signatures", description, "PolicyChanged", good, "", "not-signed signature")
    world = World()
    world.take(TOPICS.beacon, _beacon(world, 9, 1, 1, policy=CHACHA))
    world.take(TOPICS.beacon, _beacon(world, 8, 1, 1))
    world.take(TOPICS.beacon, _beacon(world, 9, 1, 1, age=1))
    world.take(TOPICS.beacon, _beacon(world, 10, 1, 1))
    description = "The newest word counts, by epoch and time, whatever the order of arrival."
    yield world.vector("policy-older", description, "PolicyChanged", "", "", "PolicyChanged")


def _endings() -> Iterator[Vector]:
    def goodbye(epoch: int) -> bytes:
        return Goodbye.seal_all(SERVER_KEY, GROUP, epoch, [(MEMBER, GoodbyeReason.EVICTED)], bytes)[0]

    world = World()
    world.take(OWN, goodbye(2))
    world.take(PLANT, world.data(0))
    yield world.vector("member-goodbye", "Evicted: its keys are gone, Data is nothing to it.", "Evicted", "")
    world = World()
    world.take(OWN, goodbye(1))
    yield world.vector("member-goodbye-earlier", "A Goodbye of before its leaf was born is ignored.", "")
    world = World()
    other = Goodbye.seal_all(SERVER_KEY, GROUP, 2, [("m0", GoodbyeReason.EVICTED)], bytes)[0]
    world.take(OWN, other)
    yield world.vector("member-goodbye-other", "Another's Goodbye.", "bad-signature signature")
    world = World()
    world.take(OWN, payload := world.group.farewell(bytes))
    world.take(TOPICS.beacon, goodbye(2))
    world.take(TOPICS.beacon, payload)
    world.take(PLANT, world.data(0))
    elsewhere, description = "out-of-range reason", "The group is no more; its beacon topic alone says so."
    yield world.vector("member-goodbye-destroyed", description, elsewhere, elsewhere, "Evicted", "")
    for reason, expected in (
        (RefusalReason.NOT_ADMITTED, "RequestRefused"),
        (RefusalReason.NOT_A_MEMBER, "Evicted"),
        (RefusalReason.WRONG_TIME, "RequestRefused"),
        (RefusalReason.TRY_LATER, "RequestRefused"),
    ):
        world = World()
        world.take(OWN, world.group.refusal(MEMBER, SYNC_NONCE, reason, world.now))
        name = reason.name.lower().replace("_", "-")
        yield world.vector(f"member-refusal-{name}", f"The answer to its Sync: {name}.", expected)
    world = World()
    refusal = world.group.refusal(MEMBER, SYNC_NONCE, RefusalReason.TRY_LATER, world.now)
    world.take(OWN, refusal)
    world.take(OWN, refusal)
    world.take(OWN, world.group.refusal(MEMBER, bytes(16), RefusalReason.NOT_A_MEMBER, world.now))
    expected = ("RequestRefused", "wrong-nonce nonce", "wrong-nonce nonce")
    yield world.vector("member-refusal-replayed", "A Refusal counts once, and only for what was asked.", *expected)


def _data() -> Iterator[Vector]:
    world = World()
    world.take(PLANT, world.data(0))
    world.take(PLANT, world.data(0))
    world.take("plant/pressure", world.data(1))
    world.take(PLANT, world.data(2))
    world.take(PLANT, world.data(1))
    expected = ("MessageReceived", "replay counter", "bad-seal ciphertext", "MessageReceived", "MessageReceived")
    description = "A message, the same again, one on another's topic, and two that overtook each other."
    yield world.vector("data-replay", description, *expected)
    world = World()
    for counter in (5000, 5000 - 1023, 5000 - 1024, 7000, 5001, 1 << 62):
        world.take(PLANT, world.data(counter))
    good = "MessageReceived"
    expected = (good, good, "replay counter", good, "replay counter", good)
    yield world.vector("data-window", "1,024 counters may overtake each other, and no more.", *expected)
    world = World()
    for ahead, counter in ((1, 0), (3, 1), (1024, 2), (1025, 3), (0, 4)):
        world.take(PLANT, world.data(counter, ahead))
    world.take(PLANT, world.data(5, 2, forged=True))
    expected = (good, good, good, "out-of-range step", good, "bad-seal ciphertext")
    description = "Steps ahead open by a copy, up to 1,024; the root stays where the server's word left it."
    yield world.vector("data-ahead", description, *expected)
    world, topic, payload = _evicted(6)
    world.take(PLANT, world.data(0))
    world.take(topic, payload)
    description = "Data of a newer key waits for its Rekey."
    yield world.vector("data-held", description, "", "Rekeyed MessageReceived")
    world.steps = world.steps[:1]
    world.tick(world.now + 4)
    world.tick(world.now + 5)
    description = "Data of a newer key whose Rekey does not come within hold: dropped, and something is missing."
    yield world.vector("data-given-up", description, "", "", "Dropped Unreadable")
    world = World()
    old, older = world.data(0), world.data(1)
    world.group.evict("m6")
    topic, payload = world.mine(world.commit())
    world.take(topic, payload)
    world.take(PLANT, old, now=NOW + 20)
    world.tick(NOW + 32)
    world.take(PLANT, older, now=NOW + 32)
    description = "An old key opens Data for grace seconds after the Rekey, and then no more."
    yield world.vector("data-grace", description, "Rekeyed", good, "", "old birth")


def _spares() -> Iterator[Vector]:
    def missed(count: int) -> tuple[World, Commit]:
        """Return a world whose member has three spares and has missed `count` rotations, and the last of them."""
        world = World()
        world.group.spares = tuple(draw(f"spare {number}", 32) for number in range(3))
        world.member["spares"] = [spare.hex() for spare in world.group.spares]
        for _ in range(count):
            world.group.rotate()
            commit = world.commit()
        return world, commit

    good = "MessageReceived"
    world, commit = missed(2)
    world.take(PLANT, world.data(0))
    world.take(PLANT, world.data(0))
    world.take(PLANT, world.data(1, 1024))
    world.take(PLANT, world.data(2, 1025))
    topic, payload = world.mine(commit)
    world.take(topic, payload)
    world.take(PLANT, world.data(1, 1024))
    world.take(PLANT, world.data(3))
    description = "The second of three spares opens Data, no more than once; then its Rekey comes, and it is the root."
    expected = (good, "replay counter", good, "", "Rekeyed Dropped", "replay counter", good)
    yield world.vector("data-spare", description, *expected)
    world, _ = missed(1)
    world.take(PLANT, world.data(0, 1, forged=True))
    world.take(PLANT, world.data(1))
    world.tick(world.now + 5)
    description = "What none of the spares opens waits as any Data of a newer root, and is given up."
    yield world.vector("data-spare-forged", description, "", good, "Dropped Unreadable")
    world, _ = missed(1)
    world.group.evict("m6")
    topic, payload = world.mine(world.commit())
    world.group.spares = ()
    world.take(topic, payload)
    other = World()
    other.group.spares = tuple(map(bytes.fromhex, world.member["spares"]))  # type: ignore[arg-type]
    other.now = world.now
    for _ in range(3):
        other.group.rotate()
        other.commit()
    world.take(PLANT, other.data(0))
    description = "An eviction's Rekey ends all spares: one who is out has kept them, and is heard no more."
    yield world.vector("data-spare-ended", description, "Rekeyed", "")


def _subgroups() -> Iterator[Vector]:
    world = World()
    for members in (["m4", MEMBER], [MEMBER], ["m4"], ["m0"], sorted(name for _, name in world.group.directory)):
        (message,) = world.group.seal_for(members, b"open valve 3", world.now, Stream("subgroup"))
        world.take(TOPICS.node(message.level, message.index), message.payload)
    world.steps.append(world.steps[0])
    some = "SubgroupReceived"
    expected = (some, some, "", "wrong-topic topic", some, "replay time")
    description = "To a pair, to it alone, to its neighbour, to somebody far, to all, and the first again."
    yield world.vector("member-subgroup", description, *expected)

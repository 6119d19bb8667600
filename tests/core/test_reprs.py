"""No text that a log may show holds a key."""

from __future__ import annotations

import pytest
from core.world import World

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Suite
from brokerkm.core.policy import Policy
from brokerkm.core.request import Join, Sync, TokenKey
from brokerkm.core.welcome import NodeKey, Welcome
from brokerkm.core.welcoming import Batch, Job
from brokerkm.errors import RefusedError

SEED = b"q" * 32  # text that shows through in any encoding


def shown(*things: object) -> str:
    """Return all texts of some things, in small letters."""
    return "\n".join(text for thing in things for text in (repr(thing), str(thing), f"{thing}")).lower()


def forms(key: bytes) -> list[str]:
    """Return how a key may look in a text."""
    return [key.hex(), repr(key)[2:-1].lower(), str(list(key))]


def test_versions_are_shown_without_keys() -> None:
    """A node's key is named by its version."""
    assert "NodeKey(birth=3, step=4)" == repr(NodeKey(SEED, 3, 4))


def test_what_is_to_be_sealed_is_shown_by_its_size() -> None:
    """A Welcome on its way to a worker is all of a member's keys."""
    batch = Batch(1, SEED, "fleet", 3, 0, 4, Policy().fields, certifies=True)
    job = Job("m", b"", b"", b"", 5, NodeKey(SEED, 1, 0), (NodeKey(SEED, 1, 0),), (SEED,))
    assert ("Batch('fleet', epoch=3)", "Job('m', slot=5)") == (repr(batch), repr(job))


def test_token_is_shown_by_its_id() -> None:
    """A token's key is not for logs."""
    assert "TokenKey(id=0102030405060708)" == repr(TokenKey(bytes(range(1, 9)), SEED))


def test_group_and_member_are_shown_by_name_and_epoch() -> None:
    """What matters to a person is there."""
    world = World()
    world.join("a", "b")
    assert "Group('fleet', epoch=1, members=2)" == repr(world.group)
    assert "Member('fleet', 'a', active, epoch=1)" == repr(world.members["a"])


@pytest.mark.parametrize("suite", Suite)
def test_no_key_is_shown(suite: Suite) -> None:
    """Neither side's objects show a node key, a leaf, a seed, a traffic key or a plaintext."""
    world = World(suite=suite, policy=Policy(source_authentication=True))
    world.enroll("a", "b", "c", "d", "e")
    enrollment = world.group._pending["a"]
    world.commit()
    world.group.evict("e")
    commit = world.commit()
    member = world.members["a"]
    memory, path = member._memory, member._path()
    events = world.send("b", "a", b"secret reading")
    join, sync = Join.decode(member.join(world.now), suite), Sync.decode(member.sync(world.now))
    public = suite.public_key(memory.kem_seed)
    welcome = Welcome.decode(world.group.welcome(Enrollment("a", member.identity, public, sync.nonce), world.now))
    secrets = welcome.open(suite, memory.kem_seed, "fleet", "a")
    member.dump()
    text = shown(
        *(world.group, world.group.tree, enrollment, commit, commit.change, *commit.rekeys, *commit.change.seated),
        *(member, memory, memory.profile, path, path.root, member._traffic, member._traffic.opener),
        *(*events, join, sync, welcome, secrets, secrets.policy),
    )
    keys = [
        *(memory.identity_seed, memory.kem_seed, memory.join_seed, path.leaf.key, *(key.key for key in path.keys)),
        *(tek for _, _, tek, _ in member._traffic.opener.accepted),
        *(world.group.tree.get(0, slot).key for slot in range(4)),
        *(b"s" * 32, b"secret reading"),
    ]
    assert all(keys)
    assert [] == [form for key in keys for form in forms(key) if form in text]


def test_refusals_show_no_key() -> None:
    """What is refused is described, not shown."""
    world = World()
    world.join("a", "b")
    root = world.members["a"]._path().root
    message = bytearray(world.members["a"].seal("plant/1", b"secret reading", world.now))
    message[-1] ^= 1
    with pytest.raises(RefusedError) as caught:
        world.members["b"].receive("plant/1", bytes(message), world.now)
    assert "ciphertext: bad-seal" == str(caught.value)
    assert [] == [form for form in forms(root.key) if form in shown(caught.value)]


def test_refusal_says_its_detail() -> None:
    """A few words for a human follow in brackets."""
    world = World()
    world.create("a")
    with pytest.raises(RefusedError, match=r"^message: oversized \(16385 bytes, at most 16384\)$"):
        world.members["a"].receive(world.topics.member("a"), bytes(16385), world.now)

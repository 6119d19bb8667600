"""The changes that wait for a commit, and what it does with them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from core.refusal import refused
from core.world import START, World, group_of

from brokerkm.core.commit import Enrollment, Eviction
from brokerkm.core.crypto import Suite
from brokerkm.core.group import Group
from brokerkm.core.notice import Goodbye, GoodbyeReason, Refusal, RefusalReason
from brokerkm.core.policy import Policy
from brokerkm.core.rekey import Beacon
from brokerkm.core.renewal import Rotation
from brokerkm.core.tree import KeyTree
from brokerkm.errors import Reason, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

RANDOM = Random(1).randbytes
KEM = Suite.X25519.public_key(b"k" * 32)


def everything(group: Group) -> list[Any]:
    """Return all that a group knows, in values that can be compared; room that is not used does not count."""
    tree = group.tree
    return [
        *(group.epoch, group.time, tree.height, tree.used, list(tree.free), list(group.directory)),
        *(dict(group._pending), set(group._rotations)),
        *(
            (at, kind, content)
            for at, level in enumerate(tree.levels)
            for kind, array in (("k", level.keys), ("b", level.births), ("s", level.steps), ("m", level.members))
            if (content := bytes(array).rstrip(b"\0"))
        ),
    ]


def queue_changes(group: Group) -> None:
    """Queue changes of every kind, so many that the tree grows."""
    group.evict("b")
    group.enroll(Enrollment("c", kem_public=KEM, nonce=bytes(16)))
    for number in range(9):
        group.enroll(Enrollment(f"new{number}", kem_public=KEM, nonce=bytes(16)))
    group.rotate(1, 0, deep=True)


def test_prepare_leaves_the_group_as_it_was() -> None:
    """A commit that is never applied has not happened."""
    group = group_of("a", "b", "c")
    queue_changes(group)
    before = everything(group)
    group.prepare(START, RANDOM)
    assert before == everything(group)


@pytest.mark.parametrize("calls", range(3))
def test_prepare_that_fails_leaves_the_group_as_it_was(calls: int) -> None:
    """A source of randomness that dries up, early or late, costs nothing; the next commit makes all changes."""
    group, left = group_of("a", "b", "c"), [calls]

    def failing(size: int) -> bytes:
        left[0] -= 1
        if left[0] < 0:
            message = "dry"
            raise OSError(message)
        return RANDOM(size)

    queue_changes(group)
    before = everything(group)
    with pytest.raises(OSError, match="dry"):
        group.prepare(START, failing)
    assert before == everything(group)
    group.commit(START, RANDOM)
    assert ["a", "c", *(f"new{number}" for number in range(9))] == sorted(name for _, name in group.directory)


def test_prepare_with_an_unusable_key_leaves_the_group_as_it_was() -> None:
    """A KEM key that turns out bad only when it is used changes nothing."""
    group = group_of("a", "b", "c")
    queue_changes(group)
    group._pending["bad"] = Enrollment("bad", kem_public=bytes(32), nonce=bytes(16))
    before = everything(group)
    with refused(Reason.OUT_OF_RANGE, "kem_public"):
        group.prepare(START, RANDOM)
    assert before == everything(group)


def test_same_commit_is_prepared_twice_from_the_same_randomness() -> None:
    """Rekeys, beacon and state depend on the arguments alone."""
    group = group_of("a", "b", "c")
    group.evict("a")
    one, two = (group.prepare(START + 1, Random(5).randbytes) for _ in range(2))
    assert one == two


def test_apply_serves_what_was_prepared() -> None:
    """After the commit nothing waits."""
    group = group_of("a", "b", "c")
    queue_changes(group)
    assert 12 == group.pending
    commit = group.commit(START, RANDOM)
    assert (0, 12, 2) == (group.pending, len(commit.served), group.epoch)
    assert {Rotation(1, 0, deep=True), Eviction("b", GoodbyeReason.EVICTED)} < commit.served


@pytest.mark.parametrize(
    "change",
    [
        lambda group: group.enroll(Enrollment("e")),
        lambda group: group.enroll(Enrollment("d", nonce=b"x" * 16)),
        lambda group: group.evict("d"),
        lambda group: group.evict("a"),
        lambda group: group.rotate(),
    ],
)
def test_change_between_prepare_and_apply_survives(change: Callable[[Group], None]) -> None:
    """What was queued after a commit was prepared waits for the next one."""
    group = group_of("a", "b")
    group.enroll(Enrollment("d"))
    commit = group.prepare(START, RANDOM)
    change(group)
    group.apply(commit)
    assert 1 == group.pending


def test_member_evicted_while_its_join_is_committed_is_out_next_time() -> None:
    """The eviction that came in between cuts it off."""
    group = group_of("a")
    group.enroll(Enrollment("d"))
    commit = group.prepare(START, RANDOM)
    group.evict("d")
    group.apply(commit)
    assert "d" in group.directory
    group.commit(START, RANDOM)
    assert "d" not in group.directory


def test_discarded_changes_are_forgotten() -> None:
    """After a discard nothing waits, and nobody joins."""
    group = group_of("a", "b")
    queue_changes(group)
    group.discard()
    assert 0 == group.pending
    group.commit(START, RANDOM)
    assert [(0, "a"), (1, "b")] == list(group.directory)


def test_commit_is_applied_once() -> None:
    """A commit that does not follow the group's epoch is refused, and changes nothing."""
    group = group_of("a", "b")
    group.evict("a")
    commit = group.commit(START, RANDOM)
    before = everything(group)
    with pytest.raises(UsageError, match="epoch 2 does not follow epoch 2"):
        group.apply(commit)
    assert before == everything(group)


def test_join_waiting_for_a_commit_can_be_evicted() -> None:
    """Who is evicted before it was seated never gets a slot, and is told."""
    group = group_of("a")
    group.enroll(Enrollment("b", kem_public=KEM, nonce=bytes(16)))
    group.evict("b", GoodbyeReason.LEFT)
    commit = group.commit(START, RANDOM)
    assert ((), (), ["b"]) == (commit.change.seated, commit.welcomes, [name for name, _ in commit.goodbyes])
    goodbye = Goodbye.decode(commit.goodbyes[0][1])
    assert (2, GoodbyeReason.LEFT) == (goodbye.epoch, goodbye.reason)
    assert "b" not in group.directory


def test_waiting_eviction_of_a_waiting_join_can_be_overtaken_by_another_join() -> None:
    """The last word counts."""
    group = group_of("a")
    group.enroll(Enrollment("b"))
    group.evict("b")
    group.enroll(Enrollment("b"))
    group.commit(START, RANDOM)
    assert 1 == group.directory.slot("b")


def test_stranger_cannot_be_evicted() -> None:
    """An eviction names a member, or one that waits to be."""
    group = group_of("a")
    with pytest.raises(UsageError, match="'ghost' is not a member of group fleet"):
        group.evict("ghost")
    group.enroll(Enrollment("b"))
    group.evict("b")
    with pytest.raises(UsageError, match="'b' is not a member"):
        group.evict("b")


def test_second_join_is_a_leaf_refresh() -> None:
    """A member that joins again keeps its slot and gets a new leaf; what it held is cut off up to the root."""
    group = group_of("a", "b", "c", "d", "e")
    old = [group.tree.get(level, 0) for level in range(3)]
    untouched = group.tree.get(1, 1)
    group.enroll(Enrollment("a", kem_public=KEM, nonce=bytes(16)))
    commit = group.commit(START, RANDOM)
    new = [group.tree.get(level, 0) for level in range(3)]
    assert (0, (), ["a"]) == (group.directory.slot("a"), commit.change.removed, [name for name, _ in commit.welcomes])
    assert [(2, 0)] * 3 == [key[1:] for key in new]
    assert not {key.key for key in old} & {key.key for key in new}
    assert untouched == group.tree.get(1, 1)
    assert 5 == group.tree.count == group.tree.levels[2].members[0]


def test_evicted_member_that_joins_in_the_same_commit_gets_a_new_leaf() -> None:
    """An eviction that a join overtakes still renews everything that the member held."""
    group = group_of("a", "b")
    old = group.leaf_key("a")
    group.evict("a")
    group.enroll(Enrollment("a"))
    group.commit(START, RANDOM)
    assert old != group.leaf_key("a")
    assert (2, 0) == group.tree.get(1, 0)[1:]


def test_slot_is_never_given_with_its_old_key() -> None:
    """The next holder of a slot gets another leaf key; in between the slot has none."""
    group = group_of("a", "b")
    old = group.leaf_key("a")
    group.evict("a")
    group.commit(START, RANDOM)
    assert bytes(32) == group.tree.get(0, 0).key
    group.enroll(Enrollment("c"))
    group.commit(START, RANDOM)
    assert (0, False) == (group.directory.slot("c"), old == group.leaf_key("c"))


def test_clock_never_goes_back() -> None:
    """Whatever the time of day does, what comes later has a later time."""
    group = group_of("a")
    times = [group.time]
    for now in (START + 10, START - 10, START - 10):
        group.enroll(Enrollment("b"))
        times.append(group.commit(now, RANDOM).change.time)
        times.append(Beacon.decode(group.beacon(now)).time)
    expected = [1_000_000_000, 1_000_010_000, *range(1_000_010_001, 1_000_010_006)]
    assert (expected, expected[-1]) == (times, group.time)


def test_new_group_has_a_beacon_without_root() -> None:
    """Before the first member there is no key."""
    beacon = Beacon.decode(Group("fleet", bytes(32), beacon_interval=7).beacon(START))
    assert (0, 1, 0, 0, 7) == (beacon.epoch, beacon.height, beacon.birth, beacon.step, beacon.due)


def test_empty_commit_is_an_epoch() -> None:
    """A commit of nothing moves the epoch and sends its Beacon."""
    group = group_of("a")
    commit = group.commit(START, RANDOM)
    assert (2, (), (), ()) == (commit.epoch, commit.rekeys, commit.welcomes, commit.goodbyes)
    assert (2, 1) == (Beacon.decode(commit.beacon).epoch, Beacon.decode(commit.beacon).birth)


def test_enrollment_without_kem_key_gets_no_welcome() -> None:
    """Who has not asked yet has a place, but nothing to read it with."""
    group = group_of("a")
    group.enroll(Enrollment("b"))
    commit = group.commit(START, RANDOM)
    assert ((), 1) == (commit.welcomes, group.directory.slot("b"))


def test_malformed_enrollment_is_refused() -> None:
    """Neither a name that makes no topic nor a key that cannot be used gets into the queue."""
    group = group_of("a")
    with pytest.raises(UsageError, match="member"):
        group.enroll(Enrollment("a/b"))
    with refused(Reason.WRONG_LENGTH, "kem_public"):
        group.enroll(Enrollment("b", kem_public=bytes(31)))
    with refused(Reason.OUT_OF_RANGE, "kem_public"):
        group.enroll(Enrollment("b", kem_public=bytes(32)))
    assert 0 == group.pending


def test_joins_that_cannot_be_welcomed_after_all_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that only fails when it is sealed to costs its own join and no other."""
    monkeypatch.setattr(Suite, "check_public", lambda _suite, _public: None)
    group = group_of("a", "z")
    for name, public in (("b", KEM), ("c", bytes(32)), ("d", b""), ("a", bytes(32))):
        group.enroll(Enrollment(name, kem_public=public, nonce=bytes(16)))
    group.evict("z")
    with refused(Reason.OUT_OF_RANGE, "kem_public"):
        group.prepare(START, RANDOM)
    assert ["a", "c"] == sorted(group.discard_unusable())
    commit = group.commit(START, RANDOM)
    assert ["b"] == [member for member, _ in commit.welcomes]
    assert (("z", 1),) == commit.change.removed
    assert ["b", "d"] == [seat.enrollment.member for seat in commit.change.seated]
    assert group.directory.slot("c") is None


def test_full_group_takes_nobody_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members and waiting joins together fill a group; its own members may still refresh their leaves."""
    monkeypatch.setattr("brokerkm.core.group.MAX_SLOTS", 3)
    group = group_of("a", "b")
    group.enroll(Enrollment("c"))
    with pytest.raises(UsageError, match="group fleet is full: 3 members"):
        group.enroll(Enrollment("d"))
    group.commit(START, RANDOM)
    with pytest.raises(UsageError, match="full"):
        group.enroll(Enrollment("d"))
    group.enroll(Enrollment("a"))
    assert 1 == group.pending


def test_group_grows_by_several_levels_at_once() -> None:
    """A commit makes as many new roots as it needs."""
    group = group_of("a", degree=2)
    for number in range(20):
        group.enroll(Enrollment(f"m{number}"))
    commit = group.commit(START, RANDOM)
    assert (5, 5) == (group.tree.height, commit.change.height)
    assert [21] == list(group.tree.levels[5].members)
    assert [(1, 0)] == [(rekey.level, rekey.index) for rekey in commit.rekeys]


def test_stored_pages_make_the_same_group() -> None:
    """What each commit gives to store, before it is applied, is the whole tree."""
    group, rng = Group("fleet", b"s" * 32, degree=3), Random(3)
    store: dict[tuple[int, int], bytes] = {}
    for turn in range(30):
        for number in range(rng.randint(0, 20)):
            group.enroll(Enrollment(f"m{turn}-{number}"))
        members = sorted(name for _, name in group.directory)
        for name in rng.sample(members, len(members) // 5):
            group.evict(name)
        commit = group.prepare(START, rng.randbytes)
        for level, number, page in commit.change.pages(group.tree):
            store[level, number] = page
        group.apply(commit)
        assert all(page == group.tree.page(*at) for at, page in store.items() if len(page) == len(group.tree.page(*at)))
    tree = KeyTree.load(3, group.tree.height, [(*at, page) for at, page in store.items()])
    nodes = [(level, index) for level in range(tree.height + 1) for index in range(len(tree.levels[level]))]
    assert [group.tree.get(*node) for node in nodes] == [tree.get(*node) for node in nodes]
    assert (group.tree.count, group.tree.height) == (tree.count, tree.height)


def test_welcome_is_for_members_only() -> None:
    """A Sync of a stranger has no answer."""
    with pytest.raises(UsageError, match="'ghost' is not a member"):
        group_of("a").welcome(Enrollment("ghost", kem_public=KEM, nonce=bytes(16)), START)


def test_welcome_to_an_unusable_key_is_refused() -> None:
    """A KEM key on file that cannot be used is refused when it is."""
    with refused(Reason.OUT_OF_RANGE, "kem_public"):
        group_of("a").welcome(Enrollment("a", kem_public=bytes(32), nonce=bytes(16)), START)


def test_certificates_are_given_where_the_policy_asks_for_them() -> None:
    """A Welcome holds the certificate of the member's identity, for a day."""
    world = World(policy=Policy(source_authentication=True))
    world.join("a")
    expiry = world.members["a"].certificate_expiry
    assert START + 1 + 24 * 3600 == expiry
    plain = World()
    plain.join("a")
    assert plain.members["a"].certificate_expiry is None


def test_nobody_is_certified_without_a_key() -> None:
    """A group that certifies senders enrolls no device that has no identity key but could be welcomed."""
    group = World(policy=Policy(source_authentication=True)).group
    with pytest.raises(UsageError, match="'a' needs an identity key"):
        group.enroll(Enrollment("a", kem_public=KEM, nonce=bytes(16)))


def test_refusal_answers_one_request() -> None:
    """A Refusal names the request's nonce, the reason and the server's time."""
    refusal = Refusal.decode(group_of("a").refusal("b", b"n" * 16, RefusalReason.TRY_LATER, START))
    assert (b"n" * 16, RefusalReason.TRY_LATER, 1_000_000_000) == (refusal.nonce, refusal.reason, refusal.time)


def test_leaf_key_is_a_members() -> None:
    """Strangers have none."""
    group = group_of("a")
    assert (group.tree.get(0, 0).key, None) == (group.leaf_key("a"), group.leaf_key("ghost"))


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65])
def test_group_has_a_name_for_topics(name: str) -> None:
    """A group's name is part of its topics."""
    with pytest.raises(UsageError, match="group"):
        Group(name, bytes(32))


def test_lowest_free_slots_are_given_first() -> None:
    """Slots freed in this commit and before are given in ascending order, then new ones."""
    group = group_of(*(f"m{number}" for number in range(20)))
    for slot in (17, 3, 11, 5, 14):
        group.evict(f"m{slot}")
    group.commit(START, RANDOM)
    group.evict("m4")
    names = [f"new{number}" for number in range(8)]
    for name in names:
        group.enroll(Enrollment(name))
    group.commit(START, RANDOM)
    assert [3, 4, 5, 11, 14, 17, 20, 21] == [group.directory.slot(name) for name in names]

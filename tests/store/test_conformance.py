"""What every store does: the same tests for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from brokerkm.core.crypto import Suite
from brokerkm.core.policy import Policy
from brokerkm.errors import StoreError, UsageError
from brokerkm.store import CommitRecord, GroupRecord, MemberRecord, OutboxMessage, Status, TokenRecord

if TYPE_CHECKING:
    from brokerkm.store import Store

SEATED = MemberRecord("ann", Status.SEATED, b"i" * 32, 0, b"k" * 32, b"n" * 16, 5, 1)
LISTED = MemberRecord("bob", Status.LISTED, b"j" * 32)
TOKEN = TokenRecord(b"t" * 8, b"m" * 32, 2, 9000)


def commit(epoch: int = 1, **changes: Any) -> CommitRecord:  # noqa: ANN401 - fields of any type
    """Return a commit of nothing but `changes`."""
    record = CommitRecord(epoch, 1, 1000 * epoch, [], [], {}, [])
    return replace(record, **changes)


def topics(store: Store) -> list[str]:
    """Return the topics that are to be published."""
    return [message.topic for message in store.unpublished("g", 100)]


def test_groups_come_back_as_they_were(store: Store) -> None:
    """Every field of a group is kept, and groups are sorted by name."""
    policy = Policy(1, 2, 3, stop_when_silent=False, source_authentication=True)
    other = GroupRecord("a", b"s" * 32, 8, "x/y", Suite.MLKEM768_X25519, policy, 7, 3, 2, 99)
    store.create_group(other, [])
    assert [other, GroupRecord("g", bytes(32), 4)] == store.groups()


def test_a_group_is_created_once(store: Store) -> None:
    """A second group of the same name is refused, and the first stays."""
    with pytest.raises(UsageError, match="there is a group g already"):
        store.create_group(GroupRecord("g", b"x" * 32, 8), [])
    assert [GroupRecord("g", bytes(32), 4)] == store.groups()


def test_an_unknown_group_is_a_usage_error(store: Store) -> None:
    """No call invents a group."""
    with pytest.raises(UsageError, match="there is no group h"):
        store.member("h", "ann")


def test_a_commit_moves_the_group(store: Store) -> None:
    """Epoch, height and time are those of the last commit."""
    store.record_commit("g", commit(1, height=3))
    assert [GroupRecord("g", bytes(32), 4, epoch=1, height=3, time=1000)] == store.groups()


@pytest.mark.parametrize("epoch", [0, 2])
def test_an_epoch_follows_the_one_before(store: Store, epoch: int) -> None:
    """A commit that repeats or skips an epoch changes nothing."""
    with pytest.raises(StoreError, match=f"epoch {epoch} does not follow"):
        store.record_commit("g", commit(epoch, messages=[OutboxMessage("t", b"p")], members=[SEATED]))
    assert ([], None, 0) == (topics(store), store.member("g", "ann"), store.groups()[0].epoch)


def test_pages_are_replaced(store: Store) -> None:
    """The newest form of each page is kept."""
    store.record_commit("g", commit(1, pages=[(0, 0, b"old"), (1, 0, b"one")]))
    store.record_commit("g", commit(2, pages=[(0, 0, b"new"), (0, 1, b"two")]))
    assert [(0, 0, b"new"), (0, 1, b"two"), (1, 0, b"one")] == sorted(store.pages("g"))


def test_members_come_back_as_they_were(store: Store) -> None:
    """Every field of a member is kept; one that is not known is None."""
    store.record_commit("g", commit(members=[SEATED]))
    store.put_member("g", LISTED)
    found = [store.member("g", name) for name in ("ann", "bob", "eve")]
    assert [SEATED, LISTED, None] == found
    assert [("ann", 0)] == list(store.seats("g"))


def test_a_slot_passes_from_one_member_to_another(store: Store) -> None:
    """One commit empties a slot and seats another member at it."""
    store.record_commit("g", commit(1, members=[SEATED]))
    heir = replace(SEATED, member="abe")
    gone = MemberRecord("ann", Status.EVICTED, SEATED.identity)
    store.record_commit("g", commit(2, members=[heir, gone]))
    assert [("abe", 0)] == list(store.seats("g"))
    assert gone == store.member("g", "ann")


def test_members_are_listed_in_pages(store: Store) -> None:
    """A page begins after the id that is given."""
    for name in ("c", "a", "b"):
        store.put_member("g", replace(LISTED, member=name))
    assert ["a", "b"] == [record.member for record in store.members("g", limit=2)]
    assert ["c"] == [record.member for record in store.members("g", after="b", limit=2)]


@pytest.mark.parametrize("record", [replace(LISTED, member="ann"), replace(SEATED, member="bob", slot=1)])
def test_only_a_commit_seats_or_unseats(store: Store, record: MemberRecord) -> None:
    """`put_member` touches no member that has a seat, and gives none."""
    store.record_commit("g", commit(members=[SEATED]))
    with pytest.raises(StoreError, match="only a commit changes that"):
        store.put_member("g", record)
    assert [SEATED] == store.members("g")


def test_a_token_is_spent_by_a_commit(store: Store) -> None:
    """Each use counts; a token without uses is gone."""
    store.add_token("g", TOKEN, 0)
    store.record_commit("g", commit(1, spent={TOKEN.id: 1}))
    assert replace(TOKEN, uses_left=1) == store.token("g", TOKEN.id)
    store.record_commit("g", commit(2, spent={TOKEN.id: 1}))
    assert store.token("g", TOKEN.id) is None


@pytest.mark.parametrize("spent", [{TOKEN.id: 3}, {b"u" * 8: 1}])
def test_a_token_is_not_overspent(store: Store, spent: dict[bytes, int]) -> None:
    """A commit that takes more uses than there are changes nothing."""
    store.add_token("g", TOKEN, 0)
    with pytest.raises(StoreError, match="uses left"):
        store.record_commit("g", commit(spent=spent, members=[SEATED], messages=[OutboxMessage("t", b"p")]))
    assert (TOKEN, None, []) == (store.token("g", TOKEN.id), store.member("g", "ann"), topics(store))
    assert store.groups()[0].epoch == 0


def test_expired_tokens_are_forgotten(store: Store) -> None:
    """A new token takes the place of those whose time is over."""
    store.add_token("g", TOKEN, 0)
    store.add_token("g", replace(TOKEN, id=b"v" * 8), TOKEN.expiry)
    assert store.token("g", TOKEN.id) is None


def test_the_outbox_keeps_the_order_of_publication(store: Store) -> None:
    """Messages come out as they went in, the newest of each topic only."""
    first = store.record_commit("g", commit(1, messages=[OutboxMessage("a", b"1"), OutboxMessage("b", b"1")]))
    last = store.record_commit("g", commit(2, messages=[OutboxMessage("c", b"2"), OutboxMessage("a", b"2")]))
    found = store.unpublished("g", 100)
    assert [("b", b"1"), ("c", b"2"), ("a", b"2")] == [(one.topic, one.payload) for one in found]
    assert [first, last] == [found[0].sequence, found[-1].sequence]
    assert found[:2] == store.unpublished("g", 2)


def test_what_is_published_does_not_come_again(store: Store) -> None:
    """Marking takes all up to a sequence, and no newer one of the same topic."""
    first = store.record_commit("g", commit(1, messages=[OutboxMessage("a", b"1"), OutboxMessage("b", b"1")]))
    store.record_commit("g", commit(2, messages=[OutboxMessage("a", b"2")]))
    store.mark_published("g", first)
    assert [("a", b"2")] == [(one.topic, one.payload) for one in store.unpublished("g", 100)]


def test_what_is_for_all_is_published_again(store: Store) -> None:
    """A broker that forgot gets what is for all members; what was for one is gone."""
    messages = [OutboxMessage("a", b"1"), OutboxMessage("m/ann", b"w", "ann"), OutboxMessage("b", b"1")]
    last = store.record_commit("g", commit(messages=messages))
    assert [None, "ann", None] == [one.audience for one in store.unpublished("g", 100)]
    store.mark_published("g", last)
    assert (2, ["a", "b"]) == (store.publish_again("g"), topics(store))


def test_what_is_for_one_is_not_lost_before_it_is_published(store: Store) -> None:
    """Publishing again does not drop a Welcome that has not gone out."""
    store.record_commit("g", commit(messages=[OutboxMessage("m/ann", b"w", "ann")]))
    assert (1, ["m/ann"]) == (store.publish_again("g"), topics(store))


def test_groups_do_not_mix(store: Store) -> None:
    """The same topic, member and token in two groups are different things."""
    store.create_group(GroupRecord("h", b"h" * 32, 4), [OutboxMessage("a", b"h")])
    last = store.record_commit("g", commit(members=[SEATED], messages=[OutboxMessage("a", b"g")]))
    store.mark_published("g", last)
    assert ["a"] == [one.topic for one in store.unpublished("h", 100)]
    assert store.member("h", "ann") is None


def test_a_beacon_moves_the_clock_alone(store: Store) -> None:
    """A Beacon replaces the one before and sets the group's time."""
    store.record_beacon("g", 5, OutboxMessage("b", b"1"))
    sequence = store.record_beacon("g", 6, OutboxMessage("b", b"2"))
    assert [OutboxMessage("b", b"2", None, sequence)] == store.unpublished("g", 100)
    assert (0, 6) == (store.groups()[0].epoch, store.groups()[0].time)


def test_scrubbing_changes_nothing(store: Store) -> None:
    """What is current is still there afterwards."""
    store.record_commit("g", commit(pages=[(0, 0, b"page")], members=[SEATED]))
    store.scrub()
    assert ([(0, 0, b"page")], [SEATED]) == (list(store.pages("g")), store.members("g"))


def test_no_text_shows_a_key(store: Store) -> None:
    """Records can be logged."""
    secret = b"SECRET" * 5 + b"xx"
    records = (
        GroupRecord("g", secret, 4),
        replace(TOKEN, key=secret),
        OutboxMessage("t", secret),
        commit(pages=[(0, 0, secret)], messages=[OutboxMessage("t", secret)]),
    )
    assert "SECRET" not in f"{records} {store!r}"

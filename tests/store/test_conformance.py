"""What every store does: the same tests for all of them."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from store.planted import SPARES, Planted

from brokerkm.core.crypto import Suite
from brokerkm.core.policy import Policy
from brokerkm.errors import StoreError, UsageError
from brokerkm.store import (
    AuditEntry,
    Change,
    Document,
    GroupRecord,
    KeyChange,
    MemberRecord,
    MemoryStore,
    OutboxMessage,
    Settings,
    Sighting,
    SqliteStore,
    Status,
    TokenRecord,
)
from brokerkm.store import audit as chain

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.store import Store
    from brokerkm.store.records import Page

SEATED = MemberRecord("ann", Status.SEATED, b"i" * 32, 0, b"k" * 32, b"n" * 16, 5, 1, 6, 7, 1, 9, 10)
LISTED = MemberRecord("bob", Status.LISTED, b"j" * 32)
TOKEN = TokenRecord(b"t" * 8, b"m" * 32, 2, 9000, "pump-*", 1, "for the pumps")


def commit(epoch: int = 1, *, height: int = 1, pages: tuple[Page, ...] = (), **changes: Any) -> Change:  # noqa: ANN401 - fields of any type
    """Return a commit of nothing but `changes`."""
    return Change(keys=KeyChange(epoch, height, pages), time=1000 * epoch, **changes)


def topics(store: Store) -> list[str]:
    """Return the topics that are to be published."""
    return [message.topic for message in store.unpublished("g", 100)]


def test_groups_come_back_as_they_were(store: Store) -> None:
    """Every field of a group is kept, and groups are sorted by name."""
    policy = Policy(1, 2, 3, stop_when_silent=False, source_authentication=True)
    settings = Settings(0.5, 7, 8, 9, retained=False)
    other = GroupRecord("a", b"s" * 32, 8, "x/y", Suite.MLKEM768_X25519, policy, 7, 3, 2, 99, settings)
    other = replace(other, frozen=True, handovers=(b"k1", b"k2"))
    store.create_group(other, Change())
    assert [other, GroupRecord("g", bytes(32), 4)] == store.groups()


def test_a_group_is_created_once(store: Store) -> None:
    """A second group of the same name is refused, and the first stays."""
    with pytest.raises(UsageError, match="there is a group g already"):
        store.create_group(GroupRecord("g", b"x" * 32, 8), Change())
    assert [GroupRecord("g", bytes(32), 4)] == store.groups()


def test_an_unknown_group_is_a_usage_error(store: Store) -> None:
    """No call invents a group."""
    with pytest.raises(UsageError, match="there is no group h"):
        store.member("h", "ann")


def test_a_commit_moves_the_group(store: Store) -> None:
    """Epoch, height and time are those of the last commit."""
    store.write("g", commit(1, height=3))
    assert [GroupRecord("g", bytes(32), 4, epoch=1, height=3, time=1000)] == store.groups()


@pytest.mark.parametrize("epoch", [0, 2])
def test_an_epoch_follows_the_one_before(store: Store, epoch: int) -> None:
    """A commit that repeats or skips an epoch changes nothing."""
    with pytest.raises(StoreError, match=f"epoch {epoch} does not follow"):
        store.write("g", commit(epoch, messages=[OutboxMessage("t", b"p")], members=[SEATED]))
    assert ([], None, 0) == (topics(store), store.member("g", "ann"), store.groups()[0].epoch)


def test_pages_are_replaced(store: Store) -> None:
    """The newest form of each page is kept."""
    store.write("g", commit(1, pages=((0, 0, b"old"), (1, 0, b"one"))))
    store.write("g", commit(2, pages=((0, 0, b"new"), (0, 1, b"two"), (1, 0, b"root"))))
    assert [(0, 0, b"new"), (0, 1, b"two"), (1, 0, b"root")] == sorted(store.pages("g"))


def test_a_tree_grows(store: Store) -> None:
    """Pages that were there stay in their places below new ones."""
    store.write("g", commit(1, pages=((0, 0, b"a"), (1, 0, b"b"))))
    store.write("g", commit(2, height=3, pages=((0, 7, b"c"), (1, 1, b"d"), (2, 0, b"e"), (3, 0, b"f"))))
    store.write("g", commit(3, height=3, pages=((2, 0, b"g"), (3, 0, b"h"))))
    expected = [(0, 0, b"a"), (0, 7, b"c"), (1, 0, b"b"), (1, 1, b"d"), (2, 0, b"g"), (3, 0, b"h")]
    assert expected == sorted(store.pages("g"))


def test_members_come_back_as_they_were(store: Store) -> None:
    """Every field of a member is kept; one that is not known is None."""
    store.write("g", commit(members=[SEATED]))
    store.write("g", Change(members=[LISTED]))
    found = [store.member("g", name) for name in ("ann", "bob", "eve")]
    assert [SEATED, LISTED, None] == found
    assert [("ann", 0)] == list(store.seats("g"))


def test_a_slot_passes_from_one_member_to_another(store: Store) -> None:
    """One commit empties a slot and seats another member at it."""
    store.write("g", commit(1, members=[SEATED]))
    heir = replace(SEATED, member="abe")
    gone = MemberRecord("ann", Status.EVICTED, SEATED.identity)
    store.write("g", commit(2, members=[heir, gone]))
    assert [("abe", 0)] == list(store.seats("g"))
    assert gone == store.member("g", "ann")


def test_spares_are_those_of_the_last_commit(store: Store) -> None:
    """Each commit says which of the root's next keys are left; a change that is no commit leaves them alone."""
    assert () == store.spares("g")
    keys = KeyChange(1, 1, [(0, 0, b"p"), (1, 0, b"r")], spares=(b"1" * 32, b"2" * 32))
    assert "1111" not in repr(keys)
    store.write("g", Change(keys=keys))
    store.write("g", Change(time=5))
    assert (b"1" * 32, b"2" * 32) == store.spares("g")
    store.write("g", Change(keys=KeyChange(2, 1, [(1, 0, b"s")], spares=(b"2" * 32,))))
    assert (b"2" * 32,) == store.spares("g")
    store.write("g", Change(keys=KeyChange(3, 1, [(1, 0, b"t")])))
    assert () == store.spares("g")
    with pytest.raises(UsageError, match="there is no group other"):
        store.spares("other")


def test_members_are_listed_in_pages(store: Store) -> None:
    """A page begins after the id that is given."""
    for name in ("c", "a", "b"):
        store.write("g", Change(members=[replace(LISTED, member=name)]))
    assert ["a", "b"] == [record.member for record in store.members("g", limit=2)]
    assert ["c"] == [record.member for record in store.members("g", after="b", limit=2)]


@pytest.mark.parametrize("record", [replace(LISTED, member="ann"), replace(SEATED, member="bob", slot=1)])
def test_only_a_commit_seats_or_unseats(store: Store, record: MemberRecord) -> None:
    """Without a commit a change gives no seat and takes none."""
    store.write("g", commit(members=[SEATED]))
    with pytest.raises(StoreError, match="only a commit changes that"):
        store.write("g", Change(members=[record]))
    assert [SEATED] == store.members("g")


def test_a_token_is_spent_by_a_commit(store: Store) -> None:
    """Each use counts; a token without uses is gone."""
    store.write("g", Change(tokens=[TOKEN]))
    store.write("g", commit(1, spent={TOKEN.id: 1}))
    assert replace(TOKEN, uses_left=1) == store.token("g", TOKEN.id)
    store.write("g", commit(2, spent={TOKEN.id: 1}))
    assert store.token("g", TOKEN.id) is None


@pytest.mark.parametrize("spent", [{TOKEN.id: 3}, {b"u" * 8: 1}])
def test_a_token_is_not_overspent(store: Store, spent: dict[bytes, int]) -> None:
    """A commit that takes more uses than there are changes nothing."""
    store.write("g", Change(tokens=[TOKEN]))
    with pytest.raises(StoreError, match="uses left"):
        store.write("g", commit(spent=spent, members=[SEATED], messages=[OutboxMessage("t", b"p")]))
    assert (TOKEN, None, []) == (store.token("g", TOKEN.id), store.member("g", "ann"), topics(store))
    assert store.groups()[0].epoch == 0


def test_expired_tokens_are_forgotten(store: Store) -> None:
    """A new token takes the place of those whose time is over."""
    store.write("g", Change(tokens=[TOKEN]))
    store.write("g", Change(tokens=[replace(TOKEN, id=b"v" * 8, created=TOKEN.expiry)]))
    assert store.token("g", TOKEN.id) is None


def test_the_outbox_keeps_the_order_of_publication(store: Store) -> None:
    """Messages come out as they went in, the newest of each topic only."""
    first = store.write("g", commit(1, messages=[OutboxMessage("a", b"1"), OutboxMessage("b", b"1")]))
    last = store.write("g", commit(2, messages=[OutboxMessage("c", b"2"), OutboxMessage("a", b"2")]))
    found = store.unpublished("g", 100)
    assert [("b", b"1"), ("c", b"2"), ("a", b"2")] == [(one.topic, one.payload) for one in found]
    assert [first, last] == [found[0].sequence, found[-1].sequence]
    assert found[:2] == store.unpublished("g", 2)


def test_what_is_published_does_not_come_again(store: Store) -> None:
    """Marking takes all up to a sequence, and no newer one of the same topic."""
    first = store.write("g", commit(1, messages=[OutboxMessage("a", b"1"), OutboxMessage("b", b"1")]))
    store.write("g", commit(2, messages=[OutboxMessage("a", b"2")]))
    store.mark_published("g", first)
    assert [("a", b"2")] == [(one.topic, one.payload) for one in store.unpublished("g", 100)]


def test_what_is_for_all_is_published_again(store: Store) -> None:
    """A broker that forgot gets what is for all members; what was for one is gone."""
    messages = [OutboxMessage("a", b"1"), OutboxMessage("m/ann", b"w", "ann"), OutboxMessage("b", b"1")]
    last = store.write("g", commit(messages=messages))
    assert [None, "ann", None] == [one.audience for one in store.unpublished("g", 100)]
    store.mark_published("g", last)
    assert (2, ["a", "b"]) == (store.publish_again("g"), topics(store))


def test_what_is_for_one_is_not_lost_before_it_is_published(store: Store) -> None:
    """Publishing again does not drop a Welcome that has not gone out."""
    store.write("g", commit(messages=[OutboxMessage("m/ann", b"w", "ann")]))
    assert (1, ["m/ann"]) == (store.publish_again("g"), topics(store))


def test_groups_do_not_mix(store: Store) -> None:
    """The same topic, member and token in two groups are different things."""
    store.create_group(GroupRecord("h", b"h" * 32, 4), Change(messages=[OutboxMessage("a", b"h")]))
    last = store.write("g", commit(members=[SEATED], messages=[OutboxMessage("a", b"g")]))
    store.mark_published("g", last)
    assert ["a"] == [one.topic for one in store.unpublished("h", 100)]
    assert store.member("h", "ann") is None


def test_a_beacon_moves_the_clock_alone(store: Store) -> None:
    """A Beacon replaces the one before and sets the group's time."""
    store.write("g", Change(time=5, messages=[OutboxMessage("b", b"1")]))
    sequence = store.write("g", Change(time=6, messages=[OutboxMessage("b", b"2")]))
    assert [OutboxMessage("b", b"2", None, sequence)] == store.unpublished("g", 100)
    assert (0, 6) == (store.groups()[0].epoch, store.groups()[0].time)


def test_scrubbing_changes_nothing(store: Store) -> None:
    """What is current is still there afterwards."""
    store.write("g", commit(pages=((0, 0, b"page"), (1, 0, b"root")), members=[SEATED]))
    store.scrub()
    assert ([(0, 0, b"page"), (1, 0, b"root")], [SEATED]) == (sorted(store.pages("g")), store.members("g"))


def test_no_text_shows_a_key(store: Store) -> None:
    """Records can be logged."""
    secret = b"SECRET" * 5 + b"xx"
    records = (
        GroupRecord("g", secret, 4),
        replace(TOKEN, key=secret),
        OutboxMessage("t", secret),
        commit(pages=((0, 0, secret),), messages=[OutboxMessage("t", secret)]),
    )
    assert "SECRET" not in f"{records} {store!r}"


def test_a_jump_passes_over_epochs(store: Store) -> None:
    """A group may go on above epochs that it does not know of, and never back."""
    store.write("g", Change(keys=KeyChange(7, 1, [], jump=True)))
    with pytest.raises(StoreError, match="epoch 7 does not follow epoch 7"):
        store.write("g", Change(keys=KeyChange(7, 1, [], jump=True)))
    assert store.groups()[0].epoch == 7


def test_terms_are_replaced_and_nothing_else(store: Store) -> None:
    """A new record brings policy, settings, hand-overs and signing key; name, degree and epoch stay."""
    other = GroupRecord("x", b"n" * 32, 9, "p", policy=Policy(1), epoch=5, settings=Settings(3.0), frozen=True)
    store.write("g", Change(record=replace(other, handovers=(b"h",), beacon_interval=9)))
    expected = GroupRecord("g", b"n" * 32, 4, policy=Policy(1), settings=Settings(3.0), frozen=True, handovers=(b"h",))
    assert replace(expected, beacon_interval=9) == store.group("g")
    store.write("g", Change(record=replace(expected, frozen=False, destroyed=True)))
    assert replace(expected, frozen=False, destroyed=True) == store.group("g")
    assert store.group("x") is None


def test_a_destroyed_group_leaves_its_log(store: Store) -> None:
    """All else is gone, and a group that takes its name begins anew, but for the log."""
    one = Document("rule", "night", b"{}")
    store.write("g", commit(pages=((0, 0, b"p"), (1, 0, b"q")), members=[SEATED], tokens=[TOKEN], documents=[one]))
    store.destroy_group("g", [AuditEntry(1, "operator", "destroy", "g")])
    with pytest.raises(UsageError, match="there is no group g"):
        store.waiting("g")
    store.create_group(GroupRecord("g", bytes(32), 4), Change(audit=[AuditEntry(2, "operator", "create", "g")]))
    left = (list(store.pages("g")), store.members("g"), store.tokens("g"), store.documents("g", "rule"))
    assert ([], [], [], []) == left
    assert ["destroy", "create"] == [record.entry.action for record in store.audit("g")]


def test_who_sits_at_a_slot(store: Store) -> None:
    """Members are found by slot too."""
    store.write("g", commit(members=[SEATED, LISTED]))
    assert (SEATED, None) == (store.member_at("g", 0), store.member_at("g", 1))


def test_many_are_looked_up_at_once(store: Store) -> None:
    """Who is known is found, in any number, whether asked for once or twice."""
    many = [replace(LISTED, member=f"m{number}") for number in range(200)]
    store.write("g", commit(members=[SEATED, *many]))
    names = [*(record.member for record in many), "nobody", SEATED.member, "m7"]
    assert {record.member: record for record in (SEATED, *many)} == store.known("g", names)
    assert {"m7": many[7]} == store.known("g", ["m7"])
    assert {} == store.known("g", ["nobody"])
    assert {} == store.known("g", [])


def test_members_are_counted_by_status(store: Store) -> None:
    """Every status has its number."""
    store.write("g", commit(members=[SEATED, LISTED, replace(LISTED, member="eve", status=Status.PENDING)]))
    assert {Status.LISTED: 1, Status.SEATED: 1, Status.EVICTED: 0, Status.PENDING: 1} == store.count("g")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["Pump-1", "a_b", "axb", "pump-1", "pump-2"]),
        ("pump-*", ["pump-1", "pump-2"]),
        ("a_b", ["a_b"]),
        ("a?b", ["a_b", "axb"]),
        ("[Pp]ump-[!2]", ["Pump-1", "pump-1"]),
        ("*b", ["a_b", "axb"]),
    ],
)
def test_members_are_found_by_pattern(store: Store, pattern: str, expected: list[str]) -> None:
    """Patterns are the shell's, and case counts."""
    names = ["pump-1", "pump-2", "Pump-1", "axb", "a_b"]
    store.write("g", Change(members=[replace(LISTED, member=name) for name in names]))
    assert expected == [record.member for record in store.members("g", pattern=pattern)]
    rest = store.members("g", pattern=pattern, after=expected[0], limit=1)
    assert expected[1:2] == [record.member for record in rest]


def test_a_pattern_is_looked_for_in_the_whole_group(store: Store) -> None:
    """Those that only look alike do not fill the page."""
    names = [f"[x]{number:05}" for number in range(5000)] + ["z1"]
    store.write("g", Change(members=[replace(LISTED, member=name) for name in names]))
    assert ["z1"] == [record.member for record in store.members("g", pattern="[!x[]*", limit=1)]


def test_silent_and_late_members_are_found(store: Store) -> None:
    """Silence counts from the last sign of life or the last change; late is who confirmed once, but not lately."""
    store.write(
        "g",
        commit(
            members=[
                replace(SEATED, member="silent", slot=0, since=10, seen=0, acked=0),
                replace(SEATED, member="heard", slot=1, since=10, seen=60, acked=5),
                replace(SEATED, member="new", slot=2, since=60, seen=0, acked=4),
            ]
        ),
    )
    assert ["silent"] == [record.member for record in store.members("g", unseen_since=50)]
    assert ["new"] == [record.member for record in store.members("g", behind=5)]
    assert [] == store.members("g", status=Status.EVICTED)


def test_signs_of_life_only_rise(store: Store) -> None:
    """What is older than what is known changes nothing, and strangers are ignored."""
    store.write("g", commit(members=[replace(SEATED, seen=5, acked=2, counter=8)]))
    store.touch("g", [Sighting("ann", 4, 3, 9), Sighting("ann", 7), Sighting("eve", 1, 1, 1)])
    assert [replace(SEATED, seen=7, acked=3, counter=9)] == store.members("g")


def test_tokens_are_listed_and_revoked(store: Store) -> None:
    """Oldest first; one that is revoked is gone."""
    later = replace(TOKEN, id=b"a" * 8, created=2)
    store.write("g", Change(tokens=[TOKEN, later]))
    assert [TOKEN, later] == store.tokens("g")
    store.write("g", Change(revoked=[TOKEN.id, b"unknown!"]))
    assert [later] == store.tokens("g")


@pytest.mark.parametrize("group", ["g", ""])
def test_documents_are_kept_by_kind_and_name(store: Store, group: str) -> None:
    """A group has its own, and so has the server."""
    one, two = Document("rule", "a", b"1", 1), Document("rule", "b", b"2", 2)
    store.write(group, Change(documents=[two, one, Document("answer", "a", b"3")]))
    assert [one, two] == store.documents(group, "rule")
    store.write(group, Change(documents=[replace(one, body=b"new")], dropped=[("rule", "b"), ("rule", "none")]))
    assert (replace(one, body=b"new"), None) == (store.document(group, "rule", "a"), store.document(group, "rule", "b"))
    assert [] == store.documents("g" if group == "" else "", "rule")


def test_the_server_has_no_members(store: Store) -> None:
    """What only a group has is refused."""
    with pytest.raises(UsageError, match="only documents and an audit log"):
        store.write("", Change(members=[LISTED]))


def test_the_log_is_a_chain(store: Store) -> None:
    """Each entry is hashed with the one before; a group's log is its own."""
    details = [{"epoch": at, "quiet": True, "why": "ä"} for at in (1, 2)]
    entries = [AuditEntry(1, "operator:eve", "evict", "ann", one) for one in details]
    store.write("g", Change(audit=entries[:1]))
    store.write("g", Change(audit=entries[1:]))
    store.write("", Change(audit=entries[:1]))
    records = store.audit("g")
    assert ([1, 2], entries) == ([record.number for record in records], [record.entry for record in records])
    assert (records[1:], 1) == (store.audit("g", after=1), len(store.audit("")))
    assert records[:1] == store.audit("g", limit=1)
    first = '{"action":"evict","actor":"operator:eve","chain":"g","details":{"epoch":1,"quiet":true,"why":"ä"}'
    text = first + ',"number":1,"subject":"ann","time":1}'
    assert hashlib.sha256(bytes(32) + text.encode()).digest() == records[0].hash
    assert records[1] == chain.check("g", records)


def test_a_change_that_fails_leaves_no_entry(store: Store) -> None:
    """The log says what has happened, and nothing else."""
    entry = AuditEntry(1, "operator", "rotate", "g")
    with pytest.raises(StoreError):
        store.write("g", commit(5, audit=[entry], documents=[Document("a", "b", b"")]))
    assert ([], []) == (store.audit("g"), store.documents("g", "a"))


def test_the_outbox_tells_how_much_waits(store: Store) -> None:
    """The sequence is the group's own and never falls."""
    assert 2 == store.write("g", commit(messages=[OutboxMessage("a", b"1"), OutboxMessage("b", b"1")]))
    store.mark_published("g", 1)
    assert (2, 1) == (store.write("g", Change()), store.waiting("g"))
    store.mark_published("g", 2)
    assert (3, 1) == (store.write("g", Change(messages=[OutboxMessage("a", b"2", "ann")])), store.waiting("g"))


def test_a_backup_of_any_engine_is_a_sqlite_store(store: Store, tmp_path: Path) -> None:
    """It opens under the same key, and holds the same."""
    if isinstance(store, MemoryStore):
        return
    planted = Planted(store, members=300)
    steps: list[tuple[int, int]] = []
    store.backup(tmp_path / "backup", lambda done, total: steps.append((done, total)))
    planted.evict("m1")
    with closing(SqliteStore(tmp_path / "backup", bytes(32))) as copy:
        assert ([], 300) == (copy.verify(), copy.count("plant")[Status.SEATED])
        assert ["g", "plant"] == [record.name for record in copy.groups()]
        assert store.tokens("plant") == copy.tokens("plant")
        assert (SPARES, ()) == (len(copy.spares("plant")), store.spares("plant"))
    assert steps[-1][0] == steps[-1][1]
    with pytest.raises(UsageError, match="there is a file already"):
        store.backup(tmp_path / "backup")


@pytest.mark.parametrize("deep", [False, True])
def test_rewrapping_any_engine(store: Store, *, deep: bool) -> None:
    """What was sealed under the old key is there under the new one, and commits go on."""
    if isinstance(store, MemoryStore):
        return
    planted = Planted(store, members=300)
    before = store.spares("plant")
    store.rewrap(b"n" * 32, deep=deep)
    assert (SPARES, before) == (len(before), store.spares("plant"))
    planted.evict("m1")
    assert ([], 2) == (store.verify(), len(store.groups()))

"""Leases and mail in PostgreSQL: who may lead, who may write, and what a server hands to another."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from brokerkm.clock import boot_time
from brokerkm.errors import LeaseLostError, UsageError
from brokerkm.store import Change, GroupRecord
from brokerkm.store.lease import PostgresLeases, ServerRecord
from brokerkm.store.mailbox import LIMIT, Letter, PostgresMailbox, to_leader, to_server
from brokerkm.store.postgres import PostgresStore

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

SHORT = 0.3  # seconds of a lease


@pytest.fixture
def store(database: str) -> Generator[PostgresStore]:
    """Open a store that holds the group g."""
    opened = PostgresStore(database, bytes(32))
    opened.create_group(GroupRecord("g", bytes(32), 4), Change())
    yield opened
    opened.close()


@pytest.fixture
def leases(store: PostgresStore) -> PostgresLeases:
    """Give leases that end soon, and the servers a and b."""
    made = PostgresLeases(store.engine, SHORT)
    made.heartbeat(ServerRecord("a", "host-a", "1", "https://a"))
    made.heartbeat(ServerRecord("b", "host-b", "1"))
    return made


def eventually(condition: Callable[[], bool]) -> None:
    """Return when the condition holds, asked again and again: the database's clock tells nobody."""
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_one_leads_at_a_time(leases: PostgresLeases) -> None:
    """A lease that one server has, another one does not get before it has ended."""
    asked = boot_time()
    first = leases.acquire("a", "g")
    assert first is not None
    assert asked + SHORT <= first.ends <= boot_time() + SHORT
    assert leases.acquire("b", "g") is None
    eventually(lambda: leases.standings()[0].holder is None)
    assert boot_time() > first.ends  # the holder's own count ends first
    second = leases.acquire("b", "g")
    assert second is not None
    assert second.fence > first.fence
    assert set() == leases.renew("a", ["g"])
    assert {"g"} == leases.renew("b", ["g", "other"])


def test_the_last_fence_alone_may_write(store: PostgresStore, leases: PostgresLeases) -> None:
    """A change under an old fence is refused and changes nothing, from the moment that another server leads."""
    first = leases.acquire("a", "g")
    assert first is not None
    store.write("g", Change(fence=first.fence, time=1))
    leases.release("a", "g")
    second = leases.acquire("b", "g")
    assert second is not None
    with pytest.raises(LeaseLostError):
        store.write("g", Change(fence=first.fence, time=2))
    with pytest.raises(LeaseLostError):
        store.destroy_group("g", [], first.fence)
    assert 1 == store.groups()[0].time
    store.write("g", Change(fence=second.fence, time=3))
    store.destroy_group("g", [], second.fence)
    assert [] == store.groups()


def test_fences_grow_over_the_life_of_groups(store: PostgresStore, leases: PostgresLeases) -> None:
    """Who led a group of the same name before may not write into the new one."""
    first = leases.acquire("a", "g")
    assert first is not None
    store.destroy_group("g", [])
    store.create_group(GroupRecord("g", bytes(32), 4), Change())
    eventually(lambda: leases.standings()[0].holder is None)
    second = leases.acquire("b", "g")
    assert second is not None
    with pytest.raises(LeaseLostError):
        store.write("g", Change(fence=first.fence, time=2))


def test_a_write_under_way_is_waited_for(store: PostgresStore, leases: PostgresLeases) -> None:
    """A lease that ended is not given away while a change under it is being stored."""
    first = leases.acquire("a", "g")
    assert first is not None
    with store.engine.transaction() as session:
        session.change("UPDATE groups SET time = 7 WHERE name = 'g'")
        eventually(lambda: leases.standings()[0].holder is None)
        assert leases.acquire("b", "g") is None
    assert leases.acquire("b", "g") is not None
    assert 7 == store.groups()[0].time


def test_many_ask_and_one_gets_it(leases: PostgresLeases) -> None:
    """Of servers that ask at the same moment one gets the lease."""
    gate = threading.Barrier(4)
    got: list[object] = []

    def ask(name: str) -> None:
        gate.wait()
        got.append(leases.acquire(name, "g"))

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == sum(lease is not None for lease in got)


def test_servers_and_what_they_lead(leases: PostgresLeases) -> None:
    """The list names each server with its groups, and who has not been heard of is not live."""
    leases.acquire("a", "g")
    a, b = leases.servers()
    assert ("a", "host-a", "1", "https://a", True, ("g",)) == (a.id, a.host, a.version, a.url, a.live, a.groups)
    assert ((), True) == (b.groups, b.live)
    assert 0 <= a.seen - a.since < 1000
    eventually(lambda: not any(server.live for server in leases.servers()))
    leases.heartbeat(ServerRecord("b"))
    leases.farewell("a")
    (b,) = leases.servers()
    assert ("b", True, "host-b") == (b.id, b.live, b.host)


def test_a_move_is_kept_until_somebody_else_leads(leases: PostgresLeases) -> None:
    """The wish of an operator stays with the group while the server that he named has it, and ends with that."""
    leases.acquire("a", "g")
    leases.move("g", "b", pinned=True)
    assert ("b", True) == (leases.standings()[0].wanted, leases.standings()[0].pinned)
    leases.release("a", "g")
    leases.acquire("b", "g")
    assert ("b", True) == (leases.standings()[0].wanted, leases.standings()[0].pinned)
    leases.release("b", "g")
    leases.acquire("a", "g")
    assert (None, False) == (leases.standings()[0].wanted, leases.standings()[0].pinned)


def test_a_move_to_nowhere_is_refused(leases: PostgresLeases) -> None:
    """Neither an unknown server nor an unknown group is taken."""
    with pytest.raises(UsageError, match="no server 'c'"):
        leases.move("g", "c", pinned=True)
    with pytest.raises(UsageError, match="no group 'h'"):
        leases.move("h", "a", pinned=True)


def test_letters_are_taken_once_and_in_order(store: PostgresStore) -> None:
    """Each receiver gets its own letters, oldest first, and nobody gets one twice."""
    box = PostgresMailbox(store)
    mine = [Letter(to_leader("g"), "request", b"%d" % number, "a", number) for number in range(300)]
    assert 301 == box.post([*mine, Letter(to_server("a"), "answer", b"x", "b")])
    assert mine == box.take([to_leader("g")]) + box.take([to_leader("g")])
    assert [] == box.take([to_leader("g"), to_leader("h")])
    with store.engine.reading() as session:
        assert b"x" not in next(session.rows("SELECT body FROM mail"))  # sealed
    assert [b"x"] == [letter.body for letter in box.take([to_server("a")])]


def test_a_full_box_takes_no_more(store: PostgresStore) -> None:
    """What nobody takes does not fill the database."""
    box = PostgresMailbox(store)
    many = [Letter(to_leader("g"), "request", b"", "a")] * LIMIT
    assert LIMIT == box.post(many)
    assert 1 == box.post([many[0], Letter(to_leader("h"), "request", b"", "a")])
    with store.engine.transaction() as session:
        session.change("UPDATE mail SET created = created - interval '61 seconds'")
    assert [] == box.take([to_leader("g")])  # too old
    box.clean()
    assert 1 == box.post([many[0]])

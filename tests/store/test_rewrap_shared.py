"""A store that several servers share is put under another key by one of them, while the others go on."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from store.planted import SEED, Planted

from brokerkm.errors import StoreError
from brokerkm.store import Change, GroupRecord
from brokerkm.store.mailbox import Letter, PostgresMailbox, to_server
from brokerkm.store.postgres import PostgresStore

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

OLD, NEW = bytes(32), b"n" * 32
ROUNDS = int(os.environ.get("BROKERKM_REWRAPS", "4"))
GROUPS = 3


@pytest.fixture
def opened(database: str) -> Generator[Callable[..., PostgresStore]]:
    """Return what opens the same store once more, as another server does."""
    with ExitStack() as stack:

        def reopen(key: bytes | Callable[[], bytes], following: bytes | None = None) -> PostgresStore:
            next_key = None if following is None else lambda: following
            return stack.enter_context(closing(PostgresStore(database, key, next_key=next_key)))

        yield reopen


@pytest.mark.parametrize("deep", [False, True])
def test_the_others_go_on_with_the_next_key(opened: Callable[..., PostgresStore], *, deep: bool) -> None:
    """A server that knows where the next key is goes on at once; one that does not says so until it does."""
    first, second = opened(OLD), opened(OLD, NEW)
    keys = [OLD]
    third = opened(lambda: keys[-1])
    planted, other = Planted(second, members=300), Planted(third, "depot", members=300)
    letter = Letter(to_server("b"), "call", b"{}", "a", 7)
    first.rewrap(NEW, deep=deep)
    planted.evict("m1")
    with pytest.raises(StoreError, match="not the store key"):
        third.groups()
    with pytest.raises(StoreError, match="not the store key"):
        other.evict("m1")
    keys.append(NEW)
    assert 2 == len(third.groups())
    other.commit()
    PostgresMailbox(first).post([letter])
    assert [letter] == PostgresMailbox(third).take([letter.receiver])
    assert [] == opened(NEW).verify()


def test_nothing_is_torn_between_two_keys(opened: Callable[..., PostgresStore]) -> None:
    """Commits and new groups of other servers, while everything is sealed anew, are all there under the newest key."""
    first, second, third = opened(OLD), opened(OLD), opened(OLD)
    planted = Planted(second, members=300)
    stop, failures = threading.Event(), list[StoreError]()
    evicted, made = iter(range(300)), iter(range(10_000))

    def until_stopped(work: Callable[[], object]) -> None:
        while not stop.is_set():
            try:
                work()
            except StoreError as error:
                failures.append(error)
                return

    works = (
        lambda: planted.evict(f"m{next(evicted)}"),
        lambda: third.create_group(GroupRecord(f"g{next(made)}", SEED, 4), Change()),
    )
    threads = [threading.Thread(target=until_stopped, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for _ in range(ROUNDS):
        first.rewrap(OLD, deep=True)
    stop.set()
    for thread in threads:
        thread.join()
    assert [] == failures
    fresh = opened(OLD)
    assert [] == fresh.verify()
    assert 1 + next(made) == len(fresh.groups())
    assert planted.group.epoch == next(one.epoch for one in fresh.groups() if one.name == "plant")

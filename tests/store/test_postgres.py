"""The store in PostgreSQL: beyond what all stores have in common, broken connections and what is said of them."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest

from brokerkm.errors import StoreError, UsageError
from brokerkm.store import AuditEntry, Change, Document, GroupRecord
from brokerkm.store.postgres import PostgresStore

if TYPE_CHECKING:
    from collections.abc import Generator

    from databases.postgresql import Postgres


@pytest.fixture
def store(database: str) -> Generator[PostgresStore]:
    """Open a store that holds the group g."""
    opened = PostgresStore(database, bytes(32), 1.0)
    opened.create_group(GroupRecord("g", bytes(32), 4), Change())
    yield opened
    opened.close()


def test_what_is_stored_survives_a_crash_of_the_database(postgres: Postgres, store: PostgresStore) -> None:
    """All that a call has stored is there after the database lost power, and the store goes on by itself."""
    store.write("g", Change(documents=[Document("rule", "r", b"1")]))
    postgres.crash_and_restart()
    assert b"1" == store.documents("g", "rule")[0].body


def test_cut_connections_are_replaced_unnoticed(postgres: Postgres, store: PostgresStore) -> None:
    """A connection that was cut while nobody used it costs no call."""
    assert postgres.cut_connections() > 0
    assert ["g"] == [group.name for group in store.groups()]
    postgres.cut_connections()
    store.write("g", Change(documents=[Document("rule", "r", b"1")]))


def test_a_database_that_is_down_is_told_once(
    postgres: Postgres, store: PostgresStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls fail as long as the database is down; the log has one line for that, and one when it is back."""
    postgres.process.stop()
    try:
        with caplog.at_level(logging.INFO):
            for _ in range(3):
                with pytest.raises(StoreError, match="nothing has changed"):
                    store.groups()
    finally:
        postgres.process.start()
    with caplog.at_level(logging.INFO):
        assert 1 == len(store.groups())
    gone, back = caplog.messages
    assert "is gone" in gone
    assert "is back" in back
    assert "not-a-secret" not in caplog.text


def test_the_password_is_in_no_error(postgres: Postgres) -> None:
    """Neither a wrong password nor a URL that is none shows up in what is raised."""
    for url in (postgres.url("nowhere"), postgres.url("postgres").replace("not-a-secret", "wrong-secret"), "%%secret"):
        with pytest.raises((StoreError, UsageError)) as caught:
            PostgresStore(url, bytes(32))
        assert "secret" not in str(caught.value)


def test_a_paused_transaction_is_undone(store: PostgresStore) -> None:
    """One that does nothing for longer than a lease lets go of its group, and changes nothing."""

    def pause() -> None:
        with store.engine.pool.connect() as waiter, store.engine.transaction() as session:
            session.change("UPDATE groups SET time = 5 WHERE name = 'g'")
            waiter.execute("SELECT 1 FROM groups WHERE name = 'g' FOR UPDATE")  # returns when the other one has gone
            session.change("UPDATE groups SET time = 6 WHERE name = 'g'")

    with pytest.raises(StoreError):
        pause()
    assert 0 == store.groups()[0].time


def test_the_audit_log_refuses_changes(store: PostgresStore) -> None:
    """The database itself refuses to change, delete or truncate entries."""
    store.write("g", Change(audit=[AuditEntry(1, "server", "test", "g")]))
    for statement in ("UPDATE audit SET number = 2", "DELETE FROM audit", "TRUNCATE audit"):
        with pytest.raises(StoreError, match="can only be added to"), store.engine.transaction() as session:
            session.change(statement)


def test_a_newer_database_is_refused(database: str) -> None:
    """A program that is too old for the tables does not touch them."""
    PostgresStore(database, bytes(32)).close()
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE brokerkm SET version = 99")
    with pytest.raises(StoreError, match="install a newer one"):
        PostgresStore(database, bytes(32))


def test_without_psycopg_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing driver is named with the command that brings it."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"pip install 'brokerkm\[postgres\]'"):
        PostgresStore("postgresql://127.0.0.1/none", bytes(32))

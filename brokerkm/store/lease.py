"""Leases: which server leads which group, decided by the database and its clock alone.

A lease has a number, the fence, that grows with each acquisition and is written into the group's row. Every change
of a group names its fence and is refused if it is not the stored one, so a server that has been paused, or whose clock
is slow, changes nothing after another one has taken over. The holder counts the lease on a clock of its own from
*before* it asked for it, so that it ends there first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from brokerkm.clock import boot_time
from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

    from brokerkm.store.postgres import PostgresEngine, PostgresSession

DURATION: Final = 10.0  # seconds; a group of a dead server is led again within twice that
CHANNEL: Final = "brokerkm"  # of NOTIFY: who leads what has changed, or there is mail
_FORGET: Final = 100  # leases after which a server that was not heard of is forgotten

TABLES: Final = (
    """CREATE TABLE servers (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    url TEXT NOT NULL,
    since TIMESTAMPTZ NOT NULL,
    seen TIMESTAMPTZ NOT NULL
)""",
    # holder: NULL if it has been released. wanted: who is to be the next. pinned: an operator said so.
    """CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder TEXT,
    fence BIGINT NOT NULL,
    until TIMESTAMPTZ NOT NULL,
    wanted TEXT,
    pinned BOOLEAN NOT NULL
)""",
)


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """A key server.

    Args:
        id: of this process, not of its host.
        url: where its API is reached, or empty.
        since, seen: when it came, and its last sign of life; milliseconds since 1970, the database's clock.
        live: whether that is less than a lease ago.
        groups: those that it leads.
    """

    id: str
    host: str = ""
    version: str = ""
    url: str = ""
    since: int = 0
    seen: int = 0
    live: bool = True
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to lead a group.

    Args:
        fence: for `brokerkm.store.records.Change`.
        ends: on the holder's `boot_time`.
        former: who had it last and did not give it back; empty if there is no such server.
    """

    group: str
    fence: int
    ends: float
    former: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with the lease of a group.

    Args:
        holder: who has it; None if nobody does.
        remaining: seconds until it ends; below 0 since when it has ended.
        wanted: who is to be the next.
        pinned: an operator said so.
    """

    group: str
    holder: str | None
    remaining: float
    wanted: str | None
    pinned: bool


class Leases(Protocol):
    """The leases of all groups, as one server uses them. Calls block, and raise `StoreError`."""

    duration: float

    def heartbeat(self, server: ServerRecord) -> None:
        """Note that a server is alive."""

    def farewell(self, server: str) -> None:
        """Forget a server, which leads nothing any more."""

    def servers(self) -> list[ServerRecord]:
        """Return all servers that were heard of lately, by id."""
        ...

    def standings(self) -> list[Standing]:
        """Return how it stands with each group, by name."""
        ...

    def acquire(self, server: str, group: str) -> Lease | None:
        """Return the lease of a group that nobody leads; None if somebody does, or is still writing."""
        ...

    def renew(self, server: str, groups: Collection[str]) -> set[str]:
        """Lengthen the leases that a server has of `groups`; return which of them it still has."""
        ...

    def release(self, server: str, group: str) -> None:
        """Give a lease back before its end."""

    def move(self, group: str, to: str, *, pinned: bool) -> None:
        """Ask the holder of a group to hand it over; if `pinned`, the group stays there."""


class PostgresLeases:
    """`Leases` in the database of a `PostgresStore`; its connections are the store's."""

    def __init__(self, engine: PostgresEngine, duration: float = DURATION) -> None:
        self._engine: Final = engine
        self.duration: Final = duration

    def heartbeat(self, server: ServerRecord) -> None:
        """Note that a server is alive."""
        with self._engine.transaction() as session:
            session.change(
                """INSERT INTO servers (id, host, version, url, since, seen)
                VALUES (?, ?, ?, ?, clock_timestamp(), clock_timestamp())
                ON CONFLICT (id) DO UPDATE SET seen = clock_timestamp(), url = excluded.url""",
                *(server.id, server.host, server.version, server.url),
            )
            old = "DELETE FROM servers WHERE seen < clock_timestamp() - ? * interval '1 second'"
            session.change(old, _FORGET * self.duration)

    def farewell(self, server: str) -> None:
        """Forget a server."""
        with self._engine.transaction() as session:
            session.change("DELETE FROM servers WHERE id = ?", server)
            _tell(session)

    def servers(self) -> list[ServerRecord]:
        """Return all servers that were heard of lately."""
        with self._engine.reading() as session:
            found = session.rows(
                """SELECT s.id, host, version, url, (extract(epoch FROM since) * 1000)::bigint,
                (extract(epoch FROM seen) * 1000)::bigint, seen > clock_timestamp() - ? * interval '1 second',
                array(SELECT l.name FROM leases l JOIN groups USING (name)
                      WHERE holder = s.id AND until > clock_timestamp() ORDER BY l.name)
                FROM servers s ORDER BY s.id""",
                self.duration,
            )
            return [_server(row) for row in found]

    def standings(self) -> list[Standing]:
        """Return how it stands with each group."""
        with self._engine.reading() as session:
            found = session.rows(
                """SELECT g.name, CASE WHEN until > clock_timestamp() THEN holder END,
                coalesce(extract(epoch FROM until - clock_timestamp()), 0)::float8, wanted, coalesce(pinned, false)
                FROM groups g LEFT JOIN leases l ON l.name = g.name ORDER BY g.name"""
            )
            return [Standing(*row) for row in found]

    def acquire(self, server: str, group: str) -> Lease | None:
        """Return the lease of a group that nobody leads."""
        asked = boot_time()
        with self._engine.transaction() as session:
            _ensure(session, group)
            query = (
                "SELECT holder FROM leases WHERE name = ? AND (holder IS NULL OR until < clock_timestamp()) FOR UPDATE"
            )
            free = next(session.rows(query, group), None)
            if free is None or not _is_idle(session, group):
                return None
            ((fence,),) = session.rows(
                """UPDATE leases SET holder = ?, fence = fence + 1, pinned = pinned AND wanted = ?,
                until = clock_timestamp() + ? * interval '1 second', wanted = CASE WHEN pinned AND wanted = ? THEN ? END
                WHERE name = ? RETURNING fence""",
                *(server, server, self.duration, server, server, group),
            )
            session.change("UPDATE groups SET fence = ? WHERE name = ?", fence, group)
            _tell(session)
        former = free[0] or ""
        return Lease(group, fence, asked + self.duration, "" if former == server else former)

    def renew(self, server: str, groups: Collection[str]) -> set[str]:
        """Lengthen leases; one that has ended can be, as long as nobody else has taken it."""
        with self._engine.transaction() as session:
            found = session.rows(
                """UPDATE leases SET until = clock_timestamp() + ? * interval '1 second'
                WHERE holder = ? AND name = ANY(?) RETURNING name""",
                *(self.duration, server, list(groups)),
            )
            return {name for (name,) in found}

    def release(self, server: str, group: str) -> None:
        """Give a lease back."""
        with self._engine.transaction() as session:
            session.change(
                "UPDATE leases SET holder = NULL, until = clock_timestamp() WHERE name = ? AND holder = ?",
                *(group, server),
            )
            _tell(session)

    def move(self, group: str, to: str, *, pinned: bool) -> None:
        """Ask the holder of a group to hand it over."""
        with self._engine.transaction() as session:
            alive = "SELECT 1 FROM servers WHERE id = ? AND seen > clock_timestamp() - ? * interval '1 second'"
            if next(session.rows(alive, to, self.duration), None) is None:
                message = f"there is no server {to[:80]!r} running: `brokerkm server list` shows which are"
                raise UsageError(message)
            if next(session.rows("SELECT 1 FROM groups WHERE name = ?", group), None) is None:
                message = f"there is no group {group[:80]!r}"
                raise UsageError(message)
            _ensure(session, group)
            session.change("UPDATE leases SET wanted = ?, pinned = ? WHERE name = ?", to, pinned, group)
            _tell(session)


def _server(row: tuple[Any, ...]) -> ServerRecord:
    name, host, version, url, since, seen, live, groups = row
    return ServerRecord(name, host, version, url, since, seen, live, tuple(groups))


def _is_idle(session: PostgresSession, group: str) -> bool:
    """Lock a group's row, unless whoever led it before is still writing: what that was has to be known first."""
    skipping = "SELECT 1 FROM groups WHERE name = ? FOR UPDATE SKIP LOCKED"
    return next(session.rows(skipping, group), None) is not None


def _ensure(session: PostgresSession, group: str) -> None:
    """Have a row for the lease of a group."""
    row = "INSERT INTO leases (name, fence, until, pinned) VALUES (?, 0, clock_timestamp(), false)"
    session.change(f"{row} ON CONFLICT DO NOTHING", group)


def _tell(session: PostgresSession) -> None:
    """Wake the servers when this transaction is stored."""
    session.change("SELECT pg_notify(?, 'leases')", CHANNEL)

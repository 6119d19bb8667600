"""Mail between servers: what reached one that does not lead the group, on its way to the one that does.

A letter is taken once, and at most once: it is deleted by who takes it. It does not outlive a crash of the database
(an unlogged table costs no fsync), nor a minute. Bodies are sealed under the store's data key: an answer may
hold the secret of a new token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.store.lease import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from brokerkm.store.postgres import PostgresStore

LIMIT: Final = 10_000  # letters that wait for one receiver
AT_ONCE: Final = 256  # letters taken at a time
LIFETIME: Final = 60.0  # seconds
_SCOPE: Final = "mail"

TABLES: Final = (
    """CREATE UNLOGGED TABLE mail (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    receiver TEXT NOT NULL,
    kind TEXT NOT NULL,
    body BYTEA NOT NULL,
    sender TEXT NOT NULL,
    reference BIGINT NOT NULL,
    created TIMESTAMPTZ NOT NULL
)""",
    "CREATE INDEX mail_by_receiver ON mail (receiver, id)",
)


class Letter(NamedTuple):
    """One letter.

    Args:
        receiver: `to_leader` of a group or `to_server` of a server.
        kind: a word that says what the body is.
        sender: id of the server that sent it.
        reference: number by which the sender knows the answer; 0 if none is expected.
    """

    receiver: str
    kind: str
    body: bytes
    sender: str
    reference: int = 0


def _where(letter: Letter) -> tuple[object, ...]:
    return letter.receiver, letter.kind, letter.sender, letter.reference


def to_leader(group: str) -> str:
    """Return the receiver's name for whoever leads a group."""
    return f"group {group}"


def to_server(server: str) -> str:
    """Return the receiver's name for one server."""
    return f"server {server}"


class PostgresMailbox:
    """The mail in the database of a `PostgresStore`. Calls block, and raise `StoreError`."""

    def __init__(self, store: PostgresStore) -> None:
        self._store: Final = store
        self._engine: Final = store.engine

    def post(self, letters: Sequence[Letter]) -> int:
        """Send letters and wake their receivers; return how many, those for a full box not among them."""
        sent = 0
        with self._engine.transaction() as session:
            session.change("SET LOCAL synchronous_commit = off")
            for receiver in {letter.receiver for letter in letters}:
                ((waiting,),) = session.rows("SELECT count(*) FROM mail WHERE receiver = ?", receiver)
                box = self._store.box(session, _SCOPE)
                mine = [letter for letter in letters if letter.receiver == receiver][: max(0, LIMIT - waiting)]
                session.many(
                    """INSERT INTO mail (receiver, kind, body, sender, reference, created)
                    VALUES (?, ?, ?, ?, ?, clock_timestamp())""",
                    ((*one[:2], box.seal(one.body, *_where(one)), *one[3:]) for one in mine),
                )
                session.change("SELECT pg_notify(?, ?)", CHANNEL, receiver)
                sent += len(mine)
        return sent

    def take(self, receivers: Collection[str]) -> list[Letter]:
        """Take up to `AT_ONCE` letters for `receivers`, oldest first; those that are too old are thrown away."""
        with self._engine.transaction() as session:
            session.change("SET LOCAL synchronous_commit = off")
            found = session.rows(
                """DELETE FROM mail WHERE id IN (
                    SELECT id FROM mail WHERE receiver = ANY(?) ORDER BY id LIMIT ? FOR UPDATE SKIP LOCKED)
                RETURNING id, created > clock_timestamp() - ? * interval '1 second',
                    receiver, kind, body, sender, reference""",
                *(list(receivers), AT_ONCE, LIFETIME),
            )
            letters = [Letter(*letter) for _, fresh, *letter in sorted(found) if fresh]
            box = self._store.box(session, _SCOPE)
            opened = [(letter, box.open(letter.body, *_where(letter))) for letter in letters]
            return [letter._replace(body=body) for letter, body in opened if body is not None]

    def clean(self) -> None:
        """Throw away what nobody has taken in time."""
        with self._engine.transaction() as session:
            old = "DELETE FROM mail WHERE created < clock_timestamp() - ? * interval '1 second'"
            session.change(old, LIFETIME)

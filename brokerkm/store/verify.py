"""Whether what a store holds fits together: what `brokerkm store verify` looks at.

Nothing is changed. A finding is something that the server would stumble over, or that somebody has altered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.core.tree import KeyTree
from brokerkm.errors import StoreError
from brokerkm.store import audit, rows, statements
from brokerkm.store.records import Finding, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brokerkm.store.engine import Reading, Session
    from brokerkm.store.protocol import Progress
    from brokerkm.store.sealing import Seals

_MOST: Final = 100  # findings of one kind in one group; more say no more
_BATCH: Final = 1000  # audit entries that are read at a time


def verify(engine: Reading, seals: Seals, progress: Progress) -> list[Finding]:
    """Return what is wrong.

    Args:
        progress: called with the number of groups that are done, and of all.
    """
    findings = list(_told("", engine.findings()))
    try:
        with engine.reading() as session:
            findings += _check_all(session, seals, progress)
    except StoreError as error:
        findings.append(Finding("", str(error)))
    return findings


def _told(group: str, findings: Iterator[str]) -> Iterator[Finding]:
    """Yield findings about a group; what keeps us from looking further is one too."""
    try:
        for what in findings:
            yield Finding(group, what)
    except StoreError as error:
        yield Finding(group, str(error))


def _check_all(session: Session, seals: Seals, progress: Progress) -> Iterator[Finding]:
    names = [name for (name,) in session.rows("SELECT name FROM groups ORDER BY name")]
    for done, name in enumerate(names):
        progress(done, len(names))
        yield from _told(name, _check_group(session, seals, name))
    for (chain,) in list(session.rows("SELECT chain FROM chains ORDER BY chain")):
        yield from _told(chain, _check_chain(session, chain))
    stray = session.rows("SELECT DISTINCT chain FROM audit WHERE chain NOT IN (SELECT chain FROM chains)")
    yield from (Finding(chain, "its audit log has entries, but no head") for (chain,) in stray)
    progress(len(names), len(names))


def _check_group(session: Session, seals: Seals, name: str) -> Iterator[str]:
    number = statements.group_id(session, name)
    yield from _check_secrets(session, seals, name)
    query = f"SELECT {rows.GROUP} FROM groups WHERE id = ?"  # noqa: S608 - constants
    record = rows.group(next(session.rows(query, number)), seals.vault(session))
    tree = KeyTree.load(record.degree, record.height, seals.load(session, name))
    yield from _check_seats(session, number, tree)
    query = "SELECT count(*) FROM outbox WHERE group_id = ? AND sequence > (SELECT sequence FROM groups WHERE id = ?)"
    if late := statements.one(session, query, number, number):
        yield f"{late} messages of the outbox are newer than the newest"
    query = "SELECT count(*) FROM pages WHERE group_id = ? AND (level > ? OR level < 0)"
    if extra := statements.one(session, query, number, record.height):
        yield f"{extra} pages are of levels that its tree does not have"


def _check_secrets(session: Session, seals: Seals, name: str) -> Iterator[str]:
    number = statements.group_id(session, name)
    vault, uid = seals.vault(session), statements.uid(session, number)
    for token_id, sealed in session.rows("SELECT id, key FROM tokens WHERE group_id = ?", number):
        try:
            rows.open_token_key(vault, uid, token_id, sealed)
        except StoreError as error:
            yield str(error)


def _check_seats(session: Session, number: int, tree: KeyTree) -> Iterator[str]:
    """Compare the members with the leaves: each leaf with a key has one member, each seated member a leaf."""
    births, found = tree.levels[0].births, 0
    wrong: list[str] = []
    query = "SELECT member, slot, status FROM members WHERE group_id = ? AND (slot IS NOT NULL OR status = ?)"
    for member, slot, status in session.rows(query, number, int(Status.SEATED)):
        if slot is None or status != Status.SEATED:
            wrong.append(f"{member} has a seat, or not: its slot is {slot}, its status {Status(status).name.lower()}")
        elif slot >= len(births) or not births[slot]:
            wrong.append(f"{member} sits at slot {slot}, which has no key")
        else:
            found += 1
    yield from wrong[:_MOST]
    keys = sum(1 for birth in births if birth)
    if keys != found:
        yield f"{keys} leaves have keys, but {found} members sit at them: {keys - found} keys belong to nobody"


def _check_chain(session: Session, chain: str) -> Iterator[str]:
    ((count, head),) = session.rows("SELECT number, hash FROM chains WHERE chain = ?", chain)
    number, last = 0, audit.FIRST
    query = "SELECT number, entry, hash FROM audit WHERE chain = ? AND number > ? ORDER BY number LIMIT ?"
    while some := list(session.rows(query, chain, number, _BATCH)):
        for at, text, link in some:
            last = audit.link(last, text)
            if at != number + 1 or link != last:
                yield f"its audit log is not what was written: entry {number + 1} does not fit"
                return
            number = at
    if (number, last) != (count, bytes(head)):
        yield f"its audit log ends with entry {number}, but {count} were written"

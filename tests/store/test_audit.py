"""The hash chain of the audit log, by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from brokerkm.errors import StoreError
from brokerkm.store import AuditEntry, AuditRecord, audit

ENTRIES = [AuditEntry(at, "operator:ann", "evict", f"m{at}", {"epoch": at}) for at in range(1, 5)]


def chain() -> list[AuditRecord]:
    """Return four entries as they are stored."""
    linked = audit.extend("g", 0, audit.FIRST, ENTRIES)
    return [AuditRecord(number, audit.decode(text), link) for number, text, link in linked]


def test_a_whole_chain_is_whole() -> None:
    """The last entry is what the next one follows; a part can be checked from where it begins."""
    records = chain()
    assert ENTRIES == [record.entry for record in records]
    assert records[-1] == audit.check("g", records)
    assert records[-1] == audit.check("g", records[2:], 2, records[1].hash)
    assert audit.check("g", []) is None


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_changed_entry_is_named(at: int) -> None:
    """Whatever of it has changed."""
    records = chain()
    entry = records[at].entry
    for changed in (
        replace(entry, time=9),
        replace(entry, actor="operator:eve"),
        replace(entry, action="seat"),
        replace(entry, subject="m9"),
        replace(entry, details={"epoch": 9}),
    ):
        records[at] = replace(records[at], entry=changed)
        with pytest.raises(StoreError, match=f"the audit log of g is not what was written: entry {at + 1} does not"):
            audit.check("g", records)


def test_entries_cannot_be_dropped_swapped_or_taken_elsewhere() -> None:
    """Each has its number and its chain in its hash."""
    records = chain()
    for others in (records[1:], [records[1], records[0]], records[:1] + records[2:]):
        with pytest.raises(StoreError, match="is not what was written"):
            audit.check("g", others)
    with pytest.raises(StoreError, match="the audit log of the server is not"):
        audit.check("", records)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"time": "soon", "actor": 1}'])
def test_a_damaged_entry_is_an_error(text: str) -> None:
    """It says how to find which."""
    with pytest.raises(StoreError, match="an audit entry is damaged"):
        audit.decode(text)

"""The audit log's hash chain: what an entry's hash covers, and whether a chain is whole. No I/O.

hash(n) = SHA-256(hash(n - 1) || canonical JSON of entry n with its chain and number); hash(0) is 32 zero bytes.
Whoever changes, drops, adds or moves an entry has to replace every later hash, and does not get the same last one.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from brokerkm.errors import StoreError
from brokerkm.store.records import AuditEntry, AuditRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FIRST: Final = bytes(32)
"""What the first entry of a chain follows."""


def encode(chain: str, number: int, entry: AuditEntry) -> str:
    """Return the canonical JSON of an entry: sorted keys, no white space."""
    fields = {
        "action": entry.action,
        "actor": entry.actor,
        "chain": chain,
        "details": dict(entry.details),
        "number": number,
        "subject": entry.subject,
        "time": entry.time,
    }
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def decode(text: str) -> AuditEntry:
    """Return the entry in canonical JSON; raises `StoreError`."""
    try:
        fields: dict[str, Any] = json.loads(text)
        return AuditEntry(
            int(fields["time"]),
            str(fields["actor"]),
            str(fields["action"]),
            str(fields["subject"]),
            dict(fields["details"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        message = f"an audit entry is damaged: {error!r}; `audit verify` finds which"
        raise StoreError(message) from error


def link(previous: bytes, text: str) -> bytes:
    """Return the hash of the entry with this JSON after the one with hash `previous`."""
    return hashlib.sha256(previous + text.encode()).digest()


def extend(chain: str, number: int, previous: bytes, entries: Iterable[AuditEntry]) -> Iterator[tuple[int, str, bytes]]:
    """Yield (number, JSON, hash) of `entries`, which follow entry `number` with hash `previous`."""
    for following, entry in enumerate(entries, number + 1):
        text = encode(chain, following, entry)
        previous = link(previous, text)
        yield following, text, previous


def check(chain: str, records: Iterable[AuditRecord], number: int = 0, previous: bytes = FIRST) -> AuditRecord | None:
    """Return the last of `records`, which follow entry `number` with hash `previous`.

    Raises:
        StoreError: the chain is broken; it names the first entry that does not fit.
    """
    last = None
    for record in records:
        number += 1
        previous = link(previous, encode(chain, number, record.entry))
        if record.number != number or record.hash != previous:
            message = f"the audit log of {chain or 'the server'} is not what was written: entry {number} does not fit"
            raise StoreError(message)
        last = record
    return last

"""What the key server keeps: the `Store` Protocol and its implementations.

A store remembers; it decides nothing. The one rule that it enforces itself is that an epoch follows the one
before it, so that no mistake above it can use an epoch twice.
"""

from brokerkm.store.memory import MemoryStore
from brokerkm.store.protocol import Store
from brokerkm.store.records import (
    AuditEntry,
    AuditRecord,
    Change,
    Document,
    Finding,
    GroupRecord,
    KeyChange,
    MemberRecord,
    OutboxMessage,
    Settings,
    Sighting,
    Status,
    TokenRecord,
)
from brokerkm.store.sqlite import SqliteStore

__all__ = [
    "AuditEntry",
    "AuditRecord",
    "Change",
    "Document",
    "Finding",
    "GroupRecord",
    "KeyChange",
    "MemberRecord",
    "MemoryStore",
    "OutboxMessage",
    "Settings",
    "Sighting",
    "SqliteStore",
    "Status",
    "Store",
    "TokenRecord",
]

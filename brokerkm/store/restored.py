"""The mark of a restored store: on each of its groups, until it is known whether the group has gone on since.

Whether it has, the broker shows by its retained Beacon; but a broker may have lost that too. So an absent Beacon, which
otherwise means that nothing was published or that the broker has lost it, does not let a marked group go on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from brokerkm.errors import StoreError
from brokerkm.store.records import AuditEntry, Change, Document

if TYPE_CHECKING:
    from brokerkm.store.protocol import Store

KIND: Final = "restored"  # of the document
NAME: Final = ""
DROP: Final = ((KIND, NAME),)  # `Change.dropped`, for who knows


def mark(store: Store, now: int, actor: str) -> None:
    """Mark all groups of a store that has just been made of a backup, ms since 1970; raises `StoreError`."""
    for record in store.groups():
        body = json.dumps({"epoch": record.epoch}).encode()
        entry = AuditEntry(now, actor, "restore", record.name, {"epoch": record.epoch})
        store.write(record.name, Change(documents=[Document(KIND, NAME, body, now)], audit=[entry]))


def marked(store: Store, group: str) -> int | None:
    """Return the epoch at which a group was restored, if it is marked; raises `StoreError`."""
    document = store.document(group, KIND, NAME)
    if document is None:
        return None
    try:
        return int(json.loads(document.body)["epoch"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"group {group}: the mark that its store was restored is damaged: restore the backup again"
        raise StoreError(message) from error

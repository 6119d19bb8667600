"""What a rule remembers from run to run. Stored in the transaction of what it did, so that nothing is done twice."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from brokerkm.errors import StoreError
from brokerkm.store.records import Document

MEMORY: Final = "rule-state"
"""The kind of its document; its name is the rule's."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The past of one rule; times are milliseconds since 1970, 0 for never.

    Args:
        ran: the due time of the last run.
        after: the last member that an unfinished run has dealt with; "" if none is unfinished.
        armed: whether a rule on a count may fire.
        listening: since when silence could have been noticed, without a long break.
        checked: when silence was looked for last.
        day, evicted: how many members the rule has evicted on that day.
        outcome: of the last run, in words.
        seen: marks of webhook requests that would be accepted again by their time, with that time.
    """

    ran: int = 0
    after: str = ""
    armed: bool = True
    listening: int = 0
    checked: int = 0
    day: int = 0
    evicted: int = 0
    outcome: str = ""
    seen: tuple[tuple[str, int], ...] = ()

    def document(self, rule: str, now: int) -> Document:
        """Return what is stored."""
        return Document(MEMORY, rule, json.dumps(asdict(self), sort_keys=True).encode(), now)

    @classmethod
    def from_document(cls, document: Document | None) -> Memory:
        """Return what was stored, nothing for a rule that has never run; raises `StoreError`."""
        if document is None:
            return cls()
        try:
            values: dict[str, Any] = json.loads(document.body)
            known = {name: one for name, one in values.items() if name in _NAMES}
            known["seen"] = tuple((str(mark), int(time)) for mark, time in known.get("seen", ()))
            return cls(**known)
        except (ValueError, TypeError, AttributeError) as error:
            message = f"what rule {document.name} remembers is damaged: {error}: remove the rule and add it again"
            raise StoreError(message) from None


_NAMES: Final = frozenset(item.name for item in fields(Memory))

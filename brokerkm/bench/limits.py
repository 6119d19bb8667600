"""What the project holds its core to: the limits that a row of a benchmark is checked against."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from brokerkm.bench.row import Row

MILLION: Final = 1_000_000

_AT_MOST: Final[dict[str, dict[str, float]]] = {
    "evict": {"messages_per_member": 1, "ratio": 1.5},
    "evict a million": {"messages": 28, "mean_bytes": 140},
    "batch": {"messages_per_member": 1, "ratio": 2.5},
    "batch a million": {"mean_bytes": 500},
    "memory a million": {"bytes_per_member_memory": 120},
    "member": {"ratio": 1.5},
    "data": {"ratio": 4},
}
_AT_LEAST: Final[dict[str, dict[str, float]]] = {
    "evict": {"messages_per_member": 1},
    "evict a million": {"flat_times": 12, "pairwise_times": 30_000},
    "batch": {"messages_per_member": 1},
}


def judge(row: Row) -> Row:
    """Return `row` with the limits that apply to it, and whether it keeps them; those of a million are for degree 4."""
    names = [row.case]
    if row.members == MILLION and row.degree == 4:  # noqa: PLR2004 - the default degree, which the limits are for
        names.append(f"{row.case} a million")
    bounds = [(field, "≤", bound) for name in names for field, bound in _AT_MOST.get(name, {}).items()]
    bounds += [(field, "≥", bound) for name in names for field, bound in _AT_LEAST.get(name, {}).items()]
    broken = [
        f"{field} {sign} {bound:g}"
        for field, sign, bound in bounds
        if (getattr(row, field) - bound) * (1 if sign == "≤" else -1) > 0
    ]
    text = ", ".join(dict.fromkeys(f"{field} {sign} {bound:g}" for field, sign, bound in bounds))
    return dataclasses.replace(row, limit=text, holds=not broken)

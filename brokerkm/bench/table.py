"""Rows of a benchmark as lines of a table, 120 columns wide; a column that does not apply stays empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.bench.row import Row


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _one_digit(value: float) -> str:
    return f"{value:,.1f}"


def _seconds(value: float) -> str:
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if value * scale >= 1:
            return f"{value * scale:.3g} {unit}"
    return f"{value * 1e9:.0f} ns"


def _times(value: float) -> str:
    return f"{value:,.0f} x" if value >= 100 else f"{value:.2f} x"  # noqa: PLR2004 - digits enough to judge


_COLUMNS: Final[tuple[tuple[str, str, int, Callable[[float], str]], ...]] = (
    ("members", "members", 9, _count),
    ("messages", "messages", 9, _count),
    ("messages_per_member", "each", 5, _count),
    ("mean_bytes", "mean B", 7, _one_digit),
    ("max_bytes", "max B", 6, _count),
    ("cpu_s", "CPU", 8, _seconds),
    ("floor_s", "floor", 8, _seconds),
    ("ratio", "ratio", 7, _times),
    ("flat_times", "flat/", 8, _times),
    ("pairwise_times", "pairw./", 9, _times),
    ("pairwise_cpu_s", "its CPU", 8, _seconds),
    ("bytes_per_member_memory", "B/member", 8, _one_digit),
)

HEADER: Final = f"{'case':7}" + " ".join(f"{title:>{width}}" for _, title, width, _ in _COLUMNS) + "  limits"


def line(row: Row) -> str:
    """Return `row` as one line under `HEADER`."""
    cells: list[str] = []
    for field, _, width, text in _COLUMNS:
        value = getattr(row, field)
        cells.append(f"{'' if value is None else text(value):>{width}}")
    return f"{row.case:7}" + " ".join(cells) + ("  kept" if row.holds else "  BROKEN")

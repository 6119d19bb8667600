"""One figure of `brokerkm bench server`, with the floor it is compared with and the limit it is held to."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What was measured in one case.

    Args:
        case: the case it belongs to, such as `open` or `evict`.
        what: the figure in a few words.
        value: in `unit`.
        unit: s, bytes, /s, or x for a plain ratio.
        floor: what the hardware, or the bare library, does in the same run; in `unit`. None if there is none.
        floor_what: what the floor is, in a few words.
        at_most, at_least: the limits that the project holds itself to, in `unit`.
    """

    case: str
    what: str
    value: float
    unit: str
    floor: float | None = None
    floor_what: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float | None:
        """The figure as a multiple of its floor."""
        return self.value / self.floor if self.floor else None

    @property
    def holds(self) -> bool:
        """Whether the limits are kept; a figure without a limit always holds."""
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    def as_dict(self) -> dict[str, object]:
        """Return what applies, for JSON."""
        values: dict[str, object] = {
            name: value for name, value in dataclasses.asdict(self).items() if value not in (None, "")
        }
        if self.ratio is not None:
            values["ratio"] = round(self.ratio, 3)
        return values | {"holds": self.holds}

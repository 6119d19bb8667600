"""What this machine measures of itself: load, memory, temperature if there is a sensor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_MEMORY: Final = Path("/proc/meminfo")
_SENSORS: Final = ("/sys/class/thermal/thermal_zone*/temp", "/sys/class/hwmon/hwmon*/temp*_input")  # millidegrees
_PLAUSIBLE: Final = (-40.0, 125.0)  # degrees Celsius; a sensor without a chip says anything


def read(root: Path = Path("/")) -> dict[str, float]:
    """Return load average of a minute, available memory in MiB and, if there is one, the first temperature in degrees.

    Args:
        root: of the file system with /proc and /sys.
    """
    values = {"load": round(os.getloadavg()[0], 2)}
    memory = _available_memory(root / _MEMORY.relative_to("/"))
    if memory is not None:
        values["memory"] = memory
    temperature = _temperature(root)
    if temperature is not None:
        values["celsius"] = temperature
    return values


def describe(values: dict[str, float]) -> str:
    """Return readings for people."""
    texts = {"load": "load {:.2f}", "memory": "{:.0f} MiB free", "celsius": "{:.1f} °C"}
    return ", ".join(text.format(values[name]) for name, text in texts.items() if name in values)


def _available_memory(path: Path) -> float | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return round(int(amount.split()[0]) / 1024)
    return None


def _temperature(root: Path) -> float | None:
    for pattern in _SENSORS:
        for path in sorted(root.glob(pattern[1:])):
            try:
                degrees = int(path.read_text()) / 1000
            except (OSError, ValueError):
                continue
            if _PLAUSIBLE[0] < degrees < _PLAUSIBLE[1]:
                return round(degrees, 1)
    return None

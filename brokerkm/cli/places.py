"""Where programs keep their state if nobody says otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def state_home() -> Path:
    """Return where programs keep their state (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state"


def server_state() -> Path:
    """Return the directory of a key server; systemd names one for its units (systemd.exec(5), StateDirectory=)."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(given) if Path(given).is_absolute() else state_home() / "brokerkm-server"

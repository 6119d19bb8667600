"""What is in the state directory of a key server."""

from __future__ import annotations

from typing import Final

STORE_FILE: Final = "brokerkm.sqlite"
LOCK_FILE: Final = "brokerkm.lock"  # held by the server that runs here
CONTROL_SOCKET: Final = "control.sock"

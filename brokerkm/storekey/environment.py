"""The store key in an environment variable, for containers whose platform knows no better way.

It is removed from the environment once it is read, so that no child process gets it. The kernel still shows it in
/proc/PID/environ to this process's user: a file or a credential is better.
"""

from __future__ import annotations

import os
from typing import Final

from brokerkm.errors import StoreError, UsageError
from brokerkm.storekey.source import parse_key


class EnvironmentKey:
    """The key in the variable `name`; readable once."""

    def __init__(self, name: str) -> None:
        if "=" in name or "\0" in name:
            message = "env: takes the name of a variable, not its value, which others could see"
            raise UsageError(message)
        self._name: Final = name

    def __repr__(self) -> str:
        return f"EnvironmentKey({self._name!r})"

    def read(self) -> bytes:
        """Return the key and remove it from the environment."""
        text = os.environb.pop(self._name.encode(), None)
        if text is None:
            message = f"environment variable {self._name}: it is not set, or was read already: a key is read once"
            raise StoreError(message)
        return parse_key(bytearray(text), f"environment variable {self._name}")

    def create(self) -> None:
        """Refuse: who starts this process sets its environment."""
        message = f"set {self._name} where this process is started, to what `openssl rand -hex 32` prints"
        raise UsageError(message)

"""Keeps the keys in this process's memory out of files: no core dump, and no look into it by other processes.

Root is not kept out, and what is swapped out is the operator's business: encrypt the swap.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def forbid_core_dumps() -> None:
    """Have a crash leave nothing behind, as far as this system can do that."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    with contextlib.suppress(AttributeError, OSError):  # Linux alone has it; a piped dump heeds no limit
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)

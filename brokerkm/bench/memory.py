"""How much memory a group takes in the server: measured in a process of its own, against the same process without it.

Run as a program: `python -m brokerkm.bench.memory MEMBERS DEGREE` prints the resident bytes before and after.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Final

from brokerkm.bench.commits import build_group
from brokerkm.bench.row import Row

_PAGE: Final = 4096  # bytes; /proc counts in them
_DONE: Final = 2  # members of the group that warms up everything but the tree itself


def measure_memory(members: int, degree: int) -> Row:
    """Return the resident memory that a group of `members` adds to a process."""
    command = [sys.executable, "-m", "brokerkm.bench.memory", str(members), str(degree)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - ourselves
    before, after = map(int, printed.split())
    return Row(
        case="memory",
        members=members,
        degree=degree,
        bytes_per_member_memory=round((after - before) / members, 1),
    )


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def _main() -> None:
    members, degree = map(int, sys.argv[1:])
    build_group(_DONE, degree)
    before = _resident()
    group = build_group(members, degree)
    after = _resident()
    if len(group.directory) != members:
        raise AssertionError
    sys.stdout.write(f"{before} {after}\n")


if __name__ == "__main__":
    _main()

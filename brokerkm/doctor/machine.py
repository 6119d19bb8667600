"""The machine: clock, randomness, versions, and where memory may end up on a disk."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import resource
import sqlite3
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from brokerkm.doctor.finding import Finding, ok, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TIMEX_SIZE: Final = 512  # bytes; more than struct timex has anywhere, adjtimex(2)
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronized
_PR_GET_DUMPABLE: Final = 3  # linux/prctl.h
_PACKAGES: Final = ("brokerkm", "cryptography", "paho-mqtt", "pyzmq", "msgpack")
_TYPICAL: Final = (3, 37, 0)  # of SQLite: Debian 12 has 3.40, and nothing older is tested


def look() -> Iterator[Finding]:
    """Yield what is found."""
    yield versions(sqlite3.sqlite_version_info)
    yield clock(_adjtimex())
    yield entropy(getattr(os, "getrandom", None))
    yield core_dumps(resource.getrlimit(resource.RLIMIT_CORE)[0], _dumpable())
    yield swap(_read("/proc/swaps"))


def clock(state: int | None) -> Finding:
    """Return what the kernel says of its clock; requests and beacons carry times, and members refuse old ones."""
    if state is None:
        return warn("clock", "this system does not say whether its clock is synchronized", "see to it that NTP runs")
    if state == _TIME_ERROR:
        text = "the kernel's clock is not synchronized: members refuse beacons, and the server requests, if it is off"
        return warn("clock", text, "run chrony or systemd-timesyncd, here or on the host of this container")
    return ok("clock", "the kernel's clock is synchronized")


def swap(table: str) -> Finding:
    """Return whether the memory of the server may be written to a disk in clear, by /proc/swaps."""
    devices = [line.split()[0] for line in table.splitlines()[1:] if line.strip()]
    exposed = [name for name in devices if not name.startswith(("/dev/zram", "/dev/dm-", "/dev/mapper/"))]
    if exposed:
        text = f"keys in memory may be swapped out to {', '.join(exposed)}"
        return warn("swap", text, "encrypt the swap, or set MemorySwapMax=0 in the unit")
    return ok("swap", "no unencrypted swap is in use")


def versions(sqlite: tuple[int, ...]) -> Finding:
    """Return which versions of what are here, and whether SQLite's is one that brokerkm is tested with."""
    found = [f"Python {platform.python_version()}", f"SQLite {'.'.join(map(str, sqlite))}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} (not installed)")
    try:
        import zmq  # noqa: PLC0415 - may be missing, which is what is looked at

        found.append(f"libzmq {zmq.zmq_version()}")
    except ImportError:
        found.append("libzmq (not installed)")
    if sqlite < _TYPICAL:
        return warn(
            "versions", ", ".join(found), "this SQLite is older than what brokerkm is tested with: take a newer"
        )
    return ok("versions", ", ".join(found))


def entropy(draw: Callable[[int, int], bytes] | None) -> Finding:
    """Return whether the kernel gives randomness without waiting, by getrandom(2)."""
    if draw is None:
        return warn("entropy", "this system does not say whether its randomness is ready", "use a current Linux")
    try:
        draw(32, os.GRND_NONBLOCK)
    except BlockingIOError:
        text = "the kernel has not collected enough randomness yet: the server would wait for it at its start"
        return warn("entropy", text, "give the virtual machine a virtio-rng device, or wait")
    except OSError:
        return warn("entropy", "this system does not say whether its randomness is ready", "use a current Linux")
    return ok("entropy", "the kernel's randomness is ready")


def core_dumps(limit: int, dumpable: int) -> Finding:
    """Return whether a crash of this very program, which forbids it as `serve` does, would leave its memory behind."""
    if limit and dumpable:
        return warn("core dumps", "a crash writes memory, with keys in it, to a file", "set LimitCORE=0 in the unit")
    return ok("core dumps", "a crash of the server leaves no memory behind")


def _dumpable() -> int:
    try:
        return int(ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0))
    except (AttributeError, OSError):
        return 0


def _adjtimex() -> int | None:
    buffer = ctypes.create_string_buffer(_TIMEX_SIZE)  # modes = 0: only ask
    struct.pack_into("i", buffer, 0, 0)
    try:
        state = ctypes.CDLL(None).adjtimex(buffer)
    except (AttributeError, OSError):
        return None
    return None if state < 0 else int(state)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""

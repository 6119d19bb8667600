"""File systems that are small or read-only, as far as this machine lets the tests mount them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


class Disk:
    """A tmpfs of a few megabytes."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def remount(self, mode: str) -> None:
        """Make it read-only, "ro", or writable again, "rw"; nothing on it may be open for writing."""
        subprocess.run(["mount", "-o", f"remount,{mode}", self.place], check=True, capture_output=True)  # noqa: S607 - the system's

    def fill(self) -> Path:
        """Take all space that is left; return the file that has it."""
        ballast = self.place / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)) == 4096:
                pass
        return ballast


@contextlib.contextmanager
def mounted(place: Path, size: str = "4m") -> Generator[Disk | None]:
    """Mount a small disk at `place`; yield None where only somebody with more rights may."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", place]
    tool = shutil.which("mount")
    if tool is None or subprocess.run(command, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", place], check=True, capture_output=True)  # noqa: S607 - the system's

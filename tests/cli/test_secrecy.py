"""What others on the machine, and other members, cannot do to whoever runs a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Machine

PATIENCE = 60.0  # seconds
_DUMPABLE = """
import ctypes, resource
from brokerkm.cli.secrecy import forbid_core_dumps
forbid_core_dumps()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0])
"""


def read_terminal(terminal: int) -> bytes:
    """Return all that was written to a terminal until its last user has closed it."""
    shown = b""
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:  # how Linux says that the other side is closed
        pass
    return shown


def test_message_gives_no_orders_to_the_terminal(site: Machine) -> None:
    """Escape sequences that a member sends are spelled out on a terminal; a file gets them as they are."""
    site.run("pub", "-i", "two", "-t", "evil/now", "-m", "ready\x1b]0;owned\x07\x9b2J\tend", "--retain")
    terminal, other = os.openpty()
    command = [sys.executable, "-m", "brokerkm", "sub", "-i", "one", "-t", "evil/#", "-C", "1", "-v"]
    done = subprocess.Popen(command, cwd=site.home, env=site.environment, stdout=other)
    os.close(other)
    shown = read_terminal(terminal)
    os.close(terminal)
    assert 0 == done.wait(PATIENCE)
    assert b"evil/now ready\\x1b]0;owned\\x07\\x9b2J\tend\r\n" == shown
    assert "ready\x1b]0;owned\x07" in site.run("sub", "-i", "two", "-t", "evil/#", "-C", "1")


def test_crash_leaves_no_keys_behind(site: Machine) -> None:
    """No core dump is written, nor piped to another program, of a process that may hold keys."""
    found = subprocess.run([sys.executable, "-c", _DUMPABLE], capture_output=True, text=True, check=True)
    assert "0 0\n" == found.stdout
    site.run("pub", "-i", "two", "-t", "ready/core", "-m", "ready", "--retain")
    sub = site.start("sub", "-i", "one", "-t", "ready/#")
    assert sub.stdout is not None
    assert "ready" in sub.stdout.readline()
    limits = Path(f"/proc/{sub.pid}/limits").read_text(encoding="ascii").splitlines()
    assert ["0"] == [line.split()[4] for line in limits if line.startswith("Max core file size")]
    sub.terminate()
    sub.communicate(timeout=PATIENCE)

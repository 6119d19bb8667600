"""A whole key server, as a process, on a disk that is full, and on one that cannot be written."""

from __future__ import annotations

import contextlib
import json
import resource
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from brokers.process import free_port
from cli.conftest import Machine
from store.disks import Disk, mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 30.0  # seconds


class Site:
    """A machine whose key server keeps its state on a small disk.

    Args:
        disk: None where none can be mounted; the server is then limited in the size of its files instead.
    """

    def __init__(self, machine: Machine, disk: Disk | None, state: Path) -> None:
        self.machine = machine
        self.disk = disk
        self.state = state
        self.metrics = free_port()
        file = machine.home / "brokerkm.toml"
        file.write_text(f'[broker]\nport = 0\n[telemetry]\nlisten = "{self.metrics}"\n')
        self.server = machine.serve("--config", str(file), "--state", str(state), "--interval", "0.05")
        self._ballast: Path | None = None

    def run(self, *arguments: str, status: int = 0) -> str:
        """Return what an administrator's command printed."""
        return self.machine.run(*arguments, "--state", str(self.state), status=status)

    @property
    def epoch(self) -> int:
        """Where the group is."""
        found: int = json.loads(self.run("group", "show", "--json"))["epoch"]
        return found

    def ready(self) -> tuple[int, str]:
        """Return what a load balancer or an operator is told."""
        url = f"http://127.0.0.1:{self.metrics}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def fill(self) -> None:
        """Leave the server no room."""
        if self.disk is not None:
            self._ballast = self.disk.fill()
        else:
            self._limit(4096)

    def make_room(self) -> None:
        """Undo `fill`."""
        if self._ballast is not None:
            self._ballast.unlink()
        else:
            self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give a site whose server is not running yet."""
    with mounted(tmp_path / "d", "8m") as disk, contextlib.ExitStack() as stack:
        machine = Machine(tmp_path)
        stack.callback(machine.clean)
        site = Site(machine, disk, tmp_path / "d" / "s")
        stack.callback(site.server.stop)
        yield site


def test_a_full_disk(site: Site) -> None:
    """It refuses what it cannot store and says why, keeps what it has, goes on when there is room: no epoch twice."""
    site.server.start()
    site.run("group", "rotate")
    before = site.epoch
    assert 200 == site.ready()[0]
    site.fill()
    refused, seen = "", {before}
    for _ in range(2000):  # a little room may be left in the file itself
        refused = _rotate(site)
        if refused:
            break
        seen.add(site.epoch)
    assert "disk" in refused, "the disk never got full"
    last = max(seen)
    assert last == site.epoch, "what was stored can be read on a full disk"
    status, text = site.ready()
    assert (503, True) == (status, "disk" in text)
    site.make_room()
    site.run("group", "rotate")
    assert last < site.epoch
    assert 200 == site.ready()[0]
    site.server.restart()
    assert last < site.epoch, "a restart begins where the disk was full"


def _rotate(site: Site) -> str:
    """Return what is said of a rotation that fails, nothing if it does not."""
    try:
        site.run("group", "rotate")
    except AssertionError:
        return site.run("group", "rotate", status=1)
    return ""


def test_a_disk_that_cannot_be_written(site: Site) -> None:
    """A server that cannot write does not start, and says what is wrong; later it begins where it was."""
    if site.disk is None:
        pytest.skip("nothing can be mounted here; tests/store/test_disk.py limits SQLite itself")
    site.server.start()
    site.run("group", "rotate")
    before = site.epoch
    site.server.stop()
    site.disk.remount("ro")
    said = site.machine.run("serve", "--port", "0", "--state", str(site.state), status=1)
    assert "cannot be written" in said or "read-only" in said.lower()
    site.disk.remount("rw")
    site.server.start()
    assert before == site.epoch
    site.run("group", "rotate")
    assert before < site.epoch

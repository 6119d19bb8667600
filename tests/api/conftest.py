"""Fixtures of the API's tests: a key server and its API on a real Unix socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from api.certificates import Authority
from api.running import run

from brokerkm.api import ApiServer, RemoteAdmin
from brokerkm.api.gate import Limits
from brokerkm.service import KeyServer
from brokerkm.store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from api.running import Running


@pytest.fixture
async def server() -> AsyncGenerator[KeyServer]:
    """Start a key server without a broker."""
    async with KeyServer(MemoryStore(), interval=0, broker="memory://x") as server:
        yield server


@pytest.fixture
async def socket(tmp_path: Path, server: KeyServer) -> AsyncGenerator[Path]:
    """Serve its API."""
    path = tmp_path / "control.sock"
    async with ApiServer(server, path):
        yield path


@pytest.fixture
async def remote(socket: Path) -> AsyncGenerator[RemoteAdmin]:
    """Connect to it."""
    admin = await RemoteAdmin.connect(socket)
    yield admin
    await admin.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make a CA."""
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Running]:
    """Run a server for all tests of a module, with room for many requests."""
    with run(tmp_path_factory.mktemp("running"), authority, Limits((1e6, 1e6), (1e6, 1e6))) as running:
        yield running

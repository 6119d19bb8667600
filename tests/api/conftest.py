"""Fixtures of the API's tests: a key server and its API on a real Unix socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from brokerkm.api import ApiServer, RemoteAdmin
from brokerkm.service import KeyServer
from brokerkm.store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


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

"""A server with a real store and the broker inside the process, and devices for it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from service.fleet import Device

from brokerkm.service import KeyServer
from brokerkm.store import SqliteStore
from brokerkm.transport import Options, Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
    from pathlib import Path

    from brokerkm.descriptor import Descriptor
    from brokerkm.store import Store

BROKER = "memory://gate"


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    """Open a store in a file."""
    with contextlib.closing(SqliteStore(tmp_path / "store.sqlite")) as opened:
        yield opened


@pytest.fixture
async def server(store: Store) -> AsyncGenerator[KeyServer]:
    """Start a server that commits at once and has the group `plant`."""
    transport = create(BROKER, Options(role=Role.SERVER))
    async with KeyServer(store, transport, interval=0, retained_wait=0.2, broker=BROKER) as started:
        await started.admin.create_group("plant")
        yield started


@pytest.fixture
async def device() -> AsyncGenerator[Callable[..., Awaitable[Device]]]:
    """Return a function that opens devices; they are closed in the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened(descriptor: Descriptor, name: str = "pump", **options: object) -> Device:
            found = await Device.open(descriptor, name, **options)  # type: ignore[arg-type]
            stack.push_async_callback(found.close)
            return found

        yield opened

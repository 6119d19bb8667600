"""A commit of which the database did not say whether it was stored: the group is loaded again, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from databases.proxy import proxy
from service.fleet import Device, eventually

from brokerkm.core.events import Evicted, Joined
from brokerkm.errors import OutcomeUnknownError
from brokerkm.service import KeyServer
from brokerkm.service.leased import LeasedLeadership
from brokerkm.store.postgres import PostgresStore
from brokerkm.transport import Options, Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from databases.postgresql import Postgres

BROKER = "memory://unknown"


@contextlib.asynccontextmanager
async def closed(store: PostgresStore) -> AsyncGenerator[None]:
    """Close a store in the end, not before the loop's own connections may end."""
    try:
        yield
    finally:
        await asyncio.to_thread(store.close)


async def test_a_commit_with_an_unknown_outcome(postgres: Postgres, database: str) -> None:
    """Who asked is told that it may have happened; it has, members get it, and the next epoch follows it."""
    async with proxy(postgres.port) as (gate, port):
        url = database.replace(f":{postgres.port}/", f":{port}/")
        store = await asyncio.to_thread(PostgresStore, url, bytes(32))
        leadership = LeasedLeadership(store)
        transport = create(BROKER, Options(role=Role.SERVER))
        served = KeyServer(store, transport, interval=0, retained_wait=0.1, broker=BROKER, leadership=leadership)
        async with closed(store), served as server:
            await server.admin.create_group("plant")
            descriptor = await server.admin.invite("plant", uses=2)
            assert descriptor.token is not None
            pump, thief = [await Device.open(descriptor, name) for name in ("pump", "thief")]
            for device in (pump, thief):
                await device.join(descriptor.token.key)
                await device.expect(Joined)
            before = server.groups["plant"]
            gate.needle = b"/m/thief"  # in the outbox
            with pytest.raises(OutcomeUnknownError):
                await server.admin.evict("plant", "thief")
            assert 1 == gate.swallowed
            await eventually(lambda: server.groups["plant"] is not before)
            await eventually(lambda: not any(before.group.tree.levels[0].keys))  # wiped
            await thief.expect(Evicted)
            outcome = await server.admin.rotate("plant")
            await pump.reaches(outcome.epoch)
            await pump.close()
            await thief.close()

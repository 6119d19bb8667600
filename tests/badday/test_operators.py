"""Two operators do the same at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from brokerkm.api import ApiServer, RemoteAdmin
from brokerkm.core.events import Evicted, Joined
from brokerkm.errors import UsageError
from brokerkm.service import KeyServer
from brokerkm.service.api import Outcome
from brokerkm.store import MemoryStore
from brokerkm.transport import Options, Role, create

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from service.fleet import Device

    OpenDevice = Callable[..., Awaitable[Device]]

GROUP = "plant"


@pytest.mark.parametrize("interval", [0, 0.2])
async def test_member_that_two_evict_goes_once(tmp_path: Path, device: OpenDevice, interval: float) -> None:
    """One commit, one entry in the audit log; both are told that the member is out, or that it is out already."""
    url = f"memory://badday-{interval}"
    transport = create(url, Options(role=Role.SERVER))
    async with (
        KeyServer(MemoryStore(), transport, interval=interval, retained_wait=0.1, broker=url) as server,
        ApiServer(server, tmp_path / "control.sock"),
    ):
        await server.admin.create_group(GROUP)
        descriptor = await server.admin.invite(GROUP, uses=2)
        assert descriptor.token is not None
        members = [await device(descriptor, name) for name in ("pump", "valve")]
        for one in members:
            await one.join(descriptor.token.key)
        for one in members:
            await one.expect(Joined)
        before = server.groups[GROUP].group.epoch
        operators = [await RemoteAdmin.connect(tmp_path / "control.sock") for _ in range(4)]
        evictions = (one.evict(GROUP, "pump", urgent=not interval) for one in operators)
        told = await asyncio.gather(*evictions, return_exceptions=True)
        assert any(isinstance(one, Outcome) for one in told)
        for one in told:
            assert (isinstance(one, Outcome) and one.epoch == before + 1) or (
                isinstance(one, UsageError) and "has been evicted from group plant already" in str(one)
            ), one
        await members[0].expect(Evicted)
        await members[1].reaches(before + 1)
        assert before + 1 == server.groups[GROUP].group.epoch
        entries = [entry for entry in await operators[0].audit(GROUP) if entry.action == "evict"]
        assert ["pump"] == [entry.subject for entry in entries]
        with pytest.raises(UsageError, match="already"):
            await operators[1].evict(GROUP, "pump")
        for one in operators:
            await one.close()

"""A clock that goes back by a day: the server's, and a member's."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from service import fleet

from brokerkm.core.events import Evicted, Joined
from brokerkm.service import KeyServer
from brokerkm.store import MemoryStore
from brokerkm.transport import Options, Role, create

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.fleet import Device

    OpenDevice = Callable[..., Awaitable[Device]]

DAY = 86400.0
GROUP = "plant"


@pytest.mark.parametrize("off", [-DAY, DAY])
async def test_server_whose_clock_jumps_goes_on(device: OpenDevice, off: float) -> None:
    """Members that are there follow its commits; time never goes back in what it signs; a restart changes nothing."""
    url, store, now = f"memory://clock-server-{off}", MemoryStore(), [0.0]

    def server() -> KeyServer:
        transport = create(url, Options(role=Role.SERVER))
        return KeyServer(
            store, transport, interval=0, retained_wait=0.1, broker=url, clock=lambda: time.time() + now[0]
        )

    async with server() as first:
        await first.admin.create_group(GROUP)
        descriptor = await first.admin.invite(GROUP, uses=3)
        assert descriptor.token is not None
        members = [await device(descriptor, name) for name in ("pump", "valve", "fan")]
        for one in members:
            await one.join(descriptor.token.key)
        for one in members:
            await one.expect(Joined)
        stamp = first.groups[GROUP].group.time
        now[0] = off
        outcome = await first.admin.evict(GROUP, "fan")
        await members[2].expect(Evicted)
        for one in members[:2]:
            await one.reaches(outcome.epoch)
        assert first.groups[GROUP].group.time > stamp
        stamp = first.groups[GROUP].group.time
    async with server() as second:
        outcome = await second.admin.rotate(GROUP)
        for one in members[:2]:
            await one.reaches(outcome.epoch)
        assert second.groups[GROUP].group.time > stamp
        now[0] = 0.0  # somebody has put it right
        outcome = await second.admin.rotate(GROUP)
        for one in members[:2]:
            await one.reaches(outcome.epoch)


async def test_member_whose_clock_goes_back_follows(device: OpenDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clock is its own business: it reads what comes and follows the group, and a member with a right one too."""
    url = "memory://clock-member"
    transport = create(url, Options(role=Role.SERVER))
    async with KeyServer(MemoryStore(), transport, interval=0, retained_wait=0.1, broker=url) as server:
        await server.admin.create_group(GROUP)
        descriptor = await server.admin.invite(GROUP, uses=2)
        assert descriptor.token is not None
        members = [await device(descriptor, name) for name in ("pump", "valve")]
        for one in members:
            await one.join(descriptor.token.key)
        for one in members:
            await one.expect(Joined)
        monkeypatch.setattr(fleet, "time", SimpleNamespace(time=lambda: time.time() - DAY))
        for _ in range(3):
            outcome = await server.admin.rotate(GROUP, everything=True)
            for one in members:
                await one.reaches(outcome.epoch)
        sealed = members[0].member.seal("a/b", b"21.4", time.time() - DAY)
        opened = members[1].member.receive("a/b", sealed, time.time() - DAY)
        assert any(b"21.4" in (getattr(event, "payload", b""), getattr(event, "plaintext", b"")) for event in opened)

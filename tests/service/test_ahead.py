"""Requests that come between the moment when a commit is stored and the moment when it is in memory."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from brokerkm.core.events import Joined
from brokerkm.store import Change

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.fleet import Device

    from brokerkm.service import KeyServer

    OpenDevice = Callable[..., Awaitable[Device]]


@pytest.mark.parametrize("kind", ["sync", "leave", "ack"])
async def test_a_slot_that_is_not_in_memory_yet_proves_nothing(
    server: KeyServer, device: OpenDevice, kind: str
) -> None:
    """The leaf at the slot that the store names may still be another's: the request is left to the commit."""
    descriptor = await server.admin.invite("plant")
    assert descriptor.token is not None
    pump = await device(descriptor)
    await pump.join(descriptor.token.key)
    await pump.expect(Joined)
    known = server.store.member("plant", "pump")
    assert known is not None
    assert server.requests is not None
    assert server.publisher is not None
    live = server.groups["plant"]
    ahead = replace(known, epoch=live.group.epoch + 1)
    server.store.write("plant", Change(members=[ahead]))
    await server.requests.handle(live, "pump", getattr(pump.member, kind)(time.time()))
    assert (0, 0) == (len(live.changes), len(server.publisher._answers))
    assert not server.requests.refused
    server.store.write("plant", Change(members=[known]))
    await server.requests.handle(live, "pump", pump.member.sync(time.time() + 1))
    assert 1 == len(server.publisher._answers)

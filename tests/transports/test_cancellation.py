"""Whoever cancels an operation can rely on it: also when the answer arrives at that very moment.

`asyncio.wait_for` of Python 3.11 forgets the cancellation then; a task in a loop would go on for ever.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from brokers import hub

from brokerkm.transport import Options, Outgoing, Role
from brokerkm_mqtt import MqttTransport
from brokerkm_mqtt.parcel import Parcel
from brokerkm_zmq import wire
from brokerkm_zmq.member import Member

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

TURNS = range(6)  # of the loop between the answer and the cancellation


async def is_cancelled(work: Coroutine[None, None, object], answer: Callable[[], None], turns: int) -> bool:
    """Cancel `work` some turns after its answer; return False if it ends as if it had not been cancelled."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    answer()
    for _ in range(turns):
        await asyncio.sleep(0)
    was_running = task.cancel()
    await asyncio.wait([task])
    return task.cancelled() or not was_running


@pytest.mark.parametrize("turns", TURNS)
async def test_mqtt(turns: int) -> None:
    """A publish that is acknowledged while it is cancelled."""
    transport = MqttTransport("mqtt://127.0.0.1", Options())
    parcel = Parcel(Outgoing("t", b""), asyncio.get_running_loop().create_future())
    assert await is_cancelled(transport._settled(parcel, []), lambda: parcel.settle(None), turns)


@pytest.mark.parametrize("turns", TURNS)
async def test_zeromq(turns: int) -> None:
    """A subscription that is answered while it is cancelled."""
    with hub.ipc_url() as url:
        async with hub.opened(url, Role.SERVER), hub.opened(url) as member:
            end = member.transport._end
            assert isinstance(end, Member)
            asked = end.subscriber._send(wire.Op.SUBSCRIBE, [])
            answer = asyncio.get_running_loop().create_future()
            work = end.subscriber._repeated(asked, answer)
            assert await is_cancelled(work, lambda: answer.set_result(None), turns)

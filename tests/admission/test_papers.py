"""A flood of Joins with certificates that hold nothing: nobody else waits for it, and true ones get in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING

from admission.authority import AT, DAY, Authority
from admission.test_registration import ask, by_certificate, seated
from service.fleet import PATIENCE

from brokerkm.core.crypto import Suite, load_signing_key
from brokerkm.core.events import Evicted, Joined, Synced
from brokerkm.core.request import Asked, Join
from brokerkm.service.limits import RequestLimits
from brokerkm.service.papers import MAX_WAITING, PaperDesk, Papers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from service.fleet import Device

    from brokerkm.service import KeyServer

    OpenDevice = Callable[..., Awaitable[Device]]

VALID = (AT - 1000 * DAY, AT + 1000 * DAY)
PROMPT = 2.0  # seconds for somebody else's request on a busy machine; it needs milliseconds
NO_LIMIT = (1e9, 1e9)


def forged(count: int) -> list[bytes]:
    """Return Joins that show a whole chain of somebody else's authority, which has the name of the true one."""
    above = Authority("plants", parent=Authority(valid=VALID), valid=VALID)
    shown = above.device("nobody", valid=VALID)
    key, kem_public = load_signing_key(os.urandom(32)), os.urandom(Suite.X25519.public_size)
    now = int(time.time() * 1000)
    return [
        Join.seal(key, "plant", f"m{one}", kem_public, credential=shown, asked=Asked(os.urandom(16), now, 1))
        for one in range(count)
    ]


async def test_others_are_served_in_a_flood_of_certificates(
    server: KeyServer, device: OpenDevice, tmp_path: Path
) -> None:
    """A Sync is answered, an eviction goes out, and a device with a true certificate gets in when it asks again."""
    root = Authority(valid=VALID)
    (tmp_path / "ca.pem").write_bytes(root.pem)
    policy, shown = by_certificate(root, tmp_path)
    valve, other = await seated(server, device, "valve"), await seated(server, device, "other")
    await server.admin.set_admission("plant", policy)
    descriptor = await server.admin.invite("plant")
    pump, requests, group = await device(descriptor), server.requests, server.groups["plant"]
    assert requests is not None
    requests.limit(RequestLimits(member=NO_LIMIT, spare=NO_LIMIT, total=NO_LIMIT, refusals=NO_LIMIT))
    payloads, ended, burst = forged(3000), asyncio.Event(), 40

    async def flood() -> None:
        while not ended.is_set():
            for number, payload in enumerate(payloads):
                requests.offer(group, f"m{number}", payload)
                if number % burst == 0:
                    await asyncio.sleep(0.02)  # 2,000 a second, later 500
                    if ended.is_set():
                        return

    task = asyncio.create_task(flood())
    try:
        await asyncio.sleep(1)
        for _ in range(3):
            async with asyncio.timeout(PROMPT):
                await valve.send(valve.member.sync(time.time()))
                await valve.expect(Synced)
        async with asyncio.timeout(PROMPT):
            await server.admin.evict("plant", "other")
            await other.expect(Evicted)
        burst = 10  # several times what is looked at: each time that the device asks, it is left to chance
        async with asyncio.timeout(8 * PATIENCE):
            while pump.member.slot is None:
                await ask(pump, shown)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.25):
                        await pump.expect(Joined)
    finally:
        ended.set()
        await task
    assert requests.refused["busy"] > 0


async def test_who_makes_room_is_left_to_chance(server: KeyServer) -> None:
    """With two in three of those that come, each waits as likely as the other, whenever it has come."""
    group = server.groups["plant"]
    seen: list[str] = []
    dismissed: list[str] = []
    free = asyncio.Event()

    async def examine(papers: Papers) -> bool:
        await free.wait()
        seen.append(papers.member)
        return True

    desk = PaperDesk(examine, lambda papers: dismissed.append(papers.member))
    join = Join.decode(forged(1)[0], Suite.X25519)
    for number in range(3 * MAX_WAITING):
        desk.offer(Papers(group, f"m{number}", join))
        desk.offer(Papers(group, f"m{number}", join))  # in place of the first
        await asyncio.sleep(0)
    free.set()
    async with asyncio.timeout(PATIENCE):
        while len(seen) + len(dismissed) < 3 * MAX_WAITING:  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(0.001)
    assert len(set(seen)) == len(seen) <= MAX_WAITING + 2
    early = sum(int(one[1:]) < MAX_WAITING for one in seen)
    assert 0 < early < len(seen)


async def test_false_papers_rest_the_desk(server: KeyServer) -> None:
    """For each second of work, three of rest; what is true has none."""
    group, join = server.groups["plant"], Join.decode(forged(1)[0], Suite.X25519)
    ended = {True: 0.0, False: 0.0}
    for held in (True, False):
        done: list[str] = []

        async def examine(papers: Papers, held: bool = held, done: list[str] = done) -> bool:  # noqa: FBT001
            time.sleep(0.01)  # noqa: ASYNC251 - work
            done.append(papers.member)
            return held

        desk = PaperDesk(examine, lambda _: None)
        began = time.monotonic()
        for number in range(20):
            desk.offer(Papers(group, f"m{number}", join))
        while len(done) < 20:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)
        ended[held] = time.monotonic() - began
        await desk.stop()
    assert 2.5 * ended[True] < ended[False]

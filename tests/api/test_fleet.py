"""What a guard in another process knows of groups and members, and when it asks again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest_asyncio

from brokerkm.api import ApiServer, RemoteAdmin, fleet
from brokerkm.api.fleet import RemoteFleet
from brokerkm.errors import TransportError
from brokerkm.service import KeyServer
from brokerkm.store.memory import MemoryStore
from brokerkm.store.records import Status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    import pytest

    from brokerkm.service import AdminApi

PATIENCE = 10.0  # seconds
KEY = bytes(range(32))


class Counted:
    """Connections to a key server that can be cut, with a count of what was asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.asked = 0
        self.is_cut = False

    async def reach(self) -> AdminApi:
        """Connect."""
        if self.is_cut:
            message = "nobody answers"
            raise TransportError(message)
        admin = await RemoteAdmin.connect(self._path)
        show = admin.show_member

        async def counted(group: str, member: str) -> object:
            self.asked += 1
            return await show(group, member)

        admin.show_member = counted  # type: ignore[method-assign, assignment]
        return admin


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncGenerator[tuple[KeyServer, Counted, RemoteFleet]]:
    """Give a key server with a group and a listed device, and the fleet of a guard elsewhere."""
    path = tmp_path / "s"
    async with KeyServer(MemoryStore(), interval=0) as server, ApiServer(server, path):
        await server.admin.create_group("plant", degree=8)
        await server.admin.add_member("plant", "pump", KEY)
        lines = Counted(path)
        found = RemoteFleet(lines.reach)
        task = asyncio.create_task(found.run())
        try:
            yield server, lines, found
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await found.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return once a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - it is told by nobody
            await asyncio.sleep(0.01)


async def test_what_is_known_is_not_asked_again(site: tuple[KeyServer, Counted, RemoteFleet]) -> None:
    """Not before it changes; then at once."""
    server, lines, found = site
    await until(lambda: _is_remembered(lines, found))
    await server.admin.evict("plant", "pump")

    async def is_out() -> bool:
        record = await found.member("plant", "pump")
        return record is not None and record.status is Status.EVICTED

    await until(is_out)
    await server.admin.readmit("plant", "pump")

    async def is_back() -> bool:
        return not await is_out()

    await until(is_back)
    assert None is await found.member("plant", "nobody")


async def _is_remembered(lines: Counted, found: RemoteFleet) -> bool:
    await found.groups()  # by which it learns that there is one server
    before = lines.asked
    record = await found.member("plant", "pump")
    assert record is not None
    assert (KEY, Status.LISTED) == (record.identity, record.status)
    return before == lines.asked


async def test_groups_are_followed(site: tuple[KeyServer, Counted, RemoteFleet]) -> None:
    """With the topics of their data; one that is destroyed is none."""
    server, _, found = site
    group = (await found.groups())["plant"]
    assert ("bkm/1", 8, ("#",)) == (group.prefix, group.degree, group.data.publish)
    await server.admin.set_data("plant", publish=["plant/%m/#"])

    async def is_set() -> bool:
        return ("plant/%m/#",) == (await found.groups())["plant"].data.publish

    await until(is_set)
    await server.admin.destroy("plant", now=True)

    async def is_gone() -> bool:
        return not await found.groups()

    await until(is_gone)


async def test_all_members_come_page_by_page(
    site: tuple[KeyServer, Counted, RemoteFleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By id, none twice."""
    server, _, found = site
    monkeypatch.setattr(fleet, "PAGE", 1000)
    for number in range(3):
        await server.admin.add_member("plant", f"m{number}", bytes(32))
    assert ["m0", "m1", "m2", "pump"] == [record.member async for record in found.members("plant")]


async def test_nothing_is_known_of_a_key_server_that_is_away(
    site: tuple[KeyServer, Counted, RemoteFleet],
) -> None:
    """What was remembered is not used either."""
    server, lines, found = site
    await until(lambda: _is_remembered(lines, found))
    lines.is_cut = True
    server.feed.emit(fleet.Kind.MISSED)

    async def is_unknown() -> bool:
        try:
            await found.member("plant", "pump")
        except TransportError:
            return True
        while found._idle:
            await found._idle.pop().close()  # type: ignore[attr-defined]
        return False

    await until(is_unknown)

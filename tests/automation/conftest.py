"""A started key server over a store in memory, with a clock that a test moves, and members without devices."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from brokerkm.automation import Automation, RuleBook
from brokerkm.core.commit import Enrollment
from brokerkm.core.policy import Policy
from brokerkm.service import KeyServer
from brokerkm.service.changes import PendingJoin
from brokerkm.store import MemoryStore
from brokerkm.store.records import AuditEntry, Change, Settings, Sighting, Status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from brokerkm.service.live import LiveGroup
    from brokerkm.store import Store

START = 1_767_225_600.0  # 2026-01-01 00:00 UTC, a Thursday
GROUP = "plant"


class Site:
    """The server and its rules; `now` is what its clock says."""

    def __init__(self, store: Store) -> None:
        self.now = START
        self.store = store
        self.server = KeyServer(store, interval=0, clock=lambda: self.now)
        self.automation = Automation(self.server)
        self.book = RuleBook(self.server, self.automation, "operator:eve")

    @property
    def live(self) -> LiveGroup:
        """The group."""
        return self.server.groups[GROUP]

    @property
    def epoch(self) -> int:
        """Where the group stands."""
        return self.live.group.epoch

    async def restart(self) -> None:
        """Stop the server and go on with another one over the same store."""
        await self.server.stop()
        self.server = KeyServer(self.store, interval=0, clock=lambda: self.now)
        self.automation = Automation(self.server)
        self.book = RuleBook(self.server, self.automation, "operator:eve")
        await self.server.start()

    async def step(self, seconds: float = 0.0) -> None:
        """Let time pass, look at the rules once, and wait for what they do."""
        self.now += seconds
        await self.automation.step(self.now)
        await self.automation.settled()

    async def seat(self, *members: str) -> None:
        """Give members a place in the group."""
        kem = X25519PrivateKey.generate().public_key().public_bytes_raw()
        for number, member in enumerate(members):
            await self.server.admin.add_member(GROUP, member, number.to_bytes(32, "big"))
        for number, member in enumerate(members):
            identity = number.to_bytes(32, "big")
            who = Enrollment(member, identity, kem, number.to_bytes(16, "big"))
            self.live.join(PendingJoin(who, int(self.now * 1000), None))
        await self.live.rotate(everything=False)  # waits for the commit

    async def heard(self, *members: str, acked: int = 1) -> None:
        """Have members give a sign of life now."""
        sightings = [Sighting(member, int(self.now * 1000), acked) for member in members]
        await self.server.desk.call(self.store.touch, GROUP, sightings)

    async def seated(self) -> list[str]:
        """Return who is seated."""
        found = await self.server.desk.call(self.store.members, GROUP, status=Status.SEATED)
        return [record.member for record in found]

    async def audited(self, action: str = "run") -> list[AuditEntry]:
        """Return what the audit log says of an action."""
        records = await self.server.desk.call(self.store.audit, GROUP)
        return [record.entry for record in records if record.entry.action == action]

    async def set(self, settings: Settings) -> None:
        """Change the group's settings."""
        record = replace(self.live.record, settings=settings, policy=Policy(acknowledge=5))
        await self.server.desk.call(self.store.write, GROUP, Change(record=record))
        await self.restart()

    async def add(self, name: str, trigger: dict[str, object], action: dict[str, object]) -> None:
        """Add a rule."""
        await self.book.add_rule(GROUP, {"name": name, "trigger": trigger, "action": action})


@pytest.fixture
async def site() -> AsyncGenerator[Site]:
    """Start a server with one group."""
    site = Site(MemoryStore())
    await site.server.start()
    await site.server.admin.create_group(GROUP)
    yield site
    await site.server.stop()

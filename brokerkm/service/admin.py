"""Administration in the server's own process, or over its store while no server runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from brokerkm.core.crypto import Suite, load_signing_key
from brokerkm.errors import UsageError
from brokerkm.service.admissions import Admissions
from brokerkm.service.api import GroupInfo, Outcome
from brokerkm.service.guardianship import Guardianship
from brokerkm.service.office import PUBLISHED_WAIT
from brokerkm.service.offline import OfflineEnrollment
from brokerkm.service.oversight import Oversight
from brokerkm.service.terms import adopt_policy, policy_fields, suite_name
from brokerkm.service.tickets import Tickets
from brokerkm.store.records import GroupRecord, Settings, Status

if TYPE_CHECKING:
    from brokerkm.core.policy import Policy
    from brokerkm.service.live import LiveGroup
    from brokerkm.service.server import KeyServer
    from brokerkm.service.terms import Named

_SEED_SIZE: Final = 32  # bytes; Ed25519
_MAX_SECONDS: Final = 0xFFFFFFFF


class Admin(OfflineEnrollment, Admissions, Tickets, Guardianship, Oversight):
    """`AdminApi` on a started server; what it does the audit log ascribes to its actor."""

    def __init__(self, server: KeyServer, actor: str = "operator") -> None:
        super().__init__(server, actor)

    def acting(self, actor: str) -> Admin:
        """Return the same administration by the will of another."""
        return Admin(self._server, actor)

    async def create_group(
        self,
        group: str,
        *,
        degree: int | None = None,
        suite: Suite | None = None,
        prefix: str | None = None,
        beacon_interval: int | None = None,
        policy: Named | None = None,
        settings: Named | None = None,
    ) -> GroupInfo:
        """Create a group with a signing key of its own."""
        terms = self._server.terms
        beacon_interval = terms.beacon_interval if beacon_interval is None else beacon_interval
        if not 1 <= beacon_interval <= _MAX_SECONDS:
            message = f"beacon interval {beacon_interval} s: it has to be at least 1 s"
            raise UsageError(message)
        kept: dict[str, Any] = dict(settings or {})
        record = GroupRecord(
            group,
            self._server.random(_SEED_SIZE),
            terms.degree if degree is None else degree,
            terms.prefix if prefix is None else prefix,
            terms.suite if suite is None else suite,
            adopt_policy(terms.policy, policy or {}),
            beacon_interval,
            settings=Settings(**kept),
        )
        return await self._info(await self._server.create_group(record, self._actor))

    async def list_groups(self) -> list[GroupInfo]:
        """Return all groups of the store, by name, whichever server leads them."""
        led = self._server.groups
        return [
            await (self._info(led[record.name]) if record.name in led else self._stored_info(record))
            for record in await self._server.desk.call(self._server.store.groups)
        ]

    async def show(self, group: str) -> GroupInfo:
        """Return one group."""
        if group in self._server.leadership.unled:
            record = await self._server.desk.call(self._server.store.group, group)
            if record is not None:
                return await self._stored_info(record)
        return await self._info(self._group(group, destroyed=True))

    async def rotate(self, group: str, *, everything: bool = False) -> Outcome:
        """Give the group new keys."""
        live = self._thawed(group)
        return await self._outcome(live, live.rotate(everything=everything, actor=self._actor))

    async def set_policy(self, group: str, policy: Policy) -> Outcome:
        """Ask something else of the members; the next Beacon says so to all of them."""
        live = self._group(group)
        return await self._outcome(live, live.set_policy(policy, self._actor))

    async def hand_over(self, group: str) -> Outcome:
        """Draw another signing key for the group; members follow, and descriptors made from now on name it."""
        live = self._group(group)
        return await self._outcome(live, live.hand_over(self._actor))

    async def configure(self, group: str, settings: Settings) -> GroupInfo:
        """Have the server do something else for the group by itself."""
        return await self.change(group, {}, dataclasses.asdict(settings))

    async def change(self, group: str, policy: Named, settings: Named) -> GroupInfo:
        """Change what is named of both in one transaction; all else stays as it is."""
        live = self._group(group)
        await self._outcome(live, live.change(policy, settings, self._actor))
        return await self._info(live)

    async def freeze(self, group: str) -> GroupInfo:
        """Commit nothing in the group until it is thawed; what devices ask for waits."""
        live = self._group(group)
        await live.freeze(self._actor, frozen=True)
        return await self._info(live)

    async def thaw(self, group: str) -> GroupInfo:
        """Go on with a group that was frozen."""
        live = self._group(group)
        await live.freeze(self._actor, frozen=False)
        return await self._info(live)

    async def destroy(self, group: str, *, now: bool = False) -> Outcome:
        """Tell the members, clear the broker, forget the group with all its keys and members; its audit log stays."""
        live = self._group(group, destroyed=True)
        forgotten = await self._server.destroy(live.name, self._actor, patience=PUBLISHED_WAIT, now=now)
        return Outcome(live.group.epoch, forgotten)

    async def _info(self, live: LiveGroup) -> GroupInfo:
        return dataclasses.replace(
            await self._stored_info(live.record),
            problem="",
            height=live.group.tree.height,
            epoch=live.group.epoch,
            members=len(live.group.directory),
            waiting=len(live.changes),
            server_key=live.group.server_key.hex(),
        )

    async def _stored_info(self, record: GroupRecord) -> GroupInfo:
        """Return what the store knows of a group: all but the changes that wait where it is led."""
        unpublished = await self._server.desk.call(self._server.store.waiting, record.name)
        count = await self._server.desk.call(self._server.store.count, record.name)
        return GroupInfo(
            name=record.name,
            prefix=record.prefix,
            suite=suite_name(record.suite),
            degree=record.degree,
            height=record.height,
            epoch=record.epoch,
            members=count.get(Status.SEATED, 0),
            listed=count.get(Status.LISTED, 0),
            evicted=count.get(Status.EVICTED, 0),
            pending=count.get(Status.PENDING, 0),
            waiting=0,
            unpublished=unpublished,
            beacon_interval=record.beacon_interval,
            frozen=record.frozen,
            destroyed=record.destroyed,
            policy=policy_fields(record.policy),
            settings=dataclasses.asdict(record.settings),
            server_key=load_signing_key(record.signing_seed).public_key().public_bytes_raw().hex(),
            problem=self._server.leadership.unled.get(record.name, ""),
        )

"""What rules do to a group. Each deed takes what the rule will remember, and has it stored with the deed itself."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from brokerkm.automation import notice
from brokerkm.automation.due import evicted
from brokerkm.service.feed import Kind
from brokerkm.store.records import AuditEntry, Status
from brokerkm.storekey import open_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from brokerkm.automation.memory import Memory
    from brokerkm.automation.rule import Notify, Rotate
    from brokerkm.service.live import LiveGroup
    from brokerkm.service.server import KeyServer
    from brokerkm.store.records import Document

LEAVES: Final = 500  # members whose leaves are renewed by one commit; each costs a Welcome of 0.3 ms
MAX_EVICTED: Final = 1000  # members that one run evicts, in one commit


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something is done.

    Args:
        rule: its name.
        time: when it became due, ms since 1970.
        details: for the audit log.
    """

    rule: str
    time: int
    details: Mapping[str, str | int | bool]

    @property
    def actor(self) -> str:
        """Who is named in the audit log."""
        return f"rule:{self.rule}"

    def entry(self, **more: str | int | bool) -> AuditEntry:
        """Return what the audit log says of the run."""
        return AuditEntry(self.time, self.actor, "run", self.rule, {**self.details, **more})


class Deeds:
    """The deeds, done on one server."""

    def __init__(self, server: KeyServer) -> None:
        self._server: Final = server

    async def rotate(self, group: LiveGroup, cause: Cause, memory: Memory, action: Rotate) -> str:
        """Renew keys; return what was done. Leaves are renewed page by page, which a restart goes on with."""
        if action.what == "leaves":
            return await self._refresh_all(group, cause, memory)
        done = f"new keys: {action.what}"
        group.attach(self._remember(cause, replace(memory, outcome=done)), cause.entry(done=done))
        await group.rotate(everything=action.what == "all", actor=cause.actor)
        self._told(group, cause)
        return done

    async def _refresh_all(self, group: LiveGroup, cause: Cause, memory: Memory) -> str:
        while True:
            memory = await self.refresh(group, cause, memory, LEAVES)
            if not memory.after:
                return memory.outcome

    async def refresh(self, group: LiveGroup, cause: Cause, memory: Memory, number: int) -> Memory:
        """Renew the leaves of the next `number` members after `memory.after`; return what is remembered then."""
        page = await self._server.desk.call(
            self._server.store.members, group.name, after=memory.after, limit=number, status=Status.SEATED
        )
        last = page[-1].member if len(page) == number else ""
        memory = replace(memory, after=last, outcome="new keys: leaves" + (f" up to {last}" if last else ""))
        entry = cause.entry(done="new keys: leaves", members=len(page))
        if page:
            group.attach(self._remember(cause, memory), entry)
            await group.refresh(page, cause.actor)
        else:
            await group.note(self._remember(cause, memory), [entry])
        self._told(group, cause)
        return memory

    async def evict(self, group: LiveGroup, cause: Cause, memory: Memory, members: Sequence[str]) -> str:
        """Cut off `members`, who are known; return what was done."""
        done = f"evicted {len(members)}"
        memory = replace(evicted(memory, len(members), cause.time), outcome=done)
        publisher = self._server.publisher
        waits = [group.evict(member, urgent=True, actor=cause.actor) for member in members]
        group.attach(self._remember(cause, memory), cause.entry(done=done, members=len(members)))
        if publisher is not None:
            for member in members:
                publisher.forget_answer(group.topics.member(member))
        await asyncio.gather(*waits)
        self._told(group, cause)
        return done

    async def notify(self, group: LiveGroup, cause: Cause, memory: Memory, action: Notify) -> str:
        """Tell the URL; raises `TransportError` if it does not take it, and `StoreError` if there is no secret."""
        fields: dict[str, Any] = {
            "id": f"{group.name}/{cause.rule}/{cause.time}",
            "group": group.name,
            "rule": cause.rule,
            "time": cause.time,
            "epoch": group.group.epoch,
            "details": dict(cause.details),
        }
        now = self._server.clock()
        await asyncio.to_thread(lambda: notice.send(action.url, open_source(action.secret).read(), fields, now))
        done = "told " + json.dumps(action.url.partition("?")[0])
        await self.say(group, cause, replace(memory, outcome=done), done)
        return done

    async def say(self, group: LiveGroup, cause: Cause, memory: Memory, done: str) -> None:
        """Store that a run has come to `done`, with nothing else."""
        await group.note(self._remember(cause, memory), [cause.entry(done=done)])
        self._told(group, cause)

    def _remember(self, cause: Cause, memory: Memory) -> Document:
        return memory.document(cause.rule, int(self._server.clock() * 1000))

    def _told(self, group: LiveGroup, cause: Cause) -> None:
        self._server.feed.emit(Kind.RULE_RUN, group.name, rule=cause.rule)

"""Runs the rules of the groups that this server leads.

At each step all rules are looked at; what is due is done in a task of its own, at most one for each rule. The time is
an argument of a step, so that nothing here waits for a clock. A step that fails, because the store does, leaves
the rule due. What silence, the clock or a count make due is decided in `brokerkm.automation.due`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

from brokerkm.automation import due as decide
from brokerkm.automation.deeds import MAX_EVICTED, Cause, Deeds
from brokerkm.automation.memory import MEMORY, Memory
from brokerkm.automation.rule import RULE, Evict, Notify, OnCount, OnSilence, OnTime, OnWebhook, Rotate, Rule
from brokerkm.automation.silence import find, objection
from brokerkm.errors import BrokerkmError, StoreError, TransportError, UnknownNameError, UsageError
from brokerkm.service.feed import Kind
from brokerkm.store.records import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from types import TracebackType

    from brokerkm.service.feed import Happening
    from brokerkm.service.live import LiveGroup
    from brokerkm.service.server import KeyServer

_log = logging.getLogger(__name__)

TICK: Final = 5.0  # s between two looks at the rules; a crontab line counts minutes
_TRIES: Final = 6  # of a notice, until it is given up
_FIRST_PAUSE: Final = 5.0  # s until the second try; four times as long for each further one
_SHOWN: Final = 100  # members that a dry run or a notice names


@dataclass(frozen=True, slots=True)
class Run:
    """What a run has done, or would do: in words, and to whom (the first hundred)."""

    done: str
    members: tuple[str, ...] = ()
    dry: bool = False


class Automation:
    """The rules of all groups of a started server; `run` works until it is cancelled, or use it as a context."""

    def __init__(self, server: KeyServer, *, tick: float = TICK) -> None:
        self._server: Final = server
        self._tick: Final = tick
        self._deeds: Final = Deeds(server)
        self._tasks: Final[dict[tuple[str, str], asyncio.Task[None]]] = {}
        self._tries: Final[dict[tuple[str, str], tuple[int, float]]] = {}
        self._damaged: Final[set[tuple[str, str]]] = set()
        self._hears = True
        self._loop: asyncio.Task[None] | None = None
        self._unlisten: Callable[[], None] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop().create_task(self.run(), name="key server automation")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._unlisten is not None:
            self._unlisten()
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop
        for task in self._tasks.values():
            task.cancel()
        await self.settled()

    async def run(self) -> None:
        """Look at the rules again and again."""
        while True:
            await self.step(self._server.clock())
            await asyncio.sleep(self._tick)

    async def step(self, now: float) -> None:
        """Begin all that is due at `now`, seconds since 1970."""
        if self._unlisten is None:
            self._unlisten = self._server.feed.listen(self._heard)
        for group in list(self._server.groups.values()):
            if group.record.frozen:
                continue
            try:
                await self._look(group, int(now * 1000))
            except StoreError as error:
                _log.warning("group %s: its rules cannot be looked at: %s", group.name, error)

    async def settled(self) -> None:
        """Return when nothing that was begun is still being done."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def rule(self, group: LiveGroup, name: str) -> tuple[Rule, Memory]:
        """Return a rule and what it remembers; raises `UsageError` if there is none of that name."""
        desk, store = self._server.desk, self._server.store
        found = await desk.call(store.document, group.name, RULE, name)
        if found is None:
            message = f"group {group.name} has no rule {name[:64]!r}: `brokerkm rule list` shows those that there are"
            raise UnknownNameError(message)
        memory = Memory.from_document(await desk.call(store.document, group.name, MEMORY, name))
        return Rule.from_json(found.body), memory

    async def run_rule(self, group: LiveGroup, name: str, *, dry: bool, unbraked: bool = False, by: str = "") -> Run:
        """Run a rule now, whether it is due or not.

        Args:
            dry: say what would be done, and do nothing.
            unbraked: evict more than the rule's share.
            by: whose will it is, for the audit log.
        """
        rule, memory = await self.rule(group, name)
        now = int(self._server.clock() * 1000)
        cause = Cause(name, now, {"by": by or "operator"})
        match rule.trigger, rule.action:
            case OnSilence() as trigger, Evict(share):
                return await self._evict_silent(
                    group, cause, memory, now - trigger.unseen * 1000, 100 if unbraked else share, dry=dry
                )
            case _, Evict():
                message = "this rule evicts whom its webhook names: there is nobody to evict without it"
                raise UsageError(message)
            case _, Rotate(what):
                if dry:
                    return Run(f"new keys: {what}", dry=True)
                return Run(await self._deeds.rotate(group, cause, replace(memory, after=""), rule.action))
            case _, Notify(url):
                if dry:
                    return Run(f"would tell {url.partition('?')[0]}", dry=True)
                return Run(await self._deeds.notify(group, cause, memory, rule.action))

    async def hook(
        self,
        group: LiveGroup,
        rule: Rule,
        memory: Memory,
        members: Sequence[str],
        details: Mapping[str, str | int | bool],
    ) -> Run:
        """Run a rule whose webhook was called, by a request that has been verified.

        Args:
            memory: with the mark of the request, so that it is not taken twice.

        Raises:
            UsageError: it names somebody who cannot be evicted, or too many.
        """
        cause = Cause(rule.name, int(self._server.clock() * 1000), details)
        match rule.action:
            case Rotate("leaves") as action:  # takes longer than the caller waits
                self._begin(group, cause, replace(memory, after=""), action)
                return Run("new keys: leaves, begun")
            case Rotate() as action:
                return Run(await self._deeds.rotate(group, cause, memory, action))
            case Notify() as action:
                return Run(await self._deeds.notify(group, cause, memory, action))
            case Evict(share):
                await self._check_seated(group, members)
                self._check_share(await self._seated(group), share, memory, cause.time, len(members))
                return Run(await self._deeds.evict(group, cause, memory, members), tuple(members[:_SHOWN]))

    async def _look(self, group: LiveGroup, now: int) -> None:
        desk, store = self._server.desk, self._server.store
        rules = await desk.call(store.documents, group.name, RULE)
        memories = {one.name: one for one in await desk.call(store.documents, group.name, MEMORY)}
        for document in rules:
            try:
                rule = Rule.from_json(document.body)
                memory = Memory.from_document(memories.get(document.name))
            except StoreError as error:
                if (group.name, document.name) not in self._damaged:
                    self._damaged.add((group.name, document.name))
                    _log.error("group %s: %s", group.name, error)
                continue
            if self._is_free(group, rule.name, now):
                await self._consider(group, rule, memory, now)
        settings = group.record.settings
        for name, period in (("root-period", settings.root_period), ("leaf-period", settings.leaf_period)):
            if period and self._is_free(group, name, now):
                await self._keep_up(group, name, period, Memory.from_document(memories.get(name)), now)

    async def _consider(self, group: LiveGroup, rule: Rule, memory: Memory, now: int) -> None:
        match rule.trigger:
            case OnTime() as trigger:
                found = decide.on_time(trigger, rule.created, memory, now)
                if found is not None:
                    cause = Cause(rule.name, found.time, _details(found))
                    self._begin(group, cause, replace(memory, ran=found.time, after=""), rule.action)
                    return
            case OnCount() as trigger:
                members = await self._seated(group)
                fires, after = decide.on_count(trigger, members, memory)
                if fires:
                    after = replace(after, ran=now, after="")
                    self._begin(group, Cause(rule.name, now, {"members": members}), after, rule.action)
                    return
                if after != memory:
                    await group.note(after.document(rule.name, now))
            case OnSilence() as trigger:
                await self._listen(group, rule, trigger, memory, now)
                return
            case OnWebhook():
                pass
        if memory.after:  # a run that a restart has cut short
            self._begin(group, Cause(rule.name, memory.ran or now, {"resumed": True}), memory, rule.action)

    async def _keep_up(self, group: LiveGroup, name: str, period: int, memory: Memory, now: int) -> None:
        """Renew what the group's settings want renewed every `period` seconds; leaves a few at a time."""
        if not memory.ran:
            await group.note(replace(memory, ran=now).document(name, now))
            return
        if name == "root-period":
            found = decide.on_period(period, memory, now)
            if found is not None:
                self._begin(
                    group, Cause(name, found.time, _details(found)), replace(memory, ran=found.time), Rotate("root")
                )
            return
        number, ran = decide.share_of_leaves(period, await self._seated(group), memory, now)
        if number:
            kept = replace(memory, ran=ran)
            work = self._deeds.refresh(group, Cause(name, now, {}), kept, number)
            self._spawn(group, name, _only(work))

    async def _listen(self, group: LiveGroup, rule: Rule, trigger: OnSilence, memory: Memory, now: int) -> None:
        if not self._hears or decide.silence_checked(trigger, memory, now):
            return
        cutoff, memory = decide.on_silence(trigger, memory, now)
        why = objection(trigger, group)
        if why or cutoff is None:
            waiting = why or "listening until silence can be told"
            if waiting != memory.outcome and why:
                _log.warning("group %s: rule %s cannot work: %s", group.name, rule.name, why)
            await group.note(replace(memory, outcome=waiting).document(rule.name, now))
            return
        cause = Cause(rule.name, now, {})
        if isinstance(rule.action, Evict):
            work: Coroutine[Any, Any, Any] = self._evict_silent(group, cause, memory, cutoff, rule.action.share)
        else:
            work = self._tell_silent(group, cause, memory, cutoff, rule.action)
        self._spawn(group, rule.name, _only(work))

    async def _evict_silent(
        self, group: LiveGroup, cause: Cause, memory: Memory, cutoff: int, share: int, *, dry: bool = False
    ) -> Run:
        desk, store = self._server.desk, self._server.store
        silent = await desk.call(find, store, group.name, cutoff, MAX_EVICTED)
        allowed = decide.allowance(share, await self._seated(group), memory, cause.time)
        braked = silent.number > allowed
        shown = tuple(silent.first[:_SHOWN])
        if braked:
            done = (
                f"evicted nobody: {silent.number} are silent, more than the {allowed} that may go at once: look why, "
                "then raise the rule's share or run it with --all"
            )
        else:
            done = f"would evict {silent.number}" if dry else f"{silent.number} silent"
        if dry:
            return Run(done, shown, dry=True)
        if silent.number and not braked:
            return Run(await self._deeds.evict(group, cause, replace(memory, ran=cause.time), silent.first), shown)
        if braked and done != memory.outcome:
            _log.warning("group %s: rule %s: %s", group.name, cause.rule, done)
            await self._deeds.say(group, cause, replace(memory, outcome=done), done)
        else:
            await group.note(replace(memory, outcome=done).document(cause.rule, cause.time))
        return Run(done, shown)

    async def _tell_silent(
        self, group: LiveGroup, cause: Cause, memory: Memory, cutoff: int, action: Rotate | Notify
    ) -> None:
        desk, store = self._server.desk, self._server.store
        silent = await desk.call(find, store, group.name, cutoff, _SHOWN)
        outcome = f"{silent.number} silent"
        if silent.number and outcome != memory.outcome and isinstance(action, Notify):
            told = Cause(cause.rule, cause.time, {"silent": silent.number, "first": " ".join(silent.first)[:1000]})
            if not await self._notify(group, told, memory, action):
                return
        await group.note(replace(memory, outcome=outcome).document(cause.rule, cause.time))

    def _begin(self, group: LiveGroup, cause: Cause, memory: Memory, action: Rotate | Evict | Notify) -> None:
        match action:
            case Rotate():
                self._spawn(group, cause.rule, _only(self._deeds.rotate(group, cause, memory, action)))
            case Notify():
                self._spawn(group, cause.rule, _only(self._notify(group, cause, memory, action)))
            case Evict():  # needs silence or a webhook to say whom
                pass

    async def _notify(self, group: LiveGroup, cause: Cause, memory: Memory, action: Notify) -> bool:
        """Send a notice; what fails is tried again at later steps, and given up in the end. Return if that is all."""
        key = group.name, cause.rule
        try:
            await self._deeds.notify(group, cause, memory, action)
        except (TransportError, StoreError, UsageError) as error:
            tries, _ = self._tries.get(key, (0, 0.0))
            _log.warning("group %s: rule %s, try %d of %d: %s", *key, tries + 1, _TRIES, error)
            if tries + 1 < _TRIES:
                pause = _FIRST_PAUSE * 4**tries
                self._tries[key] = tries + 1, self._server.clock() + pause
                return False
            await self._deeds.say(group, cause, replace(memory, outcome=f"failed: {error}"), "failed")
        self._tries.pop(key, None)
        return True

    def _is_free(self, group: LiveGroup, name: str, now: int) -> bool:
        """Return whether a rule may run: it does not, nor waits for the store, nor for a notice's next try."""
        _, until = self._tries.get((group.name, name), (0, 0.0))
        return (group.name, name) not in self._tasks and not group.is_noting(MEMORY, name) and now >= until * 1000

    def _spawn(self, group: LiveGroup, name: str, work: Coroutine[Any, Any, None]) -> None:
        key = group.name, name

        async def watched() -> None:
            try:
                await work
            except BrokerkmError as error:
                _log.warning("group %s: rule %s: %s; it stays due", *key, error)
            finally:
                del self._tasks[key]

        self._tasks[key] = asyncio.get_running_loop().create_task(watched(), name=f"rule {name} of group {group.name}")

    def _heard(self, happening: Happening) -> None:
        if happening.kind in (Kind.BROKER_LOST, Kind.BROKER_BACK):
            self._hears = happening.kind is Kind.BROKER_BACK

    async def _seated(self, group: LiveGroup) -> int:
        counts = await self._server.desk.call(self._server.store.count, group.name)
        return counts.get(Status.SEATED, 0)

    async def _check_seated(self, group: LiveGroup, members: Sequence[str]) -> None:
        for member in members:
            known = await self._server.desk.call(self._server.store.member, group.name, member)
            if known is None or known.status is not Status.SEATED:
                message = f"{member[:64]!r} has no place in group {group.name}"
                raise UsageError(message)

    def _check_share(self, seated: int, share: int, memory: Memory, now: int, number: int) -> None:
        allowed = decide.allowance(share, seated, memory, now)
        if number > allowed:
            message = f"{number} are more than the {allowed} members that this rule may still evict today"
            raise UsageError(message)


def _details(found: decide.Due) -> dict[str, str | int | bool]:
    return {"due": found.time, "missed": found.missed} if found.missed else {"due": found.time}


async def _only(work: Coroutine[Any, Any, Any]) -> None:
    await work

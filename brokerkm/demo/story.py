"""What happens in the demonstration, act by act, and how each claim is checked."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from brokerkm.demo.readings import describe
from brokerkm.demo.timeline import Claim

if TYPE_CHECKING:
    from collections.abc import Iterable

    from brokerkm.demo.process import Process
    from brokerkm.demo.stage import Stage
    from brokerkm.demo.timeline import Timeline
    from brokerkm.service import Outcome

_MISSED: Final = 3  # rekeys that the sleeper sleeps through
_AT_ONCE: Final = 2 + (os.cpu_count() or 2)  # processes that start at a time


class Story:
    """One run.

    Args:
        stage: nothing runs there yet.
        timeline: is told everything.
        members: how many join at first, at least 5.
    """

    def __init__(self, stage: Stage, timeline: Timeline, members: int) -> None:
        self._stage: Final = stage
        self._line: Final = timeline
        self._members = [f"m{number:02}" for number in range(1, members + 1)]
        self._round = 0
        self._epoch = 0

    @property
    def claims(self) -> list[Claim]:
        """What is to be checked with this transport."""
        return [claim for claim in Claim if claim is not Claim.ALONE or self._stage.broker_is_apart]

    async def tell(self) -> None:
        """Go through all acts; raises `ProcessFailedError` if one cannot go on."""
        await self._begin()
        await self._form()
        await self._talk()
        await self._evict_and_join()
        await self._sleep_and_return()

    # Act 1: a fleet forms and talks.

    async def _begin(self) -> None:
        self._line.tell("broker", await self._stage.start_broker())
        group = await self._stage.create_group()
        await self._stage.start_server()
        self._line.tell(
            "server",
            f"key server, process {self._stage.server.pid}, group {group.name}: tree of degree {group.degree}, "
            f"suite {group.suite}, keys in a SQLite file",
        )

    async def _form(self) -> None:
        members = self._members
        await self._stage.invite(len(members) + 1)
        turn = asyncio.Semaphore(_AT_ONCE)

        async def join(name: str) -> int:
            async with turn:
                await self._stage.start_device(name)
                slot: int = (await self._device(name).event("joined"))["slot"]
            return slot

        slots = await asyncio.gather(*map(join, members))
        async with self._stage.admin() as admin:
            group = await admin.show(self._stage.group)
        self._line.tell(
            "fleet",
            f"{len(slots)} devices have joined by invitation, each a process: {group.epoch} commits, tree of height "
            f"{group.height}",
            members=len(slots),
            epoch=group.epoch,
        )
        detail = f"{group.members} seats at the server, {len(set(slots))} devices each with a leaf of its own"
        self._line.check(Claim.FORMED, holds=group.members == len(set(slots)) == len(members), detail=detail)

    async def _talk(self) -> None:
        heard, sample = await self._hold_round(self._members)
        expected = len(self._members) * (len(self._members) - 1)
        self._line.tell("talk", f"each publishes this machine's readings: {sample}", messages=heard)
        detail = f"{heard} of {expected} messages opened"
        self._line.check(Claim.TALKED, holds=heard == expected, detail=detail)

    # Act 2: one goes, one comes.

    async def _evict_and_join(self) -> None:
        thief, newcomer = self._members[-1], f"m{len(self._members) + 1:02}"
        spy = self._device(thief)
        await spy.ask("copied", do="copy")
        await self._stage.start_device(newcomer, outsider=True)
        outsider = self._device(newcomer)
        await outsider.event("listening")
        await self._hold_round(self._members)
        before = await spy.ask("counted", do="count", messages=len(self._members))
        self._line.tell(
            "thief",
            f"{thief} keeps a copy of its keys and reads along with it: {before['opened']} of "
            f"{before['received']} messages opened",
        )
        async with self._stage.admin() as admin:
            begin = self._line.seconds
            outcome = await admin.evict(self._stage.group, thief)
        self._members.remove(thief)
        await asyncio.gather(self._evicted(thief), self._follow(outcome))
        took = (self._line.seconds - begin) * 1000
        self._line.tell("evict", f"{thief} is evicted: epoch {outcome.epoch}", epoch=outcome.epoch)
        detail = f"{len(self._members)} members have the new key {took:.0f} ms after the command"
        self._line.check(Claim.EVICTED, holds=outcome.published, detail=detail)
        await self._after_eviction(spy, thief, control=before["opened"])
        await self._join_late(outsider, newcomer)

    async def _after_eviction(self, spy: Process, thief: str, *, control: int) -> None:
        await spy.ask("forgot", do="forget")
        heard, _ = await self._hold_round(self._members)
        rest = len(self._members)
        self._line.tell("talk", f"the other {rest} go on: {heard} of {rest * (rest - 1)} messages opened")
        after = await spy.ask("counted", do="count", messages=rest)
        self._line.check(
            Claim.CUT_OFF,
            holds=control >= rest
            and after["received"] == after["refused"] == rest
            and after["opened"] == 0
            and heard == rest * (rest - 1),
            detail=f"{thief} received {after['received']} ciphertexts and opened {after['opened']}; it had opened "
            f"{control} before",
        )

    async def _join_late(self, outsider: Process, newcomer: str) -> None:
        recorded = 2 * len(self._members) + 1  # the round before the eviction and the one after it
        captured = await outsider.ask("captured", do="capture", messages=recorded)
        joined = await outsider.ask("joined", do="join")
        tried = await outsider.ask("tried", do="try")
        self._members.append(newcomer)
        self._epoch = joined["epoch"]
        self._line.tell(
            "join", f"{newcomer} recorded {captured['messages']} ciphertexts, then joined: epoch {joined['epoch']}"
        )
        self._line.check(
            Claim.NEW_BLIND,
            holds=tried["messages"] >= recorded and tried["opened"] == 0 and tried["refused"] == tried["messages"],
            detail=f"{tried['opened']} of {tried['messages']} opened with its new keys",
        )
        heard, _ = await self._hold_round(self._members)
        expected = len(self._members) * (len(self._members) - 1)
        detail = f"{heard} of {expected} messages of the next round opened"
        self._line.check(Claim.NEW_READS, holds=heard == expected, detail=detail)

    # Act 3: one sleeps, the server goes, both return.

    async def _sleep_and_return(self) -> None:
        sleeper, second = self._members[0], self._members[1]
        await self._device(sleeper).kill()
        self._members.remove(sleeper)
        slept_at = self._epoch
        self._line.tell("sleep", f"the process of {sleeper} is killed; it has the keys of epoch {slept_at}")
        await self._rekey(2, second)
        self._line.tell("rekey", f"an eviction, a new root key, all keys of the tree anew: epoch {self._epoch}")
        status = await self._stage.server.stop()
        self._line.tell("server", f"the key server is stopped (exit status {status})")
        await self._catch_up(sleeper, slept_at, status)
        if self._stage.broker_is_apart:
            heard, _ = await self._hold_round(self._members)
            expected = len(self._members) * (len(self._members) - 1)
            detail = f"{heard} of {expected} messages opened, those of {sleeper} among them"
            self._line.check(Claim.ALONE, holds=heard == expected, detail=detail)
        await self._return_server()

    async def _rekey(self, rotations: int, evicted: str) -> None:
        """Evict one member and rotate, one commit each; all who are awake follow each."""
        async with self._stage.admin() as admin:
            outcome = await admin.evict(self._stage.group, evicted)
            self._members.remove(evicted)
            await asyncio.gather(self._evicted(evicted), self._follow(outcome))
            for number in range(rotations):
                await self._follow(await admin.rotate(self._stage.group, everything=number % 2 == 1))

    async def _catch_up(self, sleeper: str, slept_at: int, status: int) -> None:
        begin = self._line.seconds
        await self._stage.start_device(sleeper)
        resumed = await self._device(sleeper).event("resumed")
        joined = await self._device(sleeper).event("joined")
        self._members.append(sleeper)
        self._line.tell(
            "wake", f"{sleeper} starts again from the state that it had saved, and comes to epoch {joined['epoch']}"
        )
        missed = self._epoch - resumed["epoch"]
        self._line.check(
            Claim.SLEPT,
            holds=resumed["epoch"] == slept_at and missed == _MISSED,
            detail=f"its state was of epoch {resumed['epoch']}, the group is at {self._epoch}",
        )
        self._line.check(
            Claim.CAUGHT_UP,
            holds=joined["epoch"] == self._epoch and status == 0 and self._stage.server.pid == 0,
            detail=f"{missed} rekeys in {self._line.seconds - begin:.1f} s, with the process's start",
        )

    async def _return_server(self) -> None:
        out = self._members[1]
        async with self._stage.admin() as admin:
            outcome = await admin.evict(self._stage.group, out)
        await self._stage.start_server()
        self._members.remove(out)
        await asyncio.gather(self._evicted(out), self._follow(outcome))
        heard, _ = await self._hold_round(self._members)
        expected = len(self._members) * (len(self._members) - 1)
        self._line.tell("server", f"the key server is back: {out} is out, epoch {outcome.epoch}", epoch=outcome.epoch)
        self._line.check(
            Claim.RETURNED,
            holds=not outcome.published and heard == expected,
            detail=f"{len(self._members)} members followed, {heard} of {expected} messages opened",
        )
        await self._stage.server.kill()
        await self._stage.start_server()
        async with self._stage.admin() as admin:
            outcome = await admin.rotate(self._stage.group)
        await self._follow(outcome)
        heard, _ = await self._hold_round(self._members)
        self._line.tell("server", f"the key server was killed and started again: epoch {outcome.epoch}")
        self._line.check(
            Claim.SURVIVED,
            holds=heard == expected,
            detail=f"{len(self._members)} members have the new key, {heard} of {expected} messages opened",
        )

    # What the acts are made of.

    def _device(self, name: str) -> Process:
        return self._stage.devices[name]

    async def _evicted(self, name: str) -> None:
        await self._device(name).hear(lambda said: said.get("what") == "Evicted", "its eviction")

    async def _follow(self, outcome: Outcome) -> None:
        """Return when all members have the key of the outcome's epoch."""
        self._epoch = outcome.epoch

        async def follow(name: str) -> None:
            await self._device(name).hear(
                lambda said: said["event"] == "happened" and said["epoch"] >= outcome.epoch, f"epoch {outcome.epoch}"
            )

        await asyncio.gather(*map(follow, self._members))

    async def _hold_round(self, members: Iterable[str]) -> tuple[int, str]:
        """Let all publish and read; return how many messages were opened in all, and one of them for people."""
        names = list(members)
        self._round += 1
        for name in names:
            self._device(name).tell(do="round", number=self._round, **{"from": names})
        answers = await asyncio.gather(*(self._device(name).event("round") for name in names))
        sender, reading = answers[0]["sample"]
        return sum(answer["heard"] for answer in answers), f"{sender}: {describe(reading)}"

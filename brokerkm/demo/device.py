"""The process of one member: ``python -m brokerkm.demo.device``.

It is told by lines of JSON on standard input what to do, and says by such lines on standard output what happened. The
first line says who it is. It ends when standard input does.

    {"member": "m07", "descriptor": PATH, "state": DIRECTORY, "url": URL, "outsider": false}
    {"do": "round", "number": 3, "from": ["m01", ...]}    publish a reading; say when all others' have come
    {"do": "join"}                                        an outsider becomes a member
    {"do": "copy"}                                        keep a copy of the keys, as a thief would, and use that
    {"do": "forget"}                                      count anew what the copy opens
    {"do": "count", "messages": 19}                       say how many the copy has opened of so many
    {"do": "capture", "messages": 19}                     say when an outsider has recorded so many
    {"do": "try"}                                         open with today's keys what was recorded before
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import brokerkm
from brokerkm.core.member import Member
from brokerkm.core.names import Topics
from brokerkm.demo import readings
from brokerkm.demo.process import say
from brokerkm.demo.spy import Spy
from brokerkm.errors import BrokerkmError, EvictedError
from brokerkm.transport import Options

if TYPE_CHECKING:
    from collections.abc import Collection

    from brokerkm.core.events import MessageReceived
    from brokerkm.sdk.fleet import Fleet

PATIENCE: Final = 40.0  # seconds after which a step has failed
_STATE_FILE: Final = "member.state"


class Device:
    """One member, as the first line describes it."""

    def __init__(self, who: dict[str, Any]) -> None:
        self._member: Final[str] = who["member"]
        self._state: Final = Path(who["state"])
        self._url: Final[str] = who["url"]
        self._descriptor: Final = brokerkm.Descriptor.read(who["descriptor"])
        self._topics: Final = Topics(self._descriptor.group, self._descriptor.prefix)
        self._rounds: Final[dict[int, dict[str, dict[str, float]]]] = {}
        self._heard: Final = asyncio.Condition()
        self._stack: Final = contextlib.AsyncExitStack()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._fleet: Fleet | None = None
        self._spy: Spy | None = None

    async def run(self, commands: asyncio.StreamReader, *, outsider: bool) -> None:
        """Do what is said until standard input ends."""
        async with self._stack:
            if outsider:
                await self._listen()
            else:
                await self._join()
            while line := await commands.readline():
                command = json.loads(line)
                self._begin(getattr(self, f"_do_{command.pop('do')}")(**command))
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Any) -> None:  # noqa: ANN401 - a coroutine of a command
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            say("failed", error=f"{type(error).__name__}: {error}")

    # Membership.

    async def _join(self) -> None:
        fleet = brokerkm.connect(
            self._url,
            self._descriptor,
            member=self._member,
            state_dir=self._state,
            timeout=PATIENCE,
            options=Options(client_id=f"{self._topics.group}-{self._member}"),
        )
        if (self._state / _STATE_FILE).exists():
            say("resumed", epoch=Member.load(self._saved_keys(), os.urandom, time.time()).epoch)
        events = fleet.events()
        self._fleet = await self._stack.enter_async_context(fleet)
        messages = await self._stack.enter_async_context(fleet.messages(f"{fleet.group}/#"))
        self._begin(self._report(events))
        self._begin(self._take(messages))
        say("joined", epoch=fleet.epoch, slot=fleet.slot, identity=fleet.identity.hex())

    async def _do_join(self) -> None:
        await self._join()
        if self._spy is not None:
            await self._spy.use(self._saved_keys())

    async def _report(self, events: Any) -> None:  # noqa: ANN401 - the SDK's
        async for event in events:
            fleet = self._fleet
            say("happened", what=type(event).__name__, epoch=0 if fleet is None else fleet.epoch)

    async def _take(self, messages: Any) -> None:  # noqa: ANN401 - the SDK's
        with contextlib.suppress(EvictedError):
            async for message in messages:
                await self._note(message)

    async def _note(self, message: MessageReceived) -> None:
        reading = json.loads(message.payload)
        async with self._heard:
            self._rounds.setdefault(reading.pop("round"), {})[message.sender] = reading
            self._heard.notify_all()

    # Rounds.

    async def _do_round(self, number: int, **names: Collection[str]) -> None:
        fleet = self._joined()
        topic = f"{fleet.group}/{self._member}/reading"
        await fleet.publish(topic, json.dumps({"round": number, **readings.read()}).encode(), timeout=PATIENCE)
        wanted = set(names["from"]) - {self._member}
        heard = self._rounds.setdefault(number, {})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE), self._heard:
                await self._heard.wait_for(lambda: wanted <= heard.keys())
        missing = sorted(wanted - heard.keys())
        sample = next(((name, heard[name]) for name in sorted(wanted & heard.keys())), None)
        say("round", number=number, heard=len(wanted) - len(missing), missing=missing, sample=sample)

    # A thief of this device's keys.

    async def _listen(self) -> None:
        spy = self._spy = await Spy.start(self._url, self._topics, self._member, f"{self._topics.group}/#")
        self._stack.push_async_callback(spy.close)
        say("listening")

    async def _do_copy(self) -> None:
        await self._listen()
        await self._use().use(self._saved_keys())
        say("copied")

    async def _do_forget(self) -> None:
        self._use().forget()
        say("forgot")

    async def _do_capture(self, messages: int) -> None:
        spy = self._use()
        with contextlib.suppress(TimeoutError):
            await spy.capture(messages, PATIENCE)
        say("captured", messages=len(spy.captured))

    async def _do_count(self, messages: int) -> None:
        spy = self._use()
        with contextlib.suppress(TimeoutError):
            await spy.decide(messages, PATIENCE)
        say("counted", received=len(spy.captured), opened=spy.opened, refused=spy.refused)

    async def _do_try(self) -> None:
        """Try the keys on what was captured before they were there."""
        spy = self._use()
        captured = list(spy.captured)
        spy.forget()
        spy.try_all(captured)
        with contextlib.suppress(TimeoutError):
            await spy.decide(len(captured), PATIENCE)
        say("tried", messages=len(captured), opened=spy.opened, refused=spy.refused)

    def _saved_keys(self) -> bytes:
        return (self._state / _STATE_FILE).read_bytes()

    def _joined(self) -> Fleet:
        if self._fleet is None:
            message = "not a member"
            raise ValueError(message)
        return self._fleet

    def _use(self) -> Spy:
        if self._spy is None:
            message = "nobody listens"
            raise ValueError(message)
        return self._spy


async def main() -> None:
    """Live the life of one device."""
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    who = json.loads(await commands.readline())
    outsider = who.pop("outsider")
    try:
        await Device(who).run(commands, outsider=outsider)
    except BrokerkmError as error:
        say("failed", error=str(error))


if __name__ == "__main__":
    asyncio.run(main())

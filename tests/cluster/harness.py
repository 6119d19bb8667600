"""Key servers as processes beside each other, and a witness of what they publish."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgpack

from brokerkm.core.names import Topics
from brokerkm.core.rekey import Beacon
from brokerkm.descriptor import Descriptor
from brokerkm.errors import StoreError
from brokerkm.transport import Delivery, Options, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

LEASE: Final = 1.5  # seconds
PATIENCE: Final = 30.0  # seconds that a test waits for what has to come
PEER: Final = Path(__file__).with_name("peer.py")


class Server:
    """One server's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())
        self._news = asyncio.Condition()
        self.led: dict[str, float] = {}  # groups that it leads, and since when on our clock
        self.serving = asyncio.Event()
        self.id = ""

    async def call(self, group: str, name: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Have a call performed; raises `StoreError` with the error that the server printed."""
        number = next(self._numbers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([number, group, name, arguments]).encode() + b"\n")
        async with asyncio.timeout(PATIENCE):
            error, result = await future
        if error is not None:
            raise StoreError(error)
        return result

    async def leads(self, group: str) -> float:
        """Return when it began to lead a group, once it does."""
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: group in self.led)
        return self.led[group]

    async def yields(self, group: str) -> None:
        """Return once it does not lead a group."""
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: group not in self.led)

    def signal(self, what: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(what)

    async def kill(self) -> None:
        """End it as a loss of power would."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        await self._reader

    async def stop(self) -> None:
        """Let it end in its own way."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            assert 0 == await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            head, *rest = json.loads(line)
            async with self._news:
                match head:
                    case "serving":
                        self.serving.set()
                    case "lead":
                        self.led[rest[0]] = time.monotonic()
                    case "yield":
                        self.led.pop(rest[0], None)
                    case _:
                        self._answers.pop(head).set_result(rest)
                self._news.notify_all()


class Cluster:
    """Servers on one database and one broker; all that still run are killed in the end."""

    def __init__(self, database: str, broker: str) -> None:
        self.database = database
        self.broker = broker
        self.servers: list[Server] = []

    async def start(self, broker: str | None = None) -> Server:
        """Start one more server, at the broker or by another way to it."""
        command = [sys.executable, str(PEER), self.database, broker or self.broker, str(LEASE)]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        server = Server(process)
        self.servers.append(server)
        async with asyncio.timeout(PATIENCE):
            await server.serving.wait()
        server.id = await server.call("", "me")
        return server

    async def leader(self, group: str) -> Server:
        """Return the server that leads a group, once one does."""
        tasks = [asyncio.create_task(server.leads(group)) for server in self.servers]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.wait(tasks)
        first = done.pop()
        first.result()
        return self.servers[tasks.index(first)]

    async def settled(self, balanced: Callable[[dict[str, list[str]]], bool]) -> dict[str, list[str]]:
        """Return who leads what, as soon as that is as it should be; asked again and again, because nobody tells."""
        async with asyncio.timeout(PATIENCE):
            while True:
                shares: dict[str, list[str]] = await self.servers[-1].call("", "servers")
                if balanced(shares):
                    return shares
                await asyncio.sleep(0.05)

    async def invite(self, server: Server, group: str, uses: int = 20) -> Descriptor:
        """Return a descriptor with a token."""
        return Descriptor.from_json(await server.call(group, "invite", uses=uses))


@contextlib.asynccontextmanager
async def cluster(database: str, broker: str, servers: int) -> AsyncGenerator[Cluster]:
    """Run so many servers, and more if the test starts them."""
    made = Cluster(database, broker)
    try:
        await asyncio.gather(*(made.start() for _ in range(servers)))
        yield made
    finally:
        for server in made.servers:
            await server.kill()


class Witness:
    """Sees all that is published for a group, and that no epoch is used for two different things."""

    def __init__(self, group: str) -> None:
        self.topics = Topics(group)
        self.messages: dict[tuple[str, int], bytes] = {}
        self.epochs: list[int] = []
        self.failure: str | None = None

    async def watch(self, url: str, ready: asyncio.Event) -> None:
        """Watch until cancelled."""
        transport = create(url, Options())
        await transport.open()
        try:
            await transport.subscribe([self.topics.beacon, f"{self.topics.root}/n/#"])
            ready.set()
            async for item in transport.incoming():
                if isinstance(item, Delivery):
                    self.see(item)
        finally:
            await transport.close()

    def see(self, item: Delivery) -> None:
        """Note one message."""
        if item.topic == self.topics.beacon:
            beacon = Beacon.decode(item.payload)
            self.epochs.append(beacon.epoch)
            key, what = (item.topic, beacon.epoch), b"%d %d" % (beacon.birth, beacon.step)
        else:
            key, what = (item.topic, msgpack.unpackb(item.payload)[2]), item.payload
        if what != self.messages.setdefault(key, what):
            self.failure = f"epoch {key[1]} was used twice on {item.topic}"


@contextlib.asynccontextmanager
async def witnessed(group: str, url: str) -> AsyncGenerator[Witness]:
    """Watch a group, and see in the end that each epoch meant one thing and that epochs only grew."""
    witness = Witness(group)
    ready = asyncio.Event()
    task = asyncio.create_task(witness.watch(url, ready))
    await ready.wait()
    try:
        yield witness
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert witness.failure is None
    assert witness.epochs == sorted(witness.epochs), "an old Beacon came after a newer one"

"""The processes of the demonstration, all in one private directory: broker, key server, devices.

Over MQTT the broker is amqtt in a process of its own, or the one that a URL names. Over ZeroMQ the key server is the
hub itself, and the devices are connected to a forwarder, which keeps the last values while the hub is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Final

from brokerkm.api import open_admin
from brokerkm.core.names import Topics
from brokerkm.demo.process import Process
from brokerkm.transport import Options, Outgoing, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from brokerkm.service import AdminApi, GroupInfo

HOLD: Final = 2  # seconds that a message waits for its key; also until one that cannot be opened is given up
BEACON_INTERVAL: Final = 2  # seconds
INTERVAL: Final = "0.1"  # seconds that joins wait for each other
_DEGREE: Final = 4
_LEVELS: Final = 8  # of a tree whose retained messages are cleared; 4^8 members


class Stage:
    """Broker, server and devices; `close` ends them all.

    Args:
        directory: private, removed by whoever made it.
        transport: mqtt or zmq.
        broker: URL of an MQTT broker, or None to start one.
    """

    def __init__(self, directory: Path, transport: str, broker: str | None) -> None:
        self._directory: Final = directory
        self._is_zmq: Final = transport == "zmq"
        self._given: Final = broker
        self.group: Final = f"demo-{secrets.token_hex(3)}"
        self.devices: Final[dict[str, Process]] = {}
        self._hub: Final = f"zmq+ipc://{directory}/hub"
        self.url = f"zmq+ipc://{directory}/forward" if self._is_zmq else broker or ""
        self._broker: Process | None = None
        self._server: Process | None = None

    @property
    def broker_is_apart(self) -> bool:
        """Whether members can send while the key server is stopped."""
        return not self._is_zmq

    @property
    def _state(self) -> Path:
        return self._directory / "server"

    @property
    def server(self) -> Process:
        """The key server, once its broker is there."""
        if self._server is None:
            command = ["-m", "brokerkm", "serve", "--json", "--interval", INTERVAL, "--state", str(self._state)]
            broker = {"BROKERKM_BROKER": self._hub if self._is_zmq else self.url}
            self._server = self._process("key server", command, broker)
        return self._server

    def _process(self, name: str, arguments: list[str], environment: Mapping[str, str] | None = None) -> Process:
        return Process(name, arguments, self._directory / f"{name.replace(' ', '-')}.log", environment)

    async def start_broker(self) -> str:
        """Start what connects members and server, if it is not there; return what it is."""
        if self._is_zmq:
            return "no broker: the key server is a ZeroMQ hub, members connect to a forwarder"
        if self._given is not None:
            return f"the broker at {self._given}"
        self._broker = self._process("broker", ["-m", "brokerkm.demo.broker"])
        await self._broker.start()
        self.url = (await self._broker.event("serving"))["url"]
        return f"amqtt at {self.url}, process {self._broker.pid}"

    async def create_group(self) -> GroupInfo:
        """Create the group, in the store, before the server starts."""
        policy = {"hold": HOLD}
        async with self.admin() as admin:
            return await admin.create_group(self.group, degree=_DEGREE, policy=policy, beacon_interval=BEACON_INTERVAL)

    async def start_server(self) -> None:
        """Start the key server; returns when it serves."""
        await self.server.start()
        await self.server.hear(lambda said: "broker" in said, "start")
        if self._is_zmq and self._broker is None:
            self._broker = self._process("forwarder", ["-m", "brokerkm", "zmq-forwarder", self._hub, self.url])
            await self._broker.start()

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncGenerator[AdminApi]:
        """Administer the group, by the server if it runs, or in the store, which the first use makes."""
        async with open_admin(self._state, create=True) as admin:
            yield admin

    async def invite(self, uses: int) -> None:
        """Write the descriptor for the devices."""
        async with self.admin() as admin:
            descriptor = await admin.invite(self.group, uses=uses, broker=self.url)
        descriptor.write(self._descriptor)

    @property
    def _descriptor(self) -> Path:
        return self._directory / "fleet.join"

    async def start_device(self, name: str, *, outsider: bool = False) -> None:
        """Start a device's process, or start it again."""
        device = self.devices.setdefault(name, self._process(name, ["-m", "brokerkm.demo.device"]))
        await device.start()
        device.tell(
            member=name,
            descriptor=str(self._descriptor),
            state=str(self._directory / "members" / name),
            url=self.url,
            outsider=outsider,
        )

    async def close(self) -> None:
        """End all processes, and leave nothing at a broker that is not ours."""
        await asyncio.gather(*(device.stop() for device in self.devices.values()))
        if self._server is not None:
            await self._server.stop()
        if self._broker is not None:
            await self._broker.stop()
        elif self._given is not None:
            await self._clear(self._given)

    async def _clear(self, url: str) -> None:
        """Clear what the broker retained of the group."""
        topics = Topics(self.group)
        names = [topics.beacon, *map(topics.member, self.devices)]
        for level in range(_LEVELS):
            span = _DEGREE ** max(level, 1)
            names += [topics.node(level, index) for index in range(len(self.devices) // span + 1)]
        transport = create(url, Options(client_id=f"{self.group}-cleaner"))
        await transport.open()
        try:
            await transport.publish_batch([Outgoing(name, b"", retain=True) for name in names])
        finally:
            await transport.close()

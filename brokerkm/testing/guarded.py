"""Where a guard's conformance test runs: a broker that can be stopped, a key server that keeps it, and devices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Suite
from brokerkm.core.login import Principal, password
from brokerkm.core.names import Topics
from brokerkm.errors import BrokerkmError, TransportError
from brokerkm.service.changes import PendingJoin
from brokerkm.service.guarded import StoredFleet, guarding
from brokerkm.service.server import KeyServer
from brokerkm.store.memory import MemoryStore
from brokerkm.testing.site import PATIENCE
from brokerkm.transport import Connected, Delivery, Disconnected, Options, Outgoing, Role, create

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from brokerkm.guard.fleet import Fleet
    from brokerkm.guard.rules import Grant
    from brokerkm.guard.seam import BrokerGuard
    from brokerkm.guard.warden import Warden
    from brokerkm.transport import Transport

GROUP: Final = "plant"
MEMBERS: Final = ("alice", "bob", "carol", "dave")  # all that ever log in, for brokers that want to know them before
_PAUSE: Final = 0.05  # seconds between two looks at what nobody tells
_KEM_SEED: Final = bytes(range(32))


class Device:
    """A member id with its identity key; it has no other keys, because the kit reads no messages."""

    def __init__(self, member: str) -> None:
        self.member: Final = member
        self.key: Final = Ed25519PrivateKey.generate()

    @property
    def identity(self) -> bytes:
        """The public identity key."""
        return self.key.public_key().public_bytes_raw()

    @property
    def login(self) -> tuple[str, str]:
        """User name and password by the identity key (`brokerkm.core.login`)."""
        principal = Principal(GROUP, self.member)
        return principal.username, password(principal, self.identity, self.key.sign)


class GuardedSite:
    """A broker that a guard keeps; inherit from it, and say how it is run.

    Attributes:
        url: where devices and the key server connect.
        server_options: the key server's own login, as fields of `brokerkm.transport.Options`.
    """

    url: str = ""
    server_options: Mapping[str, Any] = {}

    async def start_broker(self) -> None:
        """Start the broker on the same place as before, with all that it had kept."""
        raise NotImplementedError

    async def stop_broker(self) -> None:
        """Stop it; may be called twice."""
        raise NotImplementedError

    async def lose_state(self) -> None:
        """Forget all that the broker has kept of members, while it is stopped; nothing where it keeps nothing."""

    def guard(self, fleet: Fleet) -> BrokerGuard:
        """Return the guard, not yet open; it is asked for each time that a key server starts."""
        raise NotImplementedError

    async def login(self, device: Device) -> tuple[str, str]:
        """Return a device's user name and password; it is asked for while the key server runs."""
        return device.login


class Client:
    """A connection to the broker, with all that has come in."""

    def __init__(self, transport: Transport) -> None:
        self.transport: Final = transport
        self.heard: Final[list[tuple[str, bytes]]] = []
        self.connected = False
        self._moved: Final = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect; raises `TransportError`."""
        await self.transport.open()
        self._task = asyncio.get_running_loop().create_task(self._read())

    async def close(self) -> None:
        """Disconnect."""
        await self.transport.close()
        if self._task is not None:
            await self._task

    async def subscribe(self, *filters: str) -> None:
        """Subscribe one after the other, whatever the broker says to it."""
        for pattern in filters:
            with contextlib.suppress(BrokerkmError):
                await self.transport.subscribe([pattern])

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish, whatever the broker says to it."""
        with contextlib.suppress(BrokerkmError):
            await self.transport.publish(Outgoing(topic, payload, retain))

    async def hears(self, *wanted: tuple[str, bytes]) -> None:
        """Return when all of this has come in; fails after a while."""
        await self._until(lambda: set(wanted) <= set(self.heard), f"it hears {wanted}")

    async def is_gone(self) -> None:
        """Return when the broker has disconnected it; fails after a while."""
        await self._until(lambda: not self.connected, "the broker disconnects it")

    def topics(self, payload: bytes) -> set[str]:
        """Return where a payload has come in."""
        return {topic for topic, heard in self.heard if heard == payload}

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        async with self._moved:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._moved.wait_for(condition)
            except TimeoutError:
                message = f"it was waited in vain until {what}; it has heard {self.heard}"
                raise AssertionError(message) from None

    async def _read(self) -> None:
        self.connected = True
        async for item in self.transport.incoming():
            async with self._moved:
                match item:
                    case Delivery(topic, payload):
                        self.heard.append((topic, payload))
                    case Connected():
                        self.connected = True
                    case Disconnected():
                        self.connected = False
                self._moved.notify_all()


class Yard:
    """A group of degree 2 behind a guarded broker: alice, carol and bob have the places 0, 1 and 2; dave has none.

    So alice and carol share a bucket, and bob sits in another one.
    """

    def __init__(self, site: GuardedSite) -> None:
        self.site: Final = site
        self.topics: Final = Topics(GROUP)
        self.devices: Final = {name: Device(name) for name in MEMBERS}
        self._store: Final = MemoryStore()
        self._clients: Final[list[Client]] = []
        self._running: contextlib.AsyncExitStack | None = None
        self._server: KeyServer | None = None

    @property
    def server(self) -> KeyServer:
        """The key server that runs now."""
        assert self._server is not None
        return self._server

    @property
    def warden(self) -> Warden:
        """What keeps the guard in step."""
        assert self.server.publisher is not None
        assert self.server.publisher.warden is not None
        return self.server.publisher.warden

    async def begin(self) -> None:
        """Start the broker and the key server, and seat all members but one."""
        await self.site.start_broker()
        await self.start_server()
        await self.server.admin.create_group(GROUP, degree=2)
        for name in ("alice", "carol", "bob"):
            await self.seat(name)
        await self.settle()

    async def end(self) -> None:
        """Stop everything."""
        for client in self._clients:
            await client.close()
        await self.stop_server()
        await self.site.stop_broker()

    async def start_server(self) -> None:
        """Start the key server with its guard, on the store that is there."""
        options = Options(role=Role.SERVER, **self.site.server_options)
        server = KeyServer(self._store, create(self.site.url, options), interval=0, retained_wait=0.2)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(guarding(server, self.site.guard))
            await stack.enter_async_context(server)
            self._server, self._running = server, stack.pop_all()

    async def stop_server(self) -> None:
        """Stop the key server and its guard; may be called twice."""
        if self._running is not None:
            await self._running.aclose()
        self._running = self._server = None

    async def seat(self, name: str) -> None:
        """Give a device a place, as an operator does who lists its key."""
        await self.server.admin.add_member(GROUP, name, self.devices[name].identity)
        kem_public = Suite.X25519.public_key(_KEM_SEED)
        who = Enrollment(name, self.devices[name].identity, kem_public, os.urandom(16))
        join = PendingJoin(who, int(time.time() * 1000), None, "operator", credential="the kit")
        await self.server.groups[GROUP].seat(join)

    async def settle(self) -> None:
        """Return when the broker is as the store says."""
        assert await self.warden.settled(PATIENCE), f"the guard is not in step: {self.warden.failure}"
        assert self.warden.failure is None

    async def differences(self) -> list[str]:
        """Return what the guard finds to be different at the broker."""
        return [f"{one.group} {one.member} {one.what}" async for one in self.warden.guard.diff()]

    async def slot(self, name: str) -> int:
        """Return a member's place."""
        record = await self._record(name)
        assert record.slot is not None
        return record.slot

    async def own(self, name: str) -> list[str]:
        """Return the topics of the protocol that a member reads."""
        return list((await self._record(name)).subscriptions(self.server.groups[GROUP].group.tree.height))

    async def _record(self, name: str) -> Grant:
        fleet = StoredFleet(self.server.store, self.server.desk)
        record = await fleet.member(GROUP, name)
        grant = None if record is None else (await fleet.groups())[GROUP].grant(record)
        assert grant is not None
        return grant

    async def keyserver(self) -> Client:
        """Connect as the key server, beside it."""
        return await self._open(Options(role=Role.SERVER, **self.site.server_options))

    async def client(self, name: str, patience: float = PATIENCE) -> Client:
        """Connect as a device; raises `TransportError` if the broker does not let it in.

        Args:
            patience: seconds that each operation may take; a broker that hangs up instead of refusing is asked again.
        """
        username, secret = await self.site.login(self.devices[name])
        return await self.client_as(username, secret, patience)

    async def client_as(self, username: str | None, secret: str | None, patience: float = PATIENCE) -> Client:
        """Connect with this user name and password, and a client id that nobody else has."""
        client_id = f"kit-{secrets.token_hex(6)}"
        return await self._open(Options(username=username, password=secret, client_id=client_id, timeout=patience))

    async def _open(self, options: Options) -> Client:
        client = Client(create(self.site.url, options))
        try:
            await client.open()
        except BaseException:
            await client.close()
            raise
        self._clients.append(client)
        return client

    async def lets_in(self, name: str) -> bool:
        """Return whether the broker lets a device in now."""
        try:
            await self.client(name)
        except TransportError:
            return False
        return True

    async def evict(self, name: str) -> None:
        """Cut a member off; return as soon as that is stored."""
        await self.server.groups[GROUP].evict(name, urgent=True)


async def eventually(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Return once a condition holds that nobody tells of."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not await condition():  # noqa: ASYNC110 - it is told by nobody
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        message = f"it was waited in vain until {what}"
        raise AssertionError(message) from None


def forbidden(topics: Topics, *, paths: bool) -> Sequence[str]:
    """Return filters by which alice would hear what is not hers.

    Args:
        paths: whether the broker knows which rekey topics are whose.
    """
    root = topics.root
    wildcards = (
        "#",
        "+/#",
        "+/+/+/m/+",
        f"{root}/#",
        f"{root}/m/+",
        f"{root}/r/#",
        f"$share/kit/{root}/m/bob",
        "$share/kit/#",
    )
    sibling = (topics.node(0, 1), topics.node(1, 1), f"{root}/n/+/+", f"{root}/n/0/+", f"$share/kit/{root}/n/0/1")
    return (*wildcards, topics.member("bob"), topics.request("bob"), *(sibling if paths else ()))

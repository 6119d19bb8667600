"""The conformance kit on ZeroMQ: TCP, TCP with CURVE, a socket in the file system, a forwarder."""

from __future__ import annotations

import contextlib
import urllib.parse
from typing import TYPE_CHECKING, Any, cast

import pytest_asyncio
from brokers import hub

from brokerkm.testing import Cable, Ends, ReconnectConformance, Site, TransportConformance
from brokerkm.testing.site import Listener
from brokerkm.transport import Connected, Disconnected, Options, Outgoing, Role
from brokerkm_zmq import keys
from brokerkm_zmq.forwarder import Forwarder

if TYPE_CHECKING:
    import pathlib
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from brokerkm.transport import Transport


def port_of(url: str) -> int:
    """Return a URL's port."""
    port = urllib.parse.urlsplit(url).port
    assert port is not None
    return port


@contextlib.asynccontextmanager
async def cabled(server_url: str, **needed: dict[str, Any]) -> AsyncIterator[Site]:
    """Give a site whose members' lines, both of them, can be cut."""
    member_url = hub.tcp_url()
    near, far = port_of(member_url), port_of(server_url)
    down, up = Cable("127.0.0.1", far), Cable("127.0.0.1", far + 1)
    down.port, up.port = near, near + 1

    async def cut() -> None:
        await down.cut()
        await up.cut()

    async def mend() -> None:
        await down.mend()
        await up.mend()

    async with down, up:
        yield Site(server_url=server_url, member_url=member_url, cut=cut, mend=mend, **needed)  # type: ignore[arg-type]


class HubFirst(Ends):
    """ZeroMQ has no broker between the ends: before a member there must be a server."""

    _served = False

    async def open(self, role: Role, **options: object) -> Transport:
        """Open a transport, and before the first member a server if the test has none."""
        if role is Role.MEMBER and not self._served:
            await self.server()
        self._served = True
        return await super().open(role, **options)


class ZmqConformance(TransportConformance):
    """The kit with a server in every test."""

    @pytest_asyncio.fixture
    async def ends(self, site: Site) -> AsyncGenerator[Ends]:
        """Yield what makes transports at the site and closes them."""
        async with contextlib.AsyncExitStack() as stack:
            yield HubFirst(site, stack)


class ZmqReconnect(ZmqConformance, ReconnectConformance):
    """What restarts is the server."""

    async def test_broker_restarts(self, ends: Ends) -> None:
        """A member finds a new server at the same address, and its last values."""
        server, member = await ends.server(), await ends.member()
        await member.subscribe([ends.topic("1")])
        listener = Listener(member)
        await listener.event(Connected)
        await server.close()
        await listener.event(Disconnected)
        again = await ends.server()
        await again.subscribe([f"{ends.base}/r/+"])
        await again.publish(Outgoing(ends.topic("1"), b"to member", retain=True))
        assert (await listener.delivery()).payload == b"to member"
        await member.request(f"{ends.base}/r/member", b"to server")
        assert (await Listener(again).delivery()).payload == b"to server"


class TestTcp(ZmqReconnect):
    """In the clear, on loopback."""

    @pytest_asyncio.fixture
    async def site(self) -> AsyncIterator[Site]:
        """Give a cable to the server."""
        async with cabled(hub.tcp_url()) as site:
            yield site


class TestCurve(ZmqReconnect):
    """With CURVE: the server has a list of one member, whose pinned key is the server's."""

    @pytest_asyncio.fixture
    async def site(self, tmp_path: pathlib.Path) -> AsyncIterator[Site]:
        """Give keys to both ends, the list to the server, and a cable to it."""
        server, member = keys.make_key_file(str(tmp_path / "server")), keys.make_key_file(str(tmp_path / "member"))
        (tmp_path / "server.pub").write_text(server.public)
        (tmp_path / "members").write_text(f"{member.public} member\n")
        async with cabled(
            hub.tcp_url(),
            server_options={"key_file": str(tmp_path / "server"), "parameters": {"members": str(tmp_path / "members")}},
            member_options={"key_file": str(tmp_path / "member"), "ca_file": str(tmp_path / "server.pub")},
        ) as site:
            yield site


class TestIpc(ZmqConformance):
    """Through a socket in the file system."""

    @pytest_asyncio.fixture
    async def site(self) -> AsyncIterator[Site]:
        """Give a path of its own."""
        with hub.ipc_url() as url:
            yield Site(server_url=url, member_url=url)


class Mirrored:
    """A server that has accepted a message when a forwarder has it too: so what a late joiner gets is certain.

    Args:
        server: the transport at the root.
        witness: a member of the forwarder that has subscribed MARK.
    """

    MARK = "mirrored"

    def __init__(self, server: Transport, witness: hub.Watched) -> None:
        self._server = server
        self._witness = witness
        self._marks = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._server, name)

    async def publish(self, message: Outgoing) -> None:
        """Publish, and see it mirrored."""
        await self.publish_batch([message])

    async def publish_batch(self, messages: Sequence[Outgoing]) -> None:
        """Publish, and see the last mirrored."""
        self._marks += 1
        mark = b"%d" % self._marks
        await self._server.publish_batch([*messages, Outgoing(self.MARK, mark)])
        await self._witness.until(lambda _: any(item.payload == mark for item in self._witness.delivered))


class Forwarded(HubFirst):
    """Members sit behind a forwarder, which starts after the server."""

    async def open(self, role: Role, **options: object) -> Transport:
        """Open a transport, and after the server its forwarder."""
        transport = await super().open(role, **options)
        if role is not Role.SERVER:
            return transport
        largest = {"max_payload": transport.max_payload}
        forwarder = Forwarder(
            self.site.server_url,
            Options(**largest),
            self.site.member_url,
            Options(role=Role.SERVER, **largest),
        )
        await forwarder.open()
        self._stack.push_async_callback(forwarder.close)
        witness = await self._stack.enter_async_context(hub.opened(self.site.member_url))
        await witness.transport.subscribe([Mirrored.MARK])
        return cast("Transport", Mirrored(transport, witness))


class TestForwarder(ZmqConformance):
    """Through a forwarder between two sockets in the file system."""

    @pytest_asyncio.fixture
    async def site(self) -> AsyncIterator[Site]:
        """Give two paths."""
        with hub.ipc_url() as server_url, hub.ipc_url() as member_url:
            yield Site(server_url=server_url, member_url=member_url)

    @pytest_asyncio.fixture
    async def ends(self, site: Site) -> AsyncGenerator[Ends]:
        """Yield what makes transports at the site and closes them."""
        async with contextlib.AsyncExitStack() as stack:
            yield Forwarded(site, stack)

    async def test_close_leaves_nothing_behind(self, ends: Ends) -> None:
        """A forwarder that comes and goes leaves nothing."""
        before = None
        async with hub.opened(ends.site.server_url, Role.SERVER):
            for _ in range(3):
                forwarder = Forwarder(ends.site.server_url, Options(), ends.site.member_url, Options(role=Role.SERVER))
                await forwarder.open()
                async with hub.opened(ends.site.member_url) as member:
                    await member.transport.subscribe(["#"])
                await forwarder.close()
                now = hub.possessions()
                assert now == (before or now)
                before = now

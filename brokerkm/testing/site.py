"""Where a conformance test runs: the two ends' addresses, and what they hear."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
from typing import TYPE_CHECKING, Any, Final, TypeVar

from brokerkm.transport import Connected, Delivery, Disconnected, Options, Role, Transport, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

PATIENCE: Final = 20.0  # seconds until a test gives up waiting for what must happen
_Event = TypeVar("_Event", Connected, Disconnected)


async def _absent() -> None:
    message = "this site has no network to break: inherit from TransportConformance alone"
    raise NotImplementedError(message)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A broker, or none, and how to reach it.

    Args:
        server_url, member_url: what each role connects to.
        server_options, member_options: what each role needs besides: user names, keys.
        cut, mend: break the member's line, and repair it; for `ReconnectConformance`.
        restart: stop the broker and start it again; for `ReconnectConformance`.
    """

    server_url: str
    member_url: str
    server_options: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    member_options: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    cut: Callable[[], Awaitable[None]] = _absent
    mend: Callable[[], Awaitable[None]] = _absent
    restart: Callable[[], Awaitable[None]] = _absent

    def make(self, role: Role, **options: Any) -> Transport:  # noqa: ANN401 - fields of Options
        """Return a transport for `role`, not yet open."""
        url, needed = (
            (self.server_url, self.server_options) if role is Role.SERVER else (self.member_url, self.member_options)
        )
        return create(url, Options(role=role, **{**needed, **options}))


class Listener:
    """What comes in at one transport, read one by one; nothing is read before it is asked for."""

    def __init__(self, transport: Transport) -> None:
        self._incoming = transport.incoming()

    async def delivery(self) -> Delivery:
        """Return the next delivery, passing over connection events."""
        async with asyncio.timeout(PATIENCE):
            while not isinstance(item := await anext(self._incoming), Delivery):
                pass
        return item

    async def deliveries(self, count: int) -> list[Delivery]:
        """Return as many deliveries."""
        return [await self.delivery() for _ in range(count)]

    async def event(self, kind: type[_Event]) -> _Event:
        """Return the next connection event of this kind, passing over everything else."""
        async with asyncio.timeout(PATIENCE):
            while not isinstance(item := await anext(self._incoming), kind):
                pass
        return item

    async def end(self) -> None:
        """Read until nothing more can come."""
        async with asyncio.timeout(PATIENCE):
            async for _ in self._incoming:
                pass


class Ends:
    """Transports at one site and in one group, whose topics no other test has; all are closed at the end."""

    def __init__(self, site: Site, stack: contextlib.AsyncExitStack) -> None:
        self.site = site
        self.base = f"bkm/1/t{secrets.token_hex(6)}"
        self._stack = stack

    def topic(self, name: str) -> str:
        """Return the name of a rekeying topic, which the server writes and members read."""
        return f"{self.base}/n/{name}"

    async def open(self, role: Role, **options: Any) -> Transport:  # noqa: ANN401 - fields of Options
        """Return an open transport."""
        transport = self.site.make(role, **options)
        await transport.open()
        self._stack.push_async_callback(transport.close)
        return transport

    async def server(self, **options: Any) -> Transport:  # noqa: ANN401 - fields of Options
        """Return an open transport of the server's role."""
        return await self.open(Role.SERVER, **options)

    async def member(self, **options: Any) -> Transport:  # noqa: ANN401 - fields of Options
        """Return an open transport of a member's role."""
        return await self.open(Role.MEMBER, **options)


@contextlib.asynccontextmanager
async def ends_at(site: Site) -> AsyncGenerator[Ends]:
    """Make `Ends`, and close every transport of theirs."""
    async with contextlib.AsyncExitStack() as stack:
        yield Ends(site, stack)

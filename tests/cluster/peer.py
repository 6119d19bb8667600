"""One key server among several, as a process: python peer.py DATABASE_URL BROKER_URL LEASE_SECONDS.

It obeys lines of JSON on standard input, [number, group, call, arguments], and prints [number, error, result]; what it
leads and yields it prints as ["lead" or "yield", group, epoch].
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from brokerkm.errors import BrokerkmError
from brokerkm.service import KeyServer
from brokerkm.service.api import ImportRow
from brokerkm.service.feed import Happening, Kind
from brokerkm.service.leased import LeasedLeadership
from brokerkm.store.postgres import PostgresStore
from brokerkm.transport import Options, Role, create

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Call = Callable[[str, Any], Awaitable[object]]


class Peer:
    """The calls that the tests need, performed by whoever leads the group."""

    def __init__(self, server: KeyServer, leadership: LeasedLeadership) -> None:
        self.server = server
        self.leadership = leadership
        leadership.courier.answer = self.perform

    async def dispatch(self, group: str, name: str, arguments: Any) -> object:  # noqa: ANN401 - JSON
        """Perform a call here or where the group is led."""
        match name:
            case "create":
                await self.server.admin.create_group(group, **arguments)
                return None
            case "servers":
                found = await self.leadership.servers()
                return {one.id: list(one.groups) for one in found if one.live}
            case "move":
                return await self.leadership.move(group, arguments["to"])
            case "me":
                return self.leadership.me.id
            case _ if group in self.server.groups:
                return await self.perform(group, name, arguments)
            case _:
                return await self.leadership.call(group, name, arguments)

    async def perform(self, group: str, name: str, arguments: Any) -> object:  # noqa: ANN401 - JSON
        """Perform a call here."""
        admin = self.server.admin
        match name:
            case "invite":
                return (await admin.invite(group, **arguments)).to_json()
            case "evict":
                return (await admin.evict(group, **arguments)).epoch
            case "rotate":
                return (await admin.rotate(group, **arguments)).epoch
            case "seat":
                return await self.seat(group, **arguments)
            case _:
                return (await admin.show(group)).epoch

    async def seat(self, group: str, members: int) -> int:
        """Seat so many members, whose devices are nowhere; return the epoch."""
        keys = [(Ed25519PrivateKey.generate(), X25519PrivateKey.generate()) for _ in range(members)]
        rows = [
            ImportRow(f"m{number}", one.public_key().public_bytes_raw(), two.public_key().public_bytes_raw())
            for number, (one, two) in enumerate(keys)
        ]
        await self.server.admin.import_members(group, rows)
        return (await self.server.admin.show(group)).epoch

    def tell(self, happening: Happening) -> None:
        """Print what is led and yielded."""
        if happening.kind in (Kind.LEAD, Kind.YIELD):
            live = self.server.groups.get(happening.group)
            say([str(happening.kind), happening.group, live.group.epoch if live else None])


def say(line: object) -> None:
    """Print one line of JSON."""
    print(json.dumps(line), flush=True)  # noqa: T201 - the test reads it


async def obey(peer: Peer, line: bytes) -> None:
    """Do what one line says."""
    number, group, name, arguments = json.loads(line)
    try:
        say([number, None, await peer.dispatch(group, name, arguments)])
    except BrokerkmError as error:
        say([number, f"{type(error).__name__}: {error}", None])


async def serve(database: str, broker: str, lease: float) -> None:
    """Serve until standard input ends."""
    with contextlib.closing(PostgresStore(database, bytes(32), lease)) as store:
        leadership = LeasedLeadership(store, lease)
        transport = create(broker, Options(role=Role.SERVER, client_id=leadership.me.id))
        server = KeyServer(store, transport, interval=0.2, retained_wait=0.2, broker=broker, leadership=leadership)
        peer = Peer(server, leadership)
        server.feed.listen(peer.tell)
        async with server, asyncio.TaskGroup() as tasks:
            say(["serving", "", None])
            reader = asyncio.StreamReader()
            await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
            )
            while line := await reader.readline():
                tasks.create_task(obey(peer, line))


logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
asyncio.run(serve(sys.argv[1], sys.argv[2], float(sys.argv[3])))

"""Administration from another process: the control socket, and the store itself while no server runs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket as socketlib
import stat
from typing import TYPE_CHECKING

import pytest

from brokerkm.core.crypto import Suite
from brokerkm.core.policy import Policy
from brokerkm.errors import StoreError, TransportError, UsageError
from brokerkm.service import STORE_FILE, Admin, ControlServer, KeyServer, RemoteAdmin, calls, control, open_admin
from brokerkm.service.local import CONTROL_SOCKET
from brokerkm.store import MemoryStore, SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from brokerkm.service import AdminApi


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncGenerator[Path]:
    """Start a server without a broker, and its control socket."""
    path = tmp_path / CONTROL_SOCKET
    async with KeyServer(MemoryStore(), interval=0, broker="memory://x") as server, ControlServer(server.admin, path):
        yield path


@pytest.fixture
async def remote(socket: Path) -> AsyncGenerator[RemoteAdmin]:
    """Connect to the control socket."""
    admin = await RemoteAdmin.connect(socket)
    yield admin
    await admin.close()


async def exercise(admin: AdminApi) -> list[object]:
    """Make every call once and return what came of it, but for what is random."""
    policy = Policy(1, 2, 3, stop_when_silent=False)
    created = await admin.create_group(
        "plant", degree=8, suite=Suite.MLKEM768_X25519, policy=policy, prefix="x/y", beacon_interval=7
    )
    descriptor = await admin.invite("plant", uses=3, lifetime=60, broker="mqtt://there")
    added = await admin.add_member("plant", "pump", bytes(range(32)))
    return [
        dataclasses.replace(created, server_key=""),
        await admin.show("plant") in await admin.list_groups(),
        (descriptor.broker, descriptor.prefix, descriptor.suite, descriptor.server_key.hex() == created.server_key),
        added,
        await admin.list_members("plant"),
        await admin.list_members("plant", after="pump"),
        await admin.rotate("plant"),
        await admin.rotate("plant", everything=True),
        await admin.evict("plant", "pump", urgent=False),
        await admin.list_members("plant"),
        await admin.readmit("plant", "pump"),
    ]


async def test_remote_administration_is_like_local(remote: RemoteAdmin) -> None:
    """Every call gives the same through the socket as in the server's own process."""
    async with KeyServer(MemoryStore(), interval=0, broker="memory://x") as server:
        assert isinstance(server.admin, Admin)
        assert await exercise(server.admin) == await exercise(remote)


async def test_the_servers_own_broker_is_the_default(remote: RemoteAdmin) -> None:
    """A descriptor names the broker that the server uses."""
    await remote.create_group("plant")
    assert "memory://x" == (await remote.invite("plant")).broker


def test_every_call_of_the_api_is_there() -> None:
    """No method of `AdminApi` is missing in the table of calls, nor the other way round."""
    assert {name for name in vars(Admin) if not name.startswith("_")} == set(calls.CALLS)


async def test_errors_arrive_as_what_they_are(remote: RemoteAdmin) -> None:
    """A mistake is a `UsageError` on the other side, with the same words."""
    with pytest.raises(UsageError, match="there is no group 'plant'; there are: none yet: create one"):
        await remote.show("plant")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"group": "x y"}, "group 'x y' is not 1 to 64 characters"),
        ({"group": "g", "degree": 1}, "degree 1 is not 2 to 64"),
        ({"group": "g", "prefix": "#"}, "prefix '#' is not"),
        ({"group": "g", "beacon_interval": 0}, "beacon interval 0 s"),
    ],
)
async def test_groups_that_cannot_be(remote: RemoteAdmin, call: dict[str, object], message: str) -> None:
    """What is wrong with a new group is said, and nothing is stored."""
    with pytest.raises(UsageError, match=message):
        await remote._call("create_group", **call)
    assert [] == await remote.list_groups()


async def test_a_group_is_created_once(remote: RemoteAdmin) -> None:
    """The name of a group is taken."""
    await remote.create_group("plant")
    with pytest.raises(UsageError, match="there is a group plant already"):
        await remote.create_group("plant")


async def test_members_that_cannot_be(remote: RemoteAdmin) -> None:
    """Ids and keys are checked, and so is who may be readmitted and invited."""
    await remote.create_group("plant")
    with pytest.raises(UsageError, match="member 'a/b' is not"):
        await remote.add_member("plant", "a/b", bytes(32))
    with pytest.raises(UsageError, match="identity: it has to be 64 hex digits"):
        await remote.add_member("plant", "pump", bytes(31))
    with pytest.raises(UsageError, match="'pump' was not evicted"):
        await remote.readmit("plant", "pump")
    for uses, lifetime in ((0, 60), (1, 0), (1, 1e12)):
        with pytest.raises(UsageError, match="a token has 1 to"):
            await remote.invite("plant", uses=uses, lifetime=lifetime)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"nonsense", "a request is a line of JSON"),
        (b"[" * 5000, "a request is a line of JSON"),
        (b"[]", "a request is a JSON object"),
        (b'{"with": {}}', 'a request has "call", a name'),
        (b'{"call": "show", "with": []}', 'a request has "call", a name'),
        (b'{"call": "show", "also": 1}', 'a request has "call", a name'),
        (b'{"call": "_group"}', "there is no call '_group'; there are: create_group"),
        (b'{"call": "show"}', "show: group is missing"),
        (b'{"call": "show", "with": {"group": 1}}', "show: group: it has to be text"),
        (b'{"call": "show", "with": {"group": "g", "x": 1}}', "show takes no x"),
        (b'{"call": "evict", "with": {"group": "g", "member": "m", "urgent": 1}}', "urgent: it has to be true or"),
        (b'{"call": "invite", "with": {"group": "g", "uses": true}}', "uses: it has to be a whole number"),
        (b'{"call": "invite", "with": {"group": "g", "lifetime": "1"}}', "lifetime: it has to be a number"),
        (b'{"call": "create_group", "with": {"group": "g", "suite": 9}}', "suite: it has to be one of 1, 2"),
        (b'{"call": "create_group", "with": {"group": "g", "policy": [1]}}', "policy: policy: wrong-length"),
        (b'{"call": "add_member", "with": {"group": "g", "member": "m", "identity": "zz"}}', "64 hex digits"),
    ],
)
async def test_hostile_lines(socket: Path, line: bytes, message: str) -> None:
    """Each is answered by what is wrong with it, and the connection goes on."""
    reader, writer = await asyncio.open_unix_connection(socket)
    for _ in range(2):
        writer.write(line + b"\n")
        answer = json.loads(await reader.readuntil())
        assert "usage" == answer["error"]
        assert message in answer["message"]
    writer.close()
    await writer.wait_closed()


async def test_a_line_without_end(socket: Path) -> None:
    """It is refused at the limit, and the connection ends."""
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(bytes(calls.MAX_LINE + 2))
    answer = json.loads(await reader.readuntil())
    assert f"a request has at most {calls.MAX_LINE} bytes" == answer["message"]
    assert b"" == await reader.read()
    writer.close()


async def test_what_fails_unexpectedly(socket: Path, remote: RemoteAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is told to look at the log, and the server goes on."""

    async def defect(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(Admin, "list_groups", defect)
        with pytest.raises(StoreError, match="its log says why"):
            await remote.list_groups()
    assert [] == await remote.list_groups()


async def test_only_the_owner_may_connect(socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket is private; another user who reaches it all the same is turned away."""
    assert 0o600 == stat.S_IMODE((await asyncio.to_thread(socket.stat)).st_mode)

    class Foreign:
        size = 12

        def unpack(self, _: bytes) -> tuple[int, int, int]:
            return 1, 54321, 54321

    monkeypatch.setattr(control, "_CREDENTIALS", Foreign())
    reader, writer = await asyncio.open_unix_connection(socket)
    assert b"" == await reader.read()
    writer.close()


async def test_clients_are_bounded(socket: Path, monkeypatch: pytest.MonkeyPatch, remote: RemoteAdmin) -> None:
    """One more than are allowed is turned away."""
    monkeypatch.setattr(control, "MAX_CLIENTS", 1)
    await remote.list_groups()
    other = await RemoteAdmin.connect(socket)
    with pytest.raises(TransportError, match="did not answer list_groups"):
        await other.list_groups()
    await other.close()


async def test_a_server_that_stops_hangs_up(tmp_path: Path) -> None:
    """The client learns that nobody answers any more."""
    async with KeyServer(MemoryStore()) as server:
        listening = ControlServer(server.admin, tmp_path / "control")
        await listening.start()
        admin = await RemoteAdmin.connect(tmp_path / "control")
        await admin.list_groups()
        await listening.stop()
        await listening.stop()
        with pytest.raises(TransportError, match="look whether it was done"):
            await admin.list_groups()
        await admin.close()
    with pytest.raises(TransportError, match="no key server answers"):
        await RemoteAdmin.connect(tmp_path / "control")


async def test_paths_that_cannot_be(tmp_path: Path) -> None:
    """A path that is too long for a socket, and a directory that is not there."""
    async with KeyServer(MemoryStore()) as server:
        with pytest.raises(UsageError, match="use a shorter state directory"):
            await ControlServer(server.admin, tmp_path / ("x" * 100)).start()
        with pytest.raises(StoreError, match="check its directory"):
            await ControlServer(server.admin, tmp_path / "none" / "control").start()


async def test_without_a_server_the_store_is_used(tmp_path: Path) -> None:
    """What is done offline is stored, to be published later, and the store is free again afterwards."""
    async with open_admin(tmp_path) as admin:
        await admin.create_group("plant")
        with pytest.raises(UsageError, match="no broker is known here"):
            await admin.invite("plant")
        outcome = await admin.rotate("plant")
        assert (1, False) == (outcome.epoch, outcome.published)
    async with open_admin(tmp_path) as admin:
        assert 1 == (await admin.show("plant")).unpublished


async def test_a_stale_socket_is_no_server(tmp_path: Path) -> None:
    """A socket that a killed server left behind does not keep anybody from the store."""
    with socketlib.socket(socketlib.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / CONTROL_SOCKET))
    async with open_admin(tmp_path) as admin:
        assert [] == await admin.list_groups()


async def test_a_running_server_is_asked(tmp_path: Path) -> None:
    """While a server has the store, its socket is the way in."""
    with contextlib.closing(SqliteStore(tmp_path / STORE_FILE)) as store:
        async with KeyServer(store) as server, ControlServer(server.admin, tmp_path / CONTROL_SOCKET):
            async with open_admin(tmp_path) as admin:
                await admin.create_group("plant")
            assert ["plant"] == list(server.groups)
        with pytest.raises(StoreError, match="another process has it open"):
            async with open_admin(tmp_path):
                pass

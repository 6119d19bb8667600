"""Administration from another process is like administration in the server's own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import stat
from typing import TYPE_CHECKING

import pytest

from brokerkm.api import ApiServer, RemoteAdmin, open_admin
from brokerkm.api.routes_server import MAX_OF_ONE
from brokerkm.core.crypto import Algorithm, Suite
from brokerkm.core.policy import Policy
from brokerkm.errors import StoreError, TransportError, UnknownNameError, UsageError
from brokerkm.service import STORE_FILE, Admin, KeyServer, MemberFilter
from brokerkm.service.api import ImportRow
from brokerkm.service.credentials import Role
from brokerkm.service.local import CONTROL_SOCKET
from brokerkm.service.terms import policy_fields
from brokerkm.store import MemoryStore, Settings, SqliteStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from brokerkm.service import AdminApi

KEY = bytes(range(32))


def timeless(value: object) -> object:
    """Return a value without what differs from run to run: times, random keys, hashes."""
    if isinstance(value, list):
        return [timeless(item) for item in value]
    assert dataclasses.is_dataclass(value)
    random = {"since", "time", "hash", "server_key", "created", "expires", "token", "id", "actor"}
    fields = dataclasses.asdict(value)  # type: ignore[arg-type]
    for name in ("expiry", "expires"):
        fields.get("details", {}).pop(name, None)
    if fields.get("action") == "hand-over":
        fields["details"] = {}
    if fields.get("action") in ("invite", "revoke"):
        fields["subject"] = ""
    return {name: item for name, item in fields.items() if name not in random}


async def exercise(admin: AdminApi) -> list[object]:
    """Make every call once and return what came of it, but for what is random."""
    policy = Policy(1, 2, 3, stop_when_silent=False, algorithm=Algorithm.CHACHA20_POLY1305)
    created = await admin.create_group(
        "plant", degree=8, suite=Suite.MLKEM768_X25519, policy=policy_fields(policy), prefix="x/y", beacon_interval=7
    )
    descriptor = await admin.invite("plant", uses=3, lifetime=60, broker="mqtt://there", pattern="p*", note="a batch")
    tokens = await admin.list_tokens("plant")
    await admin.revoke_token("plant", tokens[0].id)
    credential = await admin.create_credential("alice", Role.VIEWER, lifetime=60)
    found: list[object] = [
        created,
        await admin.show("plant"),
        await admin.list_groups(),
        tokens,
        await admin.list_tokens("plant"),
        await admin.add_member("plant", "pump", KEY),
        await admin.import_members(
            "plant", [ImportRow(*row) for row in (("p1", KEY), ("p1", KEY), ("p1", bytes(32)), ("p 1", KEY))]
        ),
        await admin.list_members("plant"),
        await admin.list_members("plant", after="p1", limit=1, which=MemberFilter(status="listed", pattern="p*")),
        await admin.show_member("plant", "pump"),
        await admin.rotate("plant"),
        await admin.rotate("plant", everything=True),
        await admin.evict("plant", "pump", urgent=False),
        await admin.evict_many("plant", ["p1"], dry_run=True),
        await admin.evict_many("plant", MemberFilter(pattern="*")),
        await admin.list_members("plant", which=MemberFilter(status="evicted")),
        await admin.readmit("plant", "pump"),
        await admin.status(),
        await admin.configure("plant", Settings(root_period=60, interval=0.0)),
        await admin.set_policy("plant", Policy(grace=7)),
        await admin.hand_over("plant"),
        await admin.show_data("plant"),
        await admin.set_data("plant", publish=["plant/%m/#"]),
        await admin.set_data("plant", subscribe=["plant/#", "all"]),
        await admin.freeze("plant"),
        await admin.thaw("plant"),
        await admin.show("plant"),
        credential,
        await admin.list_credentials(),
        await admin.audit("plant"),
        await admin.audit("plant", after=2, limit=1),
        await admin.verify_audit("plant"),
    ]
    await admin.revoke_credential("alice")
    found.append(await admin.list_credentials())
    await admin.destroy("plant")
    found.append(await admin.list_groups())
    key_matches = descriptor.server_key.hex() == created.server_key
    return [*map(timeless, found), descriptor.broker, descriptor.prefix, descriptor.suite, key_matches]


async def test_remote_administration_is_like_local(remote: RemoteAdmin) -> None:
    """Every call gives the same through the socket as in the server's own process."""
    async with KeyServer(MemoryStore(), interval=0, broker="memory://x") as server:
        assert isinstance(server.admin, Admin)
        assert await exercise(server.admin) == await exercise(remote)


async def test_the_servers_own_broker_is_the_default(remote: RemoteAdmin) -> None:
    """A descriptor names the broker that the server uses."""
    await remote.create_group("plant")
    assert "memory://x" == (await remote.invite("plant")).broker


async def test_who_asked_is_in_the_audit_log(server: KeyServer, remote: RemoteAdmin) -> None:
    """The user at the other end of the socket is the actor of what is changed."""
    await remote.create_group("plant")
    await remote.rotate("plant")
    assert "operator:root" == (await server.admin.audit("plant"))[-1].actor


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda admin: admin.show("depot"), UnknownNameError, "there is no group 'depot'; there are: plant"),
        (lambda admin: admin.show_member("plant", "pump"), UnknownNameError, "not a member"),
        (lambda admin: admin.readmit("plant", "pump"), UnknownNameError, "not a member"),
        (lambda admin: admin.evict("plant", "pump"), UnknownNameError, "not a member"),
        (lambda admin: admin.evict_many("plant", ["pump"]), UnknownNameError, "not a member"),
        (lambda admin: admin.refresh("plant", "old"), UsageError, "no leaf key"),
        (lambda admin: admin.readmit("plant", "old"), UsageError, "was not evicted"),
        (lambda admin: admin.create_group("plant"), UsageError, "there is a group plant already"),
        (lambda admin: admin.create_group("a b"), UsageError, "name: "),
        (lambda admin: admin.create_group("x", degree=65), UsageError, "degree: "),
        (lambda admin: admin.create_group("x", beacon_interval=0), UsageError, "beacon_interval: "),
        (lambda admin: admin.create_group("x", prefix="bkm/1/plant"), UsageError, "take another prefix"),
        (lambda admin: admin.add_member("plant", "new", b"short"), UsageError, "identity: "),
        (lambda admin: admin.invite("plant", uses=0), UsageError, "uses: "),
        (lambda admin: admin.revoke_token("plant", "00" * 8), UnknownNameError, "no token"),
        (lambda admin: admin.revoke_credential("bob"), UnknownNameError, "no credential"),
        (lambda admin: admin.show(".."), UsageError, "names nothing"),
        (lambda admin: admin.show_guard(), UnknownNameError, "keeps no guard"),
        (lambda admin: admin.set_data("plant", publish=["a/#/b"]), UsageError, "filter"),
        (lambda admin: admin.set_data("plant", subscribe=["a"] * 65), UsageError, "subscribe: "),
    ],
)
async def test_errors_arrive_as_what_they_are(
    remote: RemoteAdmin, call: Callable[[AdminApi], Awaitable[object]], kind: type[Exception], words: str
) -> None:
    """What the server refuses is raised by the client, with its words."""
    await remote.create_group("plant")
    await remote.add_member("plant", "old", KEY)
    with pytest.raises(kind, match=words) as caught:
        await call(remote)
    assert type(caught.value) is kind


async def test_what_happens_is_followed(remote: RemoteAdmin) -> None:
    """Events come as they happen, until the listener hangs up; other calls go on meanwhile."""
    await remote.create_group("plant")
    async with contextlib.aclosing(remote.events()) as events:
        task = asyncio.ensure_future(anext(events))
        while not task.done():  # what happened before the request arrived is not told
            epoch = (await remote.rotate("plant")).epoch
        event = await task
    assert ("commit", "plant") == (event.kind, event.group)
    assert 0 < int(event.details["epoch"]) <= epoch


async def test_only_so_many_follow_at_once(remote: RemoteAdmin) -> None:
    """One more than the most is turned away, until another hangs up."""
    await remote.create_group("plant")
    async with contextlib.AsyncExitStack() as stack:
        streams = []
        for _ in range(MAX_OF_ONE):
            lines = await stack.enter_async_context(contextlib.aclosing(remote._exchange.stream("/v1/events")))
            assert ": following" == await anext(lines)
            streams.append(lines)
        with pytest.raises(UsageError, match="followers of one caller"):
            await anext(remote._exchange.stream("/v1/events"))
        await streams[0].aclose()
        async with asyncio.timeout(30):
            while True:
                another = await stack.enter_async_context(contextlib.aclosing(remote._exchange.stream("/v1/events")))
                with contextlib.suppress(UsageError):  # the server has not seen that one hung up
                    assert ": following" == await anext(another)
                    break
                await remote.rotate("plant")


async def test_a_stopped_server_ends_the_stream(tmp_path: Path, server: KeyServer) -> None:
    """Whoever follows is told, and does not keep the server from stopping."""
    async with ApiServer(server, tmp_path / "control.sock") as api:
        admin = await RemoteAdmin.connect(tmp_path / "control.sock")
        lines = admin._exchange.stream("/v1/events")
        assert ": following" == await anext(lines)
        await api.stop()
        with pytest.raises(TransportError, match="ended the stream"):
            [line async for line in lines]
    await admin.close()


async def test_the_socket_is_private_and_goes(tmp_path: Path, server: KeyServer) -> None:
    """Only its user may open the socket; a stopped server leaves none."""
    path = tmp_path / "control.sock"
    async with ApiServer(server, path):
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert not path.exists()
    with pytest.raises(TransportError, match="no key server answers"):
        await RemoteAdmin.connect(path)


async def test_sockets_that_cannot_be(tmp_path: Path, server: KeyServer) -> None:
    """A path that is too long, or in no directory, is named."""
    with pytest.raises(UsageError, match="longer than 107 bytes"):
        await ApiServer(server, tmp_path / ("x" * 100)).start()
    with pytest.raises(StoreError, match="No such file"):
        await ApiServer(server, tmp_path / "none" / "control.sock").start()


async def test_a_connection_that_broke_is_made_again(tmp_path: Path, server: KeyServer) -> None:
    """A client outlives a restart of the API between two of its calls."""
    path = tmp_path / "control.sock"
    async with ApiServer(server, path):
        admin = await RemoteAdmin.connect(path)
        await admin.create_group("plant")
    async with ApiServer(server, path):
        assert ["plant"] == [info.name for info in await admin.list_groups()]
    with pytest.raises(TransportError, match="no key server answers"):
        await admin.list_groups()
    await admin.close()


async def test_what_a_name_may_be_is_said_in_words(remote: RemoteAdmin) -> None:
    """Not as the pattern that it is checked by."""
    with pytest.raises(UsageError, match="name: it has to be 1 to 64 characters of A-Z a-z 0-9"):
        await remote.create_group("no/slash")


async def test_without_a_server_the_store_is_opened(tmp_path: Path) -> None:
    """What is done then is there when a server starts; a store in use by others is an error."""
    async with open_admin(tmp_path, create=True) as admin:
        await admin.create_group("plant")
    with contextlib.closing(SqliteStore(tmp_path / STORE_FILE)) as store:
        async with (
            KeyServer(store) as server,
            ApiServer(server, tmp_path / CONTROL_SOCKET),
            open_admin(tmp_path) as admin,
        ):
            assert isinstance(admin, RemoteAdmin)
            assert ["plant"] == [info.name for info in await admin.list_groups()]
        with pytest.raises(StoreError):
            async with open_admin(tmp_path):
                pass


async def test_a_frozen_group_changes_only_after_it_is_thawed(server: KeyServer, remote: RemoteAdmin) -> None:
    """What an operator asks for is refused meanwhile, and what waits is committed afterwards."""
    await remote.create_group("plant")
    await remote.freeze("plant")
    with pytest.raises(UsageError, match="thaw it first"):
        await remote.rotate("plant")
    waiting = server.groups["plant"].rotate(everything=False)
    frozen = await remote.show("plant")
    assert (0, 1) == (frozen.epoch, frozen.waiting)
    await remote.thaw("plant")
    assert 1 == (await waiting)[0]
    assert ["create", "freeze", "thaw", "rotate"] == [entry.action for entry in await remote.audit("plant")]

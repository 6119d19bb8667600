"""A device that has never been online gets its place by two files, and is a member like any other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from typing import TYPE_CHECKING

import pytest

import brokerkm
from brokerkm.core.state import State
from brokerkm.errors import StaleError, UsageError
from brokerkm.offline import OfflineBundle, OfflineRequest
from brokerkm.sdk.offline import accept_offline, request_offline
from brokerkm.sdk.recovery import Pace
from brokerkm.service import KeyServer
from brokerkm.store import SqliteStore
from brokerkm.transport import Options, Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from brokerkm.descriptor import Descriptor

PACE = Pace(retained=0.2, repeat=0.4, ceiling=1.0, syncs=1, settle=0.3, windows=0.1, save=0.05)


async def carried(server: KeyServer, path: Path, spares: int = 0) -> tuple[OfflineRequest, OfflineBundle]:
    """Return request and bundle of the device "pump", each as its file says it."""
    descriptor = await server.admin.invite("plant")
    made = await asyncio.to_thread(request_offline, descriptor, member="pump", state_dir=path)
    request = OfflineRequest.from_json(made.to_json())
    return request, OfflineBundle.from_json((await server.admin.enroll_offline(request, spares=spares)).to_json())


async def test_a_device_that_was_never_online_is_a_member(server: KeyServer, tmp_path: Path) -> None:
    """It has its keys before it connects, and talks when it does."""
    _, bundle = await carried(server, tmp_path / "pump")
    assert (1, 0) == await asyncio.to_thread(accept_offline, bundle, state_dir=tmp_path / "pump")
    assert bundle.descriptor.token is None
    assert "seated" == (await server.admin.show_member("plant", "pump")).status
    async with (
        brokerkm.connect(None, bundle.descriptor, member="pump", state_dir=tmp_path / "pump") as pump,
        brokerkm.connect(
            None, await server.admin.invite("plant"), member="panel", state_dir=tmp_path / "panel"
        ) as panel,
        panel.messages("plant/#") as heard,
    ):
        assert State.ACTIVE is pump.state
        await pump.publish("plant/pump", b"21.4")
        async with asyncio.timeout(10):
            assert b"21.4" == (await anext(heard)).payload


class Away:
    """A device that gets a bundle with spare keys, of a group whose broker keeps no Rekey for it."""

    def __init__(self, path: Path) -> None:
        self.path, self.store = path, SqliteStore(path / "store.sqlite")
        self.url = f"memory://{path.name}"

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncGenerator[KeyServer]:
        """Run the server."""
        transport = create(self.url, Options(role=Role.SERVER))
        async with KeyServer(self.store, transport, interval=0, retained_wait=0.2, broker=self.url) as server:
            yield server

    async def enroll(self, server: KeyServer, spares: int) -> OfflineBundle:
        """Make the group, and take its bundle."""
        await server.admin.create_group("plant", policy={"hold": 1}, settings={"retained": False})
        _, bundle = await carried(server, self.path / "pump", spares)
        accepted = await asyncio.to_thread(accept_offline, bundle, state_dir=self.path / "pump")
        assert spares == accepted.spares
        return bundle

    def member(self, name: str, invitation: Descriptor) -> brokerkm.Fleet:
        """Return a member that does not wait for the server."""
        return brokerkm.connect(None, invitation, member=name, state_dir=self.path / name, timeout=4, pace=PACE)


async def read(pump: brokerkm.Fleet, panel: brokerkm.Fleet) -> bool:
    """Return whether the device reads what the panel sends."""
    async with pump.messages("plant/#") as heard:
        await panel.publish("plant/panel", b"open")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                return b"open" == (await anext(heard)).payload
    return False


@pytest.mark.parametrize(("rotations", "reads"), [(2, True), (3, True), (4, False)])
async def test_spare_keys_read_on_while_nothing_else_comes(tmp_path: Path, *, rotations: int, reads: bool) -> None:
    """As many new keys as there are spares are lost with their Rekeys; the key server is restarted, then down."""
    away = Away(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        async with away.serve() as server:
            bundle = await away.enroll(server, 3)
            panel = await stack.enter_async_context(away.member("panel", await server.admin.invite("plant")))
            await server.admin.rotate("plant")
        async with away.serve() as server:
            for _ in range(rotations - 1):
                outcome = await server.admin.rotate("plant")
            async with asyncio.timeout(10):
                while panel.epoch < outcome.epoch:  # noqa: ASYNC110 - it is told by nobody
                    await asyncio.sleep(0.01)
        pump = await stack.enter_async_context(away.member("pump", bundle.descriptor))
        assert reads == await read(pump, panel)
        with pytest.raises(StaleError):
            await pump.publish("plant/pump", b"21.4")


async def test_spare_keys_end_with_an_eviction(tmp_path: Path) -> None:
    """Whoever was put out may have had the same ones."""
    away = Away(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        async with away.serve() as server:
            bundle = await away.enroll(server, 3)
            panel = await stack.enter_async_context(away.member("panel", await server.admin.invite("plant")))
            async with away.member("other", await server.admin.invite("plant")):
                pass
            outcome = await server.admin.evict("plant", "other")
            async with asyncio.timeout(10):
                while panel.epoch < outcome.epoch:  # noqa: ASYNC110 - it is told by nobody
                    await asyncio.sleep(0.01)
        pump = await stack.enter_async_context(away.member("pump", bundle.descriptor))
        assert not await read(pump, panel)


async def test_too_many_spares_are_refused(server: KeyServer, tmp_path: Path) -> None:
    """A month of daily keys is enough."""
    with pytest.raises(UsageError, match="spares: 0 to 32, not 33"):
        await carried(server, tmp_path / "pump", 33)


async def test_a_bundle_is_for_one_device(server: KeyServer, tmp_path: Path) -> None:
    """Another device, even of the same name, can do nothing with it."""
    _, bundle = await carried(server, tmp_path / "pump")
    with pytest.raises(UsageError, match="does not answer the last request of pump on this device"):
        await asyncio.to_thread(accept_offline, bundle, state_dir=tmp_path / "other")


async def test_a_member_id_has_one_device(server: KeyServer, tmp_path: Path) -> None:
    """A second device that asks for a place under the same id is refused, online or not."""
    await carried(server, tmp_path / "pump")
    with pytest.raises(UsageError, match="has its place under another key"):
        await carried(server, tmp_path / "other")


async def test_one_that_is_a_member_needs_no_request(server: KeyServer, tmp_path: Path) -> None:
    """A new leaf is what `member refresh` is for."""
    _, bundle = await carried(server, tmp_path / "pump")
    await asyncio.to_thread(accept_offline, bundle, state_dir=tmp_path / "pump")
    with pytest.raises(UsageError, match="is a member of group plant already"):
        await asyncio.to_thread(request_offline, bundle.descriptor, member="pump", state_dir=tmp_path / "pump")


async def test_a_forged_request_is_refused(server: KeyServer, tmp_path: Path) -> None:
    """The identity key signs group, member and KEM key."""
    request, _ = await carried(server, tmp_path / "pump")
    for forged in (
        OfflineRequest("plant", "valve", request.join),
        OfflineRequest("plant", "pump", request.join[:-1] + bytes((request.join[-1] ^ 1,))),
        OfflineRequest("plant", "pump", b"\x92\x01\x05"),
    ):
        with pytest.raises(UsageError, match="the request is none of"):
            await server.admin.enroll_offline(forged)


async def test_a_key_that_nobody_can_seal_to_gets_no_place(server: KeyServer) -> None:
    """A low-order point is found when the member is to be seated."""
    from brokerkm.core.crypto import load_signing_key  # noqa: PLC0415 - for this one
    from brokerkm.core.request import Asked, Join  # noqa: PLC0415

    asked = Asked(bytes(16), int(time.time() * 1000), 1)
    join = Join.seal(load_signing_key(os.urandom(32)), "plant", "bad", bytes(32), credential=None, asked=asked)
    with pytest.raises(UsageError, match="bad has got no place in group plant"):
        await server.admin.enroll_offline(OfflineRequest("plant", "bad", join))


REQUEST = json.loads(OfflineRequest("plant", "pump", b"join").to_json())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (" " * 140_000, "more than 131072 bytes"),
        ("[]", "does not have exactly the members"),
        (json.dumps(REQUEST | {"more": 1}), "does not have exactly the members"),
        (json.dumps(REQUEST | {"brokerkm_request": 2}), "reads version 1"),
        (json.dumps(REQUEST | {"brokerkm_request": True}), "reads version 1"),
        (json.dumps(REQUEST | {"group": "a/b"}), "group: it is not 1 to 64"),
        (json.dumps(REQUEST | {"member": 7}), "member: it is not 1 to 64"),
        (json.dumps(REQUEST | {"join": "xyz"}), "join: it is not hexadecimal"),
        (json.dumps(REQUEST | {"join": None}), "join: it is not hexadecimal"),
        (json.dumps(REQUEST | {"join": ""}), "join: a message has 1 to 16384 bytes"),
    ],
)
@pytest.mark.parametrize("parse", [OfflineRequest.from_json])
def test_a_damaged_file_is_refused(parse: Callable[[str], object], text: str, words: str) -> None:
    """Each error says what is wrong with it."""
    with pytest.raises(UsageError, match=words):
        parse(text)

"""A device that has never been online gets its place by two files, and is a member like any other."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING

import pytest

import brokerkm
from brokerkm.core.state import State
from brokerkm.errors import UsageError
from brokerkm.offline import OfflineBundle, OfflineRequest
from brokerkm.sdk.offline import accept_offline, request_offline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from brokerkm.service import KeyServer


async def carried(server: KeyServer, path: Path) -> tuple[OfflineRequest, OfflineBundle]:
    """Return request and bundle of the device "pump", each as its file says it."""
    descriptor = await server.admin.invite("plant")
    made = await asyncio.to_thread(request_offline, descriptor, member="pump", state_dir=path)
    request = OfflineRequest.from_json(made.to_json())
    return request, OfflineBundle.from_json((await server.admin.enroll_offline(request)).to_json())


async def test_a_device_that_was_never_online_is_a_member(server: KeyServer, tmp_path: Path) -> None:
    """It has its keys before it connects, and talks when it does."""
    _, bundle = await carried(server, tmp_path / "pump")
    assert 1 == await asyncio.to_thread(accept_offline, bundle, state_dir=tmp_path / "pump")
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

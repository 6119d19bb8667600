"""A request that was carried to an operator is answered over the API as in the server's own process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from brokerkm.errors import UnknownNameError, UsageError
from brokerkm.offline import OfflineRequest
from brokerkm.sdk.offline import accept_offline, request_offline

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.api import RemoteAdmin


async def test_a_bundle_comes_over_the_api(remote: RemoteAdmin, tmp_path: Path) -> None:
    """It opens on the device that asked, names its broker, and the audit log says who has vouched for it."""
    await remote.create_group("plant")
    descriptor = await remote.invite("plant")
    request = await asyncio.to_thread(request_offline, descriptor, member="pump", state_dir=tmp_path / "pump")
    bundle = await remote.enroll_offline(request, broker="mqtt://hub", spares=3)
    assert "mqtt://hub" == bundle.descriptor.broker
    assert (1, 3) == await asyncio.to_thread(accept_offline, bundle, state_dir=tmp_path / "pump")
    assert "seated" == (await remote.show_member("plant", "pump")).status
    entries = [(entry.action, entry.subject, entry.actor) for entry in await remote.audit("plant")]
    assert [("list", "pump", "operator:root"), ("seat", "pump", "operator:root")] == entries[-2:]


async def test_what_is_refused_arrives_as_such(remote: RemoteAdmin) -> None:
    """A group that is not there, a frozen one, and a Join that is none."""
    with pytest.raises(UnknownNameError, match="there is no group 'plant'"):
        await remote.enroll_offline(OfflineRequest("plant", "pump", b"\x92"))
    await remote.create_group("plant")
    with pytest.raises(UsageError, match="the request is none of pump for group plant with its suite x25519"):
        await remote.enroll_offline(OfflineRequest("plant", "pump", b"\x92"))
    await remote.freeze("plant")
    with pytest.raises(UsageError, match="is frozen: thaw it first"):
        await remote.enroll_offline(OfflineRequest("plant", "pump", b"\x92"))

"""Members at a real broker while the group changes its policy or its server key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sdk.yard import POLICY, Yard, event, take

from brokerkm.core.crypto import Algorithm
from brokerkm.core.events import Joined, PolicyChanged, Rekeyed, ServerKeyChanged, Synced
from brokerkm.descriptor import Descriptor
from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from brokerkm import Fleet


async def heard(yard: Yard, sender: Fleet, receiver: Fleet, text: bytes) -> None:
    """Assert that one member's message reaches another."""
    async with receiver.messages("a") as messages:
        await sender.publish("a", text)
        assert [text] == [message.payload for message in await take(messages)]


def server_key(yard: Yard) -> bytes:
    """Return the key that the server signs by now."""
    return yard.server.groups[yard.group].group.server_key


async def test_members_talk_on_under_another_algorithm(mqtt_yard: Yard) -> None:
    """Nothing is lost while not all know of it."""
    yard = mqtt_yard
    pump, panel = await yard.join("pump"), await yard.join("panel")
    news = [pump.events(), panel.events()]
    await heard(yard, pump, panel, b"one")
    async with panel.messages("a") as messages:
        await yard.server.admin.set_policy(yard.group, replace(POLICY, algorithm=Algorithm.CHACHA20_POLY1305))
        for number in range(20):
            await pump.publish("a", b"%d" % number)
        assert [b"%d" % number for number in range(20)] == [one.payload for one in await take(messages, 20)]
    for events in news:
        await event(events, PolicyChanged)
    await heard(yard, panel, pump, b"two")


async def test_members_get_certificates_when_signatures_are_wanted(mqtt_yard: Yard) -> None:
    """Each asks by itself within grace, and a sender that has none yet waits for it rather than fails."""
    yard = mqtt_yard
    pump, panel = await yard.join("pump"), await yard.join("panel")
    events = pump.events()
    await yard.server.admin.set_policy(yard.group, replace(POLICY, grace=1, source_authentication=True))
    await event(events, PolicyChanged)
    await heard(yard, pump, panel, b"one")
    await event(events, Synced)
    await heard(yard, pump, panel, b"two")


async def test_members_follow_a_hand_over(mqtt_yard: Yard) -> None:
    """Live members follow from the first Beacon by the new key, and go on."""
    yard = mqtt_yard
    pump, panel = await yard.join("pump"), await yard.join("panel")
    events = panel.events()
    await yard.server.admin.hand_over(yard.group)
    assert server_key(yard) == (await event(events, ServerKeyChanged)).server_key
    await yard.server.admin.rotate(yard.group)
    await event(events, Rekeyed)
    await heard(yard, pump, panel, b"one")


async def test_member_that_slept_through_several_hand_overs_recovers(mqtt_yard: Yard) -> None:
    """With a saved state of before, by the descriptor of then: the chain is walked, and a Sync closes the gap."""
    yard = mqtt_yard
    panel = await yard.join("panel")
    old = await yard.invite()
    async with yard.connect(old, "pump") as pump:
        await yard.level(pump)
    news = panel.events()
    for _ in range(3):
        await yard.server.admin.hand_over(yard.group)
        await event(news, ServerKeyChanged)
        await yard.server.admin.rotate(yard.group)
        await event(news, Rekeyed)
    sleeper = yard.connect(old, "pump")
    events = sleeper.events()
    await yard.enter(sleeper)
    assert server_key(yard) == (await event(events, ServerKeyChanged)).server_key
    assert panel.epoch == sleeper.epoch
    await heard(yard, sleeper, panel, b"one")


async def test_newcomer_with_an_old_invitation_joins(mqtt_yard: Yard) -> None:
    """What it was told to believe is three keys old."""
    yard = mqtt_yard
    panel, old = await yard.join("panel"), await yard.invite()
    news = panel.events()
    for _ in range(3):
        await yard.server.admin.hand_over(yard.group)
        await event(news, ServerKeyChanged)
    pump = yard.connect(old, "pump")
    events = pump.events()
    await yard.enter(pump)
    await event(events, ServerKeyChanged)
    await event(events, Joined)
    await heard(yard, pump, panel, b"one")


async def test_state_goes_with_every_descriptor_of_its_server(yard: Yard) -> None:
    """The first descriptor and one by any later key name the same group; a stranger's does not."""
    old = await yard.invite()
    async with yard.connect(old, "pump") as pump:
        events = pump.events()
        await yard.server.admin.hand_over(yard.group)
        await event(events, ServerKeyChanged)
    for descriptor in (old, await yard.invite()):
        async with yard.connect(descriptor, "pump") as pump:
            assert pump.epoch
    stranger = Descriptor(broker=yard.url, group=old.group, prefix=old.prefix, suite=old.suite, server_key=bytes(32))
    with pytest.raises(UsageError, match="another server key"):
        await yard.connect(stranger, "pump").__aenter__()

"""Who may do what on a Mosquitto that is configured exactly as `deploy/` ships it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from brokerkm.errors import TransportError
from brokerkm.testing import Ends, Listener, Site
from brokerkm.testing.site import ends_at
from brokerkm.transport import Delivery, Options, Outgoing, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from brokers.mqtt import MqttBroker


@pytest.fixture
async def ends(guarded_mosquitto: MqttBroker) -> AsyncGenerator[Ends]:
    """Make the server as keyserver, members as alice unless a test says otherwise."""
    site = Site(
        server_url=guarded_mosquitto.url,
        member_url=guarded_mosquitto.url,
        server_options={"username": "keyserver", "password": "keyserver"},
        member_options={"username": "alice", "password": "alice"},
    )
    async with ends_at(site) as ends:
        yield ends


async def test_wrong_password(guarded_mosquitto: MqttBroker) -> None:
    """The error names the user and what to check, not the password."""
    transport = create(guarded_mosquitto.url.replace("//", "//alice:hunter2@"), Options())
    with pytest.raises(TransportError, match=r"user 'alice'.*check the user name, the password") as caught:
        await transport.open()
    assert "hunter2" not in str(caught.value)
    await transport.close()


async def test_wrong_password_with_311(guarded_mosquitto: MqttBroker) -> None:
    """The older version's answer means the same."""
    transport = create(f"{guarded_mosquitto.url.replace('//', '//alice:x@')}?version=3.1.1", Options())
    with pytest.raises(TransportError, match=r"user 'alice'.*check the user name, the password"):
        await transport.open()
    await transport.close()


async def test_nobody_is_refused(guarded_mosquitto: MqttBroker) -> None:
    """Without a user name there is no way in."""
    transport = create(guarded_mosquitto.url, Options())
    with pytest.raises(TransportError, match="client without user name"):
        await transport.open()
    await transport.close()


@pytest.mark.parametrize("name", ["n/0/1", "b", "k", "m/alice", "m/bob", "r/bob"])
async def test_member_cannot_speak_for_others(ends: Ends, name: str) -> None:
    """A member writes neither what is the server's nor another member's requests, and is told so."""
    alice = await ends.member()
    with pytest.raises(TransportError, match=r"Not authorized.*access list"):
        await alice.publish(Outgoing(f"{ends.base}/{name}", b"forged", retain=True))
    await alice.request(f"{ends.base}/r/alice", b"own")


async def test_batch_names_how_many_were_refused(ends: Ends) -> None:
    """What is allowed of a batch goes out, and the rest is reported together."""
    server, alice = await ends.server(), await ends.member()
    await server.subscribe([f"{ends.base}/r/+"])
    names = ("r/alice", "r/bob", "n/1", "r/alice")
    with pytest.raises(TransportError, match="2 of 4"):
        await alice.publish_batch([Outgoing(f"{ends.base}/{name}", b"") for name in names])
    assert [f"{ends.base}/r/alice"] * 2 == [one.topic for one in await Listener(server).deliveries(2)]


async def test_member_hears_the_group_and_its_own(ends: Ends) -> None:
    """Whatever it subscribes, it hears rekeys, beacons and its own mail, and no one else's."""
    server, alice = await ends.server(), await ends.member()
    await alice.subscribe([f"{ends.base}/#"])
    names = ["m/bob", "r/bob", "n/3/17", "b", "k", "m/alice"]
    await server.publish_batch([Outgoing(f"{ends.base}/{name}", name.encode(), audience="bob") for name in names])
    heard = await Listener(alice).deliveries(4)
    assert [one.payload for one in heard] == [b"n/3/17", b"b", b"k", b"m/alice"]


async def test_application_topics(ends: Ends) -> None:
    """Members talk to each other on the application's topics."""
    alice, bob = await ends.member(), await ends.member(username="bob", password="bob")
    await bob.subscribe(["app/+/temperature"])
    await alice.publish(Outgoing("app/hall/temperature", b"21.4"))
    assert await Listener(bob).delivery() == Delivery("app/hall/temperature", b"21.4")

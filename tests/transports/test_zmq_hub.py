"""ZeroMQ: what members and the hub's owner publish reaches those who subscribed, in the clear."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from brokers import hub

from brokerkm.errors import TransportError, UsageError
from brokerkm.transport import Connected, Delivery, Disconnected, Options, Outgoing, Role
from brokerkm_zmq import ZmqTransport

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def url() -> Iterator[str]:
    """Address of a hub that does not run yet."""
    with hub.ipc_url() as address:
        yield address


async def test_a_last_value_goes_to_the_newcomer_alone(url: str) -> None:
    """A late joiner's last value is not sent again to those who have it."""
    async with (
        hub.opened(url, Role.SERVER) as server,
        hub.opened(url) as early,
        hub.opened(url) as late,
    ):
        await early.transport.subscribe(["n/1"])
        await server.transport.publish(Outgoing("n/1", b"one", retain=True))
        await early.deliveries(1)
        await late.transport.subscribe(["n/1"])
        await late.deliveries(1)
        await server.transport.publish(Outgoing("n/1", b"two"))
        assert [Delivery("n/1", b"one", retained=True), Delivery("n/1", b"two")] == await late.deliveries(2)
        assert [Delivery("n/1", b"one"), Delivery("n/1", b"two")] == await early.deliveries(2)


async def test_a_thousand_last_values_come_by_a_wildcard_through_a_small_queue(url: str) -> None:
    """Pages follow each other as the subscriber takes them."""
    async with hub.opened(url, Role.SERVER) as server, hub.opened(url, queue_size=16) as member:
        wanted = [Outgoing(f"n/{index}", b"%d" % index, retain=True) for index in range(1000)]
        await server.transport.publish_batch(wanted)
        await member.transport.subscribe(["n/+"])
        found = await member.deliveries(1000)
        assert [Delivery(item.topic, item.payload, retained=True) for item in wanted] == found


async def test_a_value_that_came_live_does_not_come_again_with_a_later_page(url: str) -> None:
    """What changed after the subscription is not also a last value."""
    async with hub.opened(url, Role.SERVER) as server:
        await server.transport.publish_batch([Outgoing(f"n/{index}", b"old", retain=True) for index in range(1000)])
        member = ZmqTransport(url, Options(queue_size=16))
        await member.open()
        try:
            await member.subscribe(["n/+"])
            await server.transport.publish(Outgoing("n/999", b"new", retain=True))
            reader = hub.Watched(member)
            await reader.until(lambda _: len(reader.delivered) >= 1000)
            await server.transport.publish(Outgoing("n/end", b""))
            await reader.until(lambda _: reader.delivered[-1].topic == "n/end")
            found = [item for item in reader.delivered if item.topic == "n/999"]
            assert found == [Delivery("n/999", b"new")]
        finally:
            await member.close()


async def test_a_thousand_exact_topics_have_their_last_values(url: str) -> None:
    """More filters than one command takes are subscribed at once."""
    async with hub.opened(url, Role.SERVER) as server, hub.opened(url) as member:
        names = [f"n/{index}" for index in range(1000)]
        await server.transport.publish_batch([Outgoing(name, name.encode(), retain=True) for name in names])
        await member.transport.subscribe(names)
        found = await member.deliveries(1000)
        assert {Delivery(name, name.encode(), retained=True) for name in names} == set(found)


async def test_a_cleared_last_value_is_gone(url: str) -> None:
    """An empty retained payload clears."""
    async with hub.opened(url, Role.SERVER) as server, hub.opened(url) as member:
        await server.transport.publish(Outgoing("a", b"old", retain=True))
        await server.transport.publish(Outgoing("a", b"", retain=True))
        await server.transport.publish(Outgoing("b", b"kept", retain=True))
        await member.transport.subscribe(["a", "b"])
        assert [Delivery("b", b"kept", retained=True)] == await member.deliveries(1)


async def test_a_filter_with_hash_matches_the_level_above(url: str) -> None:
    """``a/#`` receives ``a`` too, and not ``ab``."""
    async with hub.opened(url, Role.SERVER) as server, hub.opened(url) as member:
        await member.transport.subscribe(["a/#"])
        await server.transport.publish_batch([Outgoing(topic, b"x") for topic in ("ab", "a", "b/a", "a/b/c")])
        assert [item.topic for item in await member.deliveries(2)] == ["a", "a/b/c"]


async def test_filters_that_share_a_prefix_are_unsubscribed_one_by_one(url: str) -> None:
    """What one filter still wants goes on after the other has ended."""
    async with hub.opened(url, Role.SERVER) as server, hub.opened(url) as member:
        await member.transport.subscribe(["a/+", "a/#"])
        await member.transport.unsubscribe(["a/#", "never"])
        await server.transport.publish_batch([Outgoing(topic, b"x") for topic in ("a/b/c", "a", "a/b")])
        assert [item.topic for item in await member.deliveries(1)] == ["a/b"]
        await member.transport.unsubscribe(["a/+"])
        await member.transport.subscribe(["end"])
        await server.transport.publish_batch([Outgoing(topic, b"x") for topic in ("a/b", "end")])
        assert [item.topic for item in await member.deliveries(2)] == ["a/b", "end"]


async def test_a_request_goes_to_the_server_and_no_further(url: str) -> None:
    """No member receives another's request, whatever it subscribes."""
    async with hub.opened(url, Role.SERVER) as server, hub.opened(url) as member, hub.opened(url) as other:
        await server.transport.subscribe(["bkm/1/g/r/+"])
        await other.transport.subscribe(["#"])
        await member.transport.request("bkm/1/g/r/m1", b"join")
        assert [Delivery("bkm/1/g/r/m1", b"join")] == await server.deliveries(1)
        await member.transport.publish(Outgoing("news", b"x"))
        assert [Delivery("news", b"x")] == await other.deliveries(1)


@pytest.mark.parametrize(
    "topic", ["bkm/1", "bkm/1/g/b", "bkm/1/g/n/0/1", "bkm/1/g/m/m1", "bkm/1/g/r/m1/x", "bkm/1/r/m1"]
)
async def test_a_member_publishes_nothing_of_the_key_servers(url: str, topic: str) -> None:
    """The hub refuses, and the member is told so."""
    async with hub.opened(url, Role.SERVER) as server, hub.opened(url) as member, hub.opened(url) as other:
        await other.transport.subscribe(["#"])
        await server.transport.subscribe(["#"])
        with pytest.raises(TransportError, match="only the key server"):
            await member.transport.publish(Outgoing(topic, b"forged", retain=True))
        with pytest.raises(TransportError, match="only the key server"):
            await member.transport.request(topic, b"forged")
        await member.transport.publish(Outgoing("end", b""))
        assert [Delivery("end", b"")] == await other.deliveries(1) == await server.deliveries(1)


async def test_a_members_batch_arrives_in_order(url: str) -> None:
    """More messages than the window holds, none lost, none overtaken."""
    async with hub.opened(url, Role.SERVER), hub.opened(url) as member, hub.opened(url) as other:
        await other.transport.subscribe(["t"])
        await member.transport.publish_batch([Outgoing("t", b"%d" % index) for index in range(3000)])
        found = await other.deliveries(3000)
        assert [b"%d" % index for index in range(3000)] == [item.payload for item in found]


async def test_a_batch_with_one_refused_message_raises(url: str) -> None:
    """The refusal is not lost among the accepted."""
    async with hub.opened(url, Role.SERVER), hub.opened(url) as member:
        batch = [Outgoing("t", b"x"), Outgoing("bkm/1/g/b", b"forged"), Outgoing("t", b"y")]
        with pytest.raises(TransportError, match="only the key server"):
            await member.transport.publish_batch(batch)


async def test_members_come_back_to_a_new_hub(url: str) -> None:
    """After a hub's restart the last values are those that the new hub was given."""
    async with hub.opened(url, Role.SERVER) as server, hub.opened(url) as member:
        await member.transport.subscribe(["n/1", "m/+"])
        await server.transport.publish(Outgoing("n/1", b"before", retain=True))
        await member.deliveries(1)
        await server.close()
        await member.until(lambda seen: isinstance(seen[-1], Disconnected))
        async with hub.opened(url, Role.SERVER) as again:
            await again.transport.publish(Outgoing("n/1", b"after", retain=True))
            await again.transport.publish(Outgoing("m/2", b"too", retain=True))
            await member.reconnected()
            await member.until(
                lambda _: {("n/1", b"after"), ("m/2", b"too")} <= {(d.topic, d.payload) for d in member.delivered}
            )
            await member.transport.publish(Outgoing("m/3", b"mine"))
            await member.until(lambda _: member.delivered[-1] == Delivery("m/3", b"mine"))


async def test_the_last_value_cache_is_bounded(url: str) -> None:
    """What does not fit is refused loudly, to the owner and to a member; what fits goes on."""
    async with hub.opened(url + "?cache_topics=2", Role.SERVER) as server, hub.opened(url) as member:
        await server.transport.publish(Outgoing("a", b"1", retain=True))
        await member.transport.publish(Outgoing("b", b"1", retain=True))
        with pytest.raises(TransportError, match="cache is full"):
            await server.transport.publish(Outgoing("c", b"1", retain=True))
        with pytest.raises(TransportError, match="cache is full"):
            await member.transport.publish(Outgoing("c", b"1", retain=True))
        await server.transport.publish(Outgoing("a", b"2", retain=True))
        await server.transport.publish(Outgoing("a", b"", retain=True))
        await server.transport.publish(Outgoing("c", b"1", retain=True))


async def test_members_cannot_fill_the_cache_of_the_key_server(url: str) -> None:
    """However many last values one member leaves, or large ones, a rekey is retained and sent."""
    small = url + "?cache_topics=16&cache_bytes=40000"
    async with hub.opened(small, Role.SERVER) as server, hub.opened(url) as member:
        for size in (1, 2000):
            junk = [Outgoing(f"junk/{number}", bytes(size), retain=True) for number in range(20)]
            with pytest.raises(TransportError, match="cache is full"):
                await member.transport.publish_batch(junk)
        await member.transport.subscribe(["bkm/1/fleet/n/1/0"])
        await server.transport.publish(Outgoing("bkm/1/fleet/n/1/0", bytes(1000), retain=True))
        assert [Delivery("bkm/1/fleet/n/1/0", bytes(1000))] == await member.deliveries(1)


async def test_a_payload_over_the_hubs_limit_is_refused(url: str) -> None:
    """A member learns the hub's limit when it opens."""
    async with hub.opened(url, Role.SERVER, max_payload=5000) as server, hub.opened(url) as member:
        assert (server.transport.max_payload, member.transport.max_payload) == (5000, 5000)
        await member.transport.publish(Outgoing("t", bytes(5000)))
        for end in (server, member):
            with pytest.raises(UsageError, match="5001 bytes"):
                await end.transport.publish(Outgoing("t", bytes(5001)))


async def test_a_payload_over_a_members_own_limit_is_dropped(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It does not break the connection, as libzmq's limit would."""
    async with hub.opened(url, Role.SERVER) as server, hub.opened(url, max_payload=100) as member:
        await member.transport.subscribe(["t"])
        await server.transport.publish(Outgoing("t", bytes(50_000), retain=True))
        await server.transport.publish(Outgoing("t", b"small"))
        assert [Delivery("t", b"small")] == await member.deliveries(1)
        assert "payload is longer than 100 bytes" in caplog.text
        assert [Connected()] == [item for item in member.seen if not isinstance(item, Delivery)]


async def test_the_owner_receives_what_it_subscribed(url: str) -> None:
    """Its own messages, members' messages and last values."""
    async with hub.opened(url, Role.SERVER) as server, hub.opened(url) as member:
        await server.transport.publish(Outgoing("a/1", b"kept", retain=True))
        await server.transport.subscribe(["a/+", "b"])
        await server.deliveries(1)
        await server.transport.publish(Outgoing("b", b"own"))
        await member.transport.publish(Outgoing("b", b"member's"))
        await server.transport.request("b", b"request")
        await server.transport.unsubscribe(["b"])
        await server.transport.publish(Outgoing("b", b"not wanted"))
        await server.transport.publish(Outgoing("a/1", b"end"))
        expected = [("a/1", b"kept"), ("b", b"own"), ("b", b"member's"), ("b", b"request"), ("a/1", b"end")]
        assert expected == [(item.topic, item.payload) for item in await server.deliveries(5)]


async def test_a_caller_that_takes_nothing_makes_publishers_fail_not_lose(url: str) -> None:
    """The queue is full, so the hub does not accept more requests, and says nothing it does not know."""
    transport = ZmqTransport(url, Options(role=Role.SERVER, queue_size=5, timeout=0.5))
    await transport.open()
    try:
        await transport.subscribe(["r"])
        async with hub.opened(url, timeout=0.5) as member:
            for _ in range(4):
                await member.transport.request("r", b"x")
            with pytest.raises(TransportError, match="did not answer"):
                await member.transport.request("r", b"x")
        with pytest.raises(TransportError, match="nobody takes"):
            await transport.request("r", b"x")
    finally:
        await transport.close()


async def test_opening_without_a_hub_fails_in_time(url: str) -> None:
    """The first attempt's failure is an error, with the address."""
    transport = ZmqTransport(url, Options(timeout=0.3))
    with pytest.raises(TransportError, match="did not answer within"):
        await transport.open()
    await transport.close()


async def test_an_address_that_is_taken_is_an_error() -> None:
    """Two hubs cannot share one."""
    url = hub.tcp_url()
    async with hub.opened(url, Role.SERVER):
        with pytest.raises(TransportError, match="cannot bind tcp://"):
            await ZmqTransport(url, Options(role=Role.SERVER)).open()


async def test_nothing_is_left_after_close(url: str) -> None:
    """No task and no file descriptor; closing twice is no error, use after it is."""
    before = hub.possessions()
    for _ in range(3):
        async with hub.opened(url, Role.SERVER) as server, hub.opened(url) as member:
            await member.transport.subscribe(["#"])
            await server.transport.publish(Outgoing("a", b"b", retain=True))
            await member.deliveries(1)
            transport = member.transport
        await transport.close()
        for attempt in (
            transport.publish(Outgoing("a", b"")),
            transport.subscribe(["a"]),
            transport.unsubscribe(["a"]),
        ):
            with pytest.raises(TransportError, match="not open"):
                await attempt
    assert before == hub.possessions()


async def test_use_before_open_is_an_error(url: str) -> None:
    """Nothing hangs and nothing is made up."""
    transport = ZmqTransport(url, Options())
    with pytest.raises(TransportError, match="not open"):
        await transport.publish(Outgoing("a", b""))
    with pytest.raises(TransportError, match="not open"):
        await anext(transport.incoming())
    with pytest.raises(UsageError, match="only an open server"):
        transport.set_members({})


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\x00b", "a" * 1025, "\ud800"])
async def test_a_topic_that_cannot_be_is_refused_at_once(url: str, topic: str) -> None:
    """Before anything goes out."""
    async with hub.opened(url, Role.SERVER) as server:
        with pytest.raises(UsageError):
            await server.transport.publish(Outgoing(topic, b""))
        with pytest.raises(UsageError):
            await server.transport.publish_batch([Outgoing(topic, b"")])


async def test_ipc_sockets_are_where_the_url_says(url: str) -> None:
    """The path itself and the same with .req."""
    directory, name = url.removeprefix("zmq+ipc://").rsplit("/", 1)
    async with hub.opened(url, Role.SERVER):
        assert sorted(os.listdir(directory)) == [name, name + ".req"]  # noqa: PTH208 - as short as it gets

"""What every transport must do while its connection lasts."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import threading
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import pytest
import pytest_asyncio

from brokerkm.errors import TransportError, UsageError
from brokerkm.testing.site import PATIENCE, Ends, Listener, Site, ends_at
from brokerkm.transport import Delivery, Outgoing, Role

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    Publish = Callable[[Outgoing], Awaitable[None]]

_KIBIBYTE: Final = 1024
_FLOOD: Final = 200  # messages of 64 KiB: 12.5 MiB, far more than a queue of 8 may hold
_FLOOD_SIZE: Final = 64 * _KIBIBYTE
_FLOOD_BOUND: Final = 6 * _KIBIBYTE * _KIBIBYTE  # bytes; eight messages, and buffers on their way


class TransportConformance:
    """Inherit from it under a name that begins with Test, and give it the fixture `site`.

    The server publishes, members subscribe and send requests: adapters need not let members publish.
    """

    pytestmark: ClassVar = [pytest.mark.asyncio]

    retains_for_wildcards: ClassVar[bool] = True  # a new wildcard filter gets the last values that it matches

    @pytest.fixture
    def site(self) -> Site:
        """Say where to run; every subclass does."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def ends(self, site: Site) -> AsyncGenerator[Ends]:
        """Yield what makes transports at the site and closes them."""
        async with ends_at(site) as ends:
            yield ends

    # Topics and filters.

    async def test_exact_filter_matches_one_topic(self, ends: Ends) -> None:
        """Neither a longer name, nor a level below, nor a level above is delivered."""
        server, member = await ends.server(), await ends.member()
        await member.subscribe([ends.topic("1")])
        others = ["10", "1/0", "11", "", "1/", "01"]
        await server.publish_batch([Outgoing(ends.topic(name), b"other") for name in others])
        await server.publish(Outgoing(ends.topic("1"), b"mine"))
        assert Delivery(ends.topic("1"), b"mine") == await Listener(member).delivery()

    async def test_exact_filters_deliver_once(self, ends: Ends) -> None:
        """A message arrives once, also after its topic was subscribed twice."""
        server, member = await ends.server(), await ends.member()
        await member.subscribe([ends.topic("1"), ends.topic("2"), ends.topic("1")])
        await member.subscribe([ends.topic("1")])
        sent = [Outgoing(ends.topic("1"), b"a"), Outgoing(ends.topic("1"), b"b"), Outgoing(ends.topic("2"), b"c")]
        await server.publish_batch(sent)
        heard = await Listener(member).deliveries(3)
        assert sorted(one.payload for one in heard) == [b"a", b"b", b"c"]

    async def test_plus_matches_one_level(self, ends: Ends) -> None:
        """A filter with + takes in every name of that level, and none below."""
        server, member = await ends.server(), await ends.member()
        await member.subscribe([ends.topic("+/x")])
        names = ["x", "1/x/y", "1/y", "1/2/x", "1/x"]
        await server.publish_batch([Outgoing(ends.topic(name), b"") for name in names])
        assert ends.topic("1/x") == (await Listener(member).delivery()).topic

    async def test_hash_matches_all_below(self, ends: Ends) -> None:
        """A filter that ends in # takes in its parent level and everything below."""
        server, member = await ends.server(), await ends.member()
        await member.subscribe([ends.topic("1/#")])
        for name in ("10", "2/1", "1", "1/2", "1/2/3"):
            await server.publish(Outgoing(ends.topic(name), b""))
        heard = await Listener(member).deliveries(3)
        assert {one.topic for one in heard} == {ends.topic("1"), ends.topic("1/2"), ends.topic("1/2/3")}

    async def test_forty_filters(self, ends: Ends) -> None:
        """More filters than any packet of a protocol takes are all in force."""
        server, member = await ends.server(), await ends.member()
        topics = [ends.topic(f"{level}/{level * 7}") for level in range(40)]
        await member.subscribe(topics)
        await server.publish_batch([Outgoing(topic, topic.encode()) for topic in topics])
        heard = await Listener(member).deliveries(40)
        assert sorted(topics) == sorted(one.payload.decode() for one in heard)

    async def test_unsubscribe(self, ends: Ends) -> None:
        """What was unsubscribed comes no more; what was never subscribed can be unsubscribed."""
        server, member = await ends.server(), await ends.member()
        await member.subscribe([ends.topic("1"), ends.topic("2")])
        await member.unsubscribe([ends.topic("1"), ends.topic("3")])
        await server.publish(Outgoing(ends.topic("1"), b"no"))
        await server.publish(Outgoing(ends.topic("2"), b"yes"))
        assert Delivery(ends.topic("2"), b"yes") == await Listener(member).delivery()

    @pytest.mark.parametrize("topic", ["", "a/+", "a/#", "a\0b", "\ud800", "x" * 65536])
    async def test_malformed_topic_is_refused(self, ends: Ends, topic: str) -> None:
        """A topic that names no single topic is the caller's mistake, and the transport goes on."""
        server = await ends.server()
        with pytest.raises(UsageError):
            await server.publish(Outgoing(topic, b""))
        await server.publish(Outgoing(ends.topic("1"), b""))

    @pytest.mark.parametrize("pattern", ["", "a/#/b", "a+/b", "a/b#", "a\0b", "\ud800"])
    async def test_malformed_filter_is_refused(self, ends: Ends, pattern: str) -> None:
        """A filter that MQTT does not know is the caller's mistake, and the transport goes on."""
        member = await ends.member()
        with pytest.raises(UsageError):
            await member.subscribe([pattern])
        await member.subscribe([ends.topic("1")])

    # Last values.

    async def test_late_subscriber_gets_last_value(self, ends: Ends) -> None:
        """It gets the latest retained payload, marked so, once, and then live ones, not marked."""
        server, member = await ends.server(), await ends.member()
        topic = ends.topic("1")
        for payload in (b"old", b"new"):
            await server.publish(Outgoing(topic, payload, retain=True))
        await server.publish(Outgoing(topic, b"not retained"))
        await member.subscribe([topic])
        listener = Listener(member)
        first = await listener.delivery()
        await server.publish(Outgoing(topic, b"live"))
        assert [Delivery(topic, b"new", retained=True), Delivery(topic, b"live")] == [first, await listener.delivery()]

    async def test_last_value_for_each_new_subscription(self, ends: Ends) -> None:
        """Who unsubscribes and subscribes again gets it again; who was there is not disturbed."""
        server, early, member = await ends.server(), await ends.member(), await ends.member()
        topic = ends.topic("1")
        there, listener = Listener(early), Listener(member)
        await early.subscribe([topic])
        await server.publish(Outgoing(topic, b"begin"))
        assert (
            Delivery(topic, b"begin") == await there.delivery()
        )  # some brokers look for a last value after the answer
        await server.publish(Outgoing(topic, b"kept", retain=True))
        for _ in range(2):
            await member.subscribe([topic])
            assert Delivery(topic, b"kept", retained=True) == await listener.delivery()
            await member.unsubscribe([topic])
        await server.publish(Outgoing(topic, b"end"))
        heard = await there.deliveries(2)
        assert [Delivery(topic, b"kept"), Delivery(topic, b"end")] == heard

    async def test_empty_payload_clears_last_value(self, ends: Ends) -> None:
        """After an empty retained payload a late subscriber gets only what is live."""
        server, member = await ends.server(), await ends.member()
        topic = ends.topic("1")
        await server.publish(Outgoing(topic, b"kept", retain=True))
        await server.publish(Outgoing(topic, b"", retain=True))
        await member.subscribe([topic])
        await server.publish(Outgoing(topic, b"live"))
        assert Delivery(topic, b"live") == await Listener(member).delivery()

    async def test_last_values_for_wildcard(self, ends: Ends) -> None:
        """A new wildcard filter gets the last values that it matches, if the broker is declared to do that."""
        server, member = await ends.server(), await ends.member()
        topics = {ends.topic(f"{index}/x") for index in range(3)}
        await server.publish_batch([Outgoing(topic, b"kept", retain=True) for topic in topics])
        await member.subscribe([ends.topic("+/x")])
        await server.publish(Outgoing(ends.topic("end/x"), b"live"))
        listener = Listener(member)
        heard: set[str] = set()
        expected = topics | {ends.topic("end/x")} if self.retains_for_wildcards else {ends.topic("end/x")}
        while heard != expected:
            heard.add((await listener.delivery()).topic)
            assert heard <= expected

    # Carrying.

    async def test_order_on_each_topic(self, ends: Ends) -> None:
        """What one publisher sends on one topic arrives in order, also when sent without waiting."""
        server, member = await ends.server(), await ends.member()
        topics = [ends.topic(name) for name in "abc"]
        await member.subscribe(topics)
        sent = [Outgoing(topics[index % 3], index.to_bytes(4)) for index in range(600)]
        await asyncio.gather(server.publish_batch(sent[:300]), server.publish_batch(sent[300:]))
        heard = await Listener(member).deliveries(600)
        for topic in topics:
            wanted = [one.payload for one in sent if one.topic == topic]
            assert wanted == [one.payload for one in heard if one.topic == topic]

    async def test_batch_of_two_thousand(self, ends: Ends) -> None:
        """A large batch on many topics arrives completely."""
        server, member = await ends.server(), await ends.member()
        await member.subscribe([ends.topic("+")])
        sent = [Outgoing(ends.topic(str(index % 100)), index.to_bytes(4)) for index in range(2000)]
        async with asyncio.TaskGroup() as group:
            group.create_task(server.publish_batch(sent))
            heard = await Listener(member).deliveries(2000)
        assert sorted(one.payload for one in sent) == sorted(one.payload for one in heard)

    async def test_empty_batch(self, ends: Ends) -> None:
        """Nothing to publish is published."""
        await (await ends.server()).publish_batch([])

    async def test_binary_payloads(self, ends: Ends) -> None:
        """Every byte is carried, and none, and the largest payload that the transport names."""
        server, member = await ends.server(max_payload=16 * _KIBIBYTE), await ends.member()
        await member.subscribe([ends.topic("1")])
        assert 0 < server.max_payload <= 16 * _KIBIBYTE
        payloads = [bytes(range(256)), b"", b"\0", b"\xff" * server.max_payload]
        await server.publish_batch([Outgoing(ends.topic("1"), payload) for payload in payloads])
        assert payloads == [one.payload for one in await Listener(member).deliveries(4)]

    async def test_request_reaches_server(self, ends: Ends) -> None:
        """A member's requests reach the server in order, under the topic that the member named."""
        server = await ends.server()
        await server.subscribe([f"{ends.base}/r/+"])
        member = await ends.member()
        topic = f"{ends.base}/r/member"
        for payload in (b"join", b"sync"):
            await member.request(topic, payload)
        heard = await Listener(server).deliveries(2)
        assert [Delivery(topic, b"join"), Delivery(topic, b"sync")] == heard

    # Limits.

    async def test_oversized_publish_is_refused(self, ends: Ends) -> None:
        """A payload above `max_payload` is the caller's mistake: nothing of the batch goes out."""
        server, member = await ends.server(max_payload=5000), await ends.member()
        topic = ends.topic("1")
        await member.subscribe([topic])
        with pytest.raises(UsageError, match=str(server.max_payload)):
            await server.publish_batch([Outgoing(topic, b"small"), Outgoing(topic, bytes(server.max_payload + 1))])
        await server.publish(Outgoing(topic, b"next"))
        assert (await Listener(member).delivery()).payload == b"next"

    @pytest.mark.parametrize("size", [1001, 200_000])
    async def test_oversized_delivery_is_dropped(self, ends: Ends, size: int) -> None:
        """A payload above what this client takes does not reach its caller, and does not end its connection."""
        server, member = await ends.server(max_payload=256 * _KIBIBYTE), await ends.member(max_payload=1000)
        topic = ends.topic("1")
        await member.subscribe([topic])
        await server.publish(Outgoing(topic, bytes(1000)))
        await server.publish(Outgoing(topic, bytes(size)))
        await server.publish(Outgoing(topic, b"next"))
        assert [len(one.payload) for one in await Listener(member).deliveries(2)] == [1000, 4]

    async def test_slow_consumer_slows_the_network(self, ends: Ends) -> None:
        """While a caller takes nothing, memory stays bounded; when it does, nothing is missing."""
        server, member = await ends.server(queue_size=8), await ends.member(queue_size=8)
        topic = ends.topic("1")
        await member.subscribe([topic])
        tracemalloc.start()
        try:
            flood = asyncio.create_task(self._flood(server.publish, topic))
            await asyncio.wait([flood], timeout=1)  # until all is sent, or the sender waits for the caller
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        heard = [int.from_bytes(one.payload[:4]) for one in await Listener(member).deliveries(_FLOOD)]
        await flood
        assert list(range(_FLOOD)) == heard
        assert held < _FLOOD_BOUND

    @staticmethod
    async def _flood(publish: Publish, topic: str) -> None:
        for index in range(_FLOOD):
            await publish(Outgoing(topic, index.to_bytes(4) + bytes(_FLOOD_SIZE - 4)))

    async def test_caller_may_publish_while_it_receives(self, ends: Ends) -> None:
        """A server that answers each request before it takes the next does not wait for itself."""
        server, member = await ends.server(queue_size=8), await ends.member()
        await server.subscribe([f"{ends.base}/r/+"])
        await member.subscribe([ends.topic("answer")])

        async def ask() -> None:
            for index in range(200):
                await member.request(f"{ends.base}/r/member", index.to_bytes(4))

        async with asyncio.TaskGroup() as group:
            group.create_task(ask())
            listener = Listener(server)
            for _ in range(200):
                request = await listener.delivery()
                await server.publish(Outgoing(ends.topic("answer"), request.payload))
        answers = await Listener(member).deliveries(200)
        assert [index.to_bytes(4) for index in range(200)] == [one.payload for one in answers]

    async def test_more_last_values_than_the_queue_holds(self, ends: Ends) -> None:
        """Subscribing does not wait until its caller has taken what is retained, for that would be for ever."""
        server, member = await ends.server(), await ends.member(queue_size=2)
        topics = [ends.topic(str(index)) for index in range(20)]
        await server.publish_batch([Outgoing(topic, b"kept", retain=True) for topic in topics])
        await member.subscribe(topics)
        heard = await Listener(member).deliveries(20)
        assert sorted(topics) == sorted(one.topic for one in heard)

    async def test_full_queue_does_not_stop_requests(self, ends: Ends) -> None:
        """Who does not take what comes in can still send."""
        server, member = await ends.server(), await ends.member(queue_size=2)
        await server.subscribe([f"{ends.base}/r/+"])
        await member.subscribe([ends.topic("1")])
        flood = [Outgoing(ends.topic("1"), bytes(_KIBIBYTE)) for _ in range(100)]
        async with asyncio.TaskGroup() as group:
            group.create_task(server.publish_batch(flood))
            for _ in range(3):
                await member.request(f"{ends.base}/r/member", b"hello")
            heard = await Listener(member).deliveries(100)
        assert [one.payload for one in flood] == [one.payload for one in heard]
        assert (await Listener(server).delivery()).payload == b"hello"

    # Opening and closing.

    async def test_close_ends_incoming(self, ends: Ends) -> None:
        """After `close`, which may be called twice, nothing comes in and nothing can be sent."""
        member = await ends.member()
        end = asyncio.create_task(Listener(member).end())
        await member.close()
        await member.close()
        await end
        with pytest.raises((TransportError, UsageError)):
            await member.request(f"{ends.base}/r/member", b"")

    async def test_close_before_open(self, ends: Ends) -> None:
        """A transport that was never opened can be closed."""
        await ends.site.make(Role.MEMBER).close()

    async def test_close_leaves_nothing_behind(self, ends: Ends) -> None:
        """After `close` there are no more tasks, threads and file descriptors than before `open`."""
        await self._come_and_go(ends)  # what a library starts once for the process is started
        before = _Possessions.now()
        for _ in range(3):
            await self._come_and_go(ends)
        async with asyncio.timeout(PATIENCE):
            while not _Possessions.now().within(before):  # noqa: ASYNC110 - a proxy's end closes in its own time
                await asyncio.sleep(0.05)

    @staticmethod
    async def _come_and_go(ends: Ends) -> None:
        server, member = ends.site.make(Role.SERVER), ends.site.make(Role.MEMBER)
        await server.open()
        await member.open()
        await member.subscribe([ends.topic("1")])
        await server.publish(Outgoing(ends.topic("1"), b"hello"))
        await Listener(member).delivery()
        await member.close()
        await server.close()


@dataclasses.dataclass(frozen=True, slots=True)
class _Possessions:
    """What this process has of what a transport must give back."""

    tasks: int
    threads: int
    descriptors: int

    @classmethod
    def now(cls) -> _Possessions:
        """Count; what is garbage does not count."""
        gc.collect()
        descriptors = Path("/proc/self/fd")
        count = sum(1 for _ in descriptors.iterdir()) if descriptors.is_dir() else 0
        return cls(len(asyncio.all_tasks()), threading.active_count(), count)

    def within(self, other: _Possessions) -> bool:
        """Tell whether none is more than in `other`."""
        return self.tasks <= other.tasks and self.threads <= other.threads and self.descriptors <= other.descriptors

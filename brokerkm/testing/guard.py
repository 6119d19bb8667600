"""What every guarded broker must do: the conformance kit for adapters of `brokerkm.guard.seam.BrokerGuard`.

In a test module of your adapter::

    class MySite(GuardedSite):
        url, server_options = "mqtt://127.0.0.1:1883", {"username": "keyserver", "password": "secret"}

        async def start_broker(self): ...
        async def stop_broker(self): ...
        def guard(self, fleet):
            return MyGuard(fleet, {"url": self.url})

    class TestMine(GuardConformance):
        @pytest.fixture
        def site(self):
            return MySite()

A new broker, not yet started, for each test. What a broker cannot do is declared by the class attributes, and then
asserted to be so. Who logs in at all is listed in `brokerkm.testing.guarded.MEMBERS`, the group is `GROUP`.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar

import pytest
import pytest_asyncio

from brokerkm.core.login import Principal, password
from brokerkm.errors import TransportError
from brokerkm.testing.guarded import GROUP, Device, GuardedSite, Yard, eventually, forbidden

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from brokerkm.testing.guarded import Client

MARK = b"marker"
FORGED = b"forged"
MOMENT = 1.0  # seconds in which a broker that hangs up has done so


class GuardConformance:
    """Inherit from it under a name that begins with Test, and give it the fixture `site`."""

    pytestmark: ClassVar = [pytest.mark.asyncio]

    guards_paths: ClassVar[bool] = True  # it knows which rekey topics are whose
    evicts: ClassVar[bool] = True  # it disconnects who is evicted, and does not let it in again
    takes_applicants: ClassVar[bool] = True  # it lets in devices of which nothing is known yet
    demands_login: ClassVar[bool] = True  # it turns away who has none, or a wrong one
    hangs_up: ClassVar[bool] = False  # it disconnects who tries what it may not, also by a subscription
    refuses_retained: ClassVar[bool] = True  # it keeps no request for those who come later, which would be a replay

    @pytest.fixture
    def site(self) -> GuardedSite:
        """Say where to run; every subclass does."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def yard(self, site: GuardedSite) -> AsyncGenerator[Yard]:
        """Yield a group behind the broker."""
        yard = Yard(site)
        try:
            await yard.begin()
            yield yard
        finally:
            await yard.end()

    # Reading and writing.

    async def test_a_member_reads_and_writes_what_is_its_own(self, yard: Yard) -> None:
        """Its path, Beacon, hand-overs and its own topic; its requests, and the application's topics."""
        server, alice, bob = await yard.keyserver(), await yard.client("alice"), await yard.client("bob")
        own = await yard.own("alice")
        await alice.transport.subscribe(own)
        await bob.transport.subscribe(["app/+/x"])
        await server.transport.subscribe([yard.topics.request("alice")])
        for topic in own:
            await server.publish(topic, MARK)
        await alice.hears(*((topic, MARK) for topic in own))
        await alice.publish("app/alice/x", MARK)
        await bob.hears(("app/alice/x", MARK))
        await alice.transport.request(yard.topics.request("alice"), MARK)
        await server.hears((yard.topics.request("alice"), MARK))

    async def test_a_member_hears_nothing_that_is_others(self, yard: Yard) -> None:
        """Neither by a sibling's rekey topic, nor by another's Welcome, nor by any wildcard or shared subscription."""
        server, alice = await yard.keyserver(), await yard.client("alice")
        others = [yard.topics.member("bob"), yard.topics.request("bob")]
        if self.guards_paths:
            others += [yard.topics.node(0, 1), yard.topics.node(1, 1)]
        for topic in others:
            await server.publish(topic, MARK, retain=True)
        if self.hangs_up:
            await self._is_hung_up_on(yard, forbidden(yard.topics, paths=self.guards_paths))
        else:
            await alice.subscribe(*forbidden(yard.topics, paths=self.guards_paths))
        await self._reads_on(yard, server, alice)
        for topic in others:
            await server.publish(topic, MARK)
        await self._reads_on(yard, server, alice)
        assert not alice.topics(MARK) & set(others)
        for topic in others:
            await server.publish(topic, b"", retain=True)

    async def _is_hung_up_on(self, yard: Yard, filters: Sequence[str]) -> None:
        """Let alice subscribe what is not hers: she is disconnected before she has heard anything."""
        for pattern in filters:
            probe = await yard.client("alice", MOMENT)
            with pytest.raises(TransportError):
                await probe.transport.subscribe([pattern])
            await probe.close()
            assert not probe.topics(MARK)

    async def _reads_on(self, yard: Yard, server: Client, client: Client) -> None:
        """Return when what has been published before must have come; alice reads on, or again."""
        own, mark = yard.topics.member("alice"), f"marker {time.monotonic()}".encode()
        await client.subscribe(own)
        await server.publish(own, mark, retain=True)
        await client.hears((own, mark))

    async def test_a_member_writes_nothing_that_is_the_servers(self, yard: Yard) -> None:
        """No Rekey, Beacon, hand-over or Welcome, nobody else's request, and nothing that is retained."""
        topics = yard.topics
        server = await yard.keyserver()
        await server.transport.subscribe([f"{topics.root}/{rest}" for rest in ("n/+/+", "b", "k", "m/+", "r/+")])
        tried = [topics.node(0, 0), topics.node(1, 0), topics.node(0, 1), topics.beacon, topics.handover]
        tried += [topics.member("alice"), topics.member("bob"), topics.request("bob"), f"{topics.root}/x"]
        for topic in tried:
            for retain in (False, True):
                alice = await self._tries(yard, "alice")
                await alice.publish(topic, FORGED, retain=retain)
                await alice.close()
        alice = await self._tries(yard, "alice")
        await alice.publish(topics.request("alice"), FORGED, retain=True)
        alice = await yard.client("alice")
        await alice.transport.request(topics.request("alice"), MARK)
        await server.hears((topics.request("alice"), MARK))
        assert not server.topics(FORGED) & set(tried)
        late = await yard.keyserver()
        await late.transport.subscribe([topics.request("alice")])
        await alice.transport.request(topics.request("alice"), MARK)
        await late.hears((topics.request("alice"), MARK))
        assert self.refuses_retained is not (topics.request("alice") in late.topics(FORGED))

    async def _tries(self, yard: Yard, name: str) -> Client:
        """Connect somebody who is going to do what the broker may hang up for."""
        return await yard.client(name, MOMENT) if self.hangs_up else await yard.client(name)

    # Logging in.

    async def test_who_cannot_prove_who_it_is_stays_outside(self, yard: Yard) -> None:
        """No login, a wrong password, another's key: refused; and nobody is the key server but itself."""
        stranger = Device("alice")
        username, secret = await yard.site.login(yard.devices["alice"])
        attempts: list[tuple[str | None, str | None]] = [
            (None, None),
            (username, secret[:-1] + ("A" if secret[-1] != "A" else "B")),
            (username, password(Principal(GROUP, "alice"), stranger.identity, stranger.key.sign)),
            (str(yard.site.server_options.get("username", "keyserver")), secret),
            ("nowhere:alice", secret),
        ]
        for name, given in attempts:
            if not self.demands_login:
                await yard.client_as(name, given)
                continue
            with pytest.raises(TransportError):
                await yard.client_as(name, given)
        assert await yard.lets_in("alice")

    async def test_an_applicant_may_ask_for_a_place_and_has_a_members_rights_once_it_is_seated(
        self, yard: Yard
    ) -> None:
        """Before, it has its request topic and its own mail; afterwards its path, on the same connection."""
        if not self.takes_applicants:
            assert not await yard.lets_in("dave")
            return
        server, dave = await yard.keyserver(), await yard.client("dave")
        topics = yard.topics
        mine = (topics.member("dave"), topics.beacon, topics.handover)
        await dave.transport.subscribe(mine)
        await server.transport.subscribe([topics.request("dave"), "app/dave"])
        for attempt in (topics.node(0, 1), topics.node(1, 0), "app/#"):
            probe = await self._tries(yard, "dave") if self.hangs_up else dave
            await probe.subscribe(attempt)
        probe = await self._tries(yard, "dave") if self.hangs_up else dave
        await probe.publish("app/dave", FORGED)
        if not dave.connected:
            dave = await yard.client("dave")
        for topic in (topics.node(0, 1), topics.node(1, 0), "app/bob", topics.member("dave")):
            await server.publish(topic, MARK)
        await dave.hears((topics.member("dave"), MARK))
        await dave.transport.request(topics.request("dave"), MARK)
        await server.hears((topics.request("dave"), MARK))
        assert {topics.member("dave")} == dave.topics(MARK)
        assert not server.topics(FORGED)
        await yard.seat("dave")
        await yard.settle()
        own = await yard.own("dave")
        await dave.transport.subscribe(own)
        await server.publish(own[-1], b"news")
        await dave.hears((own[-1], b"news"))

    # Leaving.

    async def test_who_is_evicted_is_disconnected_within_a_second_and_stays_outside(self, yard: Yard) -> None:
        """With the same credentials it does not come in again; the others notice nothing."""
        alice, bob = await yard.client("alice"), await yard.client("bob")
        await alice.transport.subscribe(await yard.own("alice"))
        await yard.evict("alice")
        began = time.monotonic()
        if not self.evicts:
            await yard.settle()
            assert await yard.lets_in("alice")
            return
        await alice.is_gone()
        took = time.monotonic() - began
        assert took < 1
        print(f"disconnected {took * 1000:.0f} ms after the eviction was stored")  # noqa: T201 - a figure
        assert not await yard.lets_in("alice")
        await yard.settle()
        assert not await yard.lets_in("alice")
        assert bob.connected
        assert not await yard.differences()

    async def test_who_is_evicted_before_it_had_a_place_goes_too(self, yard: Yard) -> None:
        """A device that was listed, and asks for a place."""
        if not (self.takes_applicants and self.evicts):
            pytest.skip("such devices do not get in here, or stay, which other tests assert")
        await yard.server.admin.add_member(GROUP, "dave", yard.devices["dave"].identity)
        await yard.settle()
        dave = await yard.client("dave")
        await yard.evict("dave")
        await dave.is_gone()
        assert not await yard.lets_in("dave")

    async def test_who_is_readmitted_has_its_new_place_and_not_the_old_one(self, yard: Yard) -> None:
        """Its old path's topics are somebody else's business by then."""
        if not self.evicts:
            pytest.skip("an eviction does not reach this broker, which the test before this one asserts")
        await yard.evict("alice")
        await yard.server.admin.readmit(GROUP, "alice")
        await yard.seat("dave")  # takes the place that has become free
        await yard.seat("alice")
        await yard.settle()
        assert await yard.slot("alice") != 0
        server, alice = await yard.keyserver(), await yard.client("alice")
        own = await yard.own("alice")
        await alice.transport.subscribe(own)
        if self.guards_paths and not self.hangs_up:
            await alice.subscribe(yard.topics.node(0, 0), yard.topics.node(1, 0))
            for topic in (yard.topics.node(0, 0), yard.topics.node(1, 0)):
                await server.publish(topic, MARK)
        for topic in own:
            await server.publish(topic, b"news")
        await alice.hears(*((topic, b"news") for topic in own))
        assert not alice.topics(MARK) - set(own)

    # Restarts.

    async def _is_as_it_should_be(self, yard: Yard) -> None:
        """Alice and bob are members, carol has been evicted."""
        await eventually(lambda: yard.lets_in("alice"), "alice is let in")
        await eventually(lambda: self._is_out(yard, "carol"), "carol is kept out")
        await yard.settle()
        assert not await yard.differences()
        server, alice = await yard.keyserver(), await yard.client("alice")
        if self.hangs_up:
            await self._is_hung_up_on(yard, ["#", yard.topics.node(0, 1), yard.topics.member("bob")])
            return
        if self.guards_paths:
            await alice.subscribe(yard.topics.node(0, 1))
            await server.publish(yard.topics.node(0, 1), MARK)
        await alice.subscribe(yard.topics.member("bob"))
        await server.publish(yard.topics.member("bob"), MARK)
        await self._reads_on(yard, server, alice)
        assert not alice.topics(MARK)

    async def _is_out(self, yard: Yard, name: str) -> bool:
        return not self.evicts or not await yard.lets_in(name)

    async def test_the_broker_restarts(self, yard: Yard) -> None:
        """It comes back with the same rules."""
        await yard.evict("carol")
        await yard.site.stop_broker()
        await yard.site.start_broker()
        await self._is_as_it_should_be(yard)

    async def test_the_broker_restarts_and_has_lost_what_it_knew(self, yard: Yard) -> None:
        """It is told everything anew."""
        await yard.evict("carol")
        await yard.site.stop_broker()
        await yard.site.lose_state()
        await yard.site.start_broker()
        await self._is_as_it_should_be(yard)

    async def test_a_member_is_evicted_while_the_broker_is_away(self, yard: Yard) -> None:
        """The broker hears of it when it is back."""
        assert await yard.lets_in("carol")
        await yard.site.stop_broker()
        await yard.evict("carol")
        await yard.site.start_broker()
        await self._is_as_it_should_be(yard)

    async def test_the_guard_restarts(self, yard: Yard) -> None:
        """Whoever was evicted stays outside also while nobody guards."""
        await yard.evict("carol")
        await yard.settle()
        await yard.stop_server()
        assert await self._is_out(yard, "carol")
        await yard.start_server()
        await self._is_as_it_should_be(yard)

    async def test_both_restart_the_broker_first(self, yard: Yard) -> None:
        """Each stops and starts before the other one does."""
        await yard.evict("carol")
        await yard.settle()
        await yard.site.stop_broker()
        await yard.stop_server()
        await yard.site.start_broker()
        assert await self._is_out(yard, "carol")
        await yard.start_server()
        await self._is_as_it_should_be(yard)

    async def test_both_restart_the_guard_first(self, yard: Yard) -> None:
        """The key server waits for its broker, as whoever starts it sees to."""
        await yard.evict("carol")
        await yard.settle()
        await yard.stop_server()
        await yard.site.stop_broker()
        starting = asyncio.ensure_future(self._start_in_the_end(yard))
        await asyncio.sleep(0)
        await yard.site.start_broker()
        await starting
        await self._is_as_it_should_be(yard)

    async def _start_in_the_end(self, yard: Yard) -> None:
        async def starts() -> bool:
            try:
                await yard.start_server()
            except TransportError:
                return False
            return True

        await eventually(starts, "the key server reaches its broker")

"""Mosquitto without our plugin: the kit for guarded brokers, with what each level does not do."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, ClassVar

import pytest
from brokers.mosquitto import KEYSERVER, DynamicMosquitto, GuardedMosquitto, StaticMosquitto

from brokerkm.core.login import Principal
from brokerkm.core.names import Topics
from brokerkm.errors import TransportError, UsageError
from brokerkm.guard.fleet import GuardedGroup
from brokerkm.guard.passwords import Passwords
from brokerkm.guard.rules import DataFilters, Grant, Rank
from brokerkm.store.records import MemberRecord, Status
from brokerkm.testing.guard import GuardConformance
from brokerkm.testing.guarded import GROUP, MEMBERS, GuardedSite
from brokerkm_mosquitto import dynsec
from brokerkm_mosquitto.dynsec import MosquittoDynsecGuard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from brokerkm.guard.fleet import Fleet
    from brokerkm.guard.seam import BrokerGuard, Difference
    from brokerkm.testing.guarded import Device


class MosquittoSite(GuardedSite):
    """Mosquitto at one level, on the same port after each restart."""

    def __init__(self, broker: GuardedMosquitto) -> None:
        self._broker = broker
        self.url, self.server_options = self._broker.url, KEYSERVER

    async def start_broker(self) -> None:
        """Start it."""
        self._broker.start()

    async def stop_broker(self) -> None:
        """Stop it."""
        self._broker.stop()

    async def lose_state(self) -> None:
        """Let it begin as it was installed."""
        self._broker.lose_state()


class DynamicSite(MosquittoSite):
    """Mosquitto with dynamic security."""

    def guard(self, fleet: Fleet) -> BrokerGuard:
        """Return a new one."""
        return MosquittoDynsecGuard(fleet, {"url": self.url, **KEYSERVER})

    async def login(self, device: Device) -> tuple[str, str]:
        """Return the password that is derived for a member."""
        principal = Principal(GROUP, device.member)
        return principal.username, Passwords(KEYSERVER["password"]).of(principal)


class TestMosquittoDynsec(GuardConformance):
    """Devices have to be known, and it cannot tell a retained request from another."""

    takes_applicants: ClassVar = False
    refuses_retained: ClassVar = False

    @pytest.fixture
    def site(self) -> Iterator[DynamicSite]:
        """Run Mosquitto here."""
        broker = DynamicMosquitto()
        yield DynamicSite(broker)
        broker.remove()


class NoGuard:
    """Keeps nothing up to date, because static rules know no member."""

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def admit(self, grant: Grant) -> None:
        """Do nothing."""

    async def evict(self, group: str, member: str) -> None:
        """Do nothing."""

    async def forget(self, group: str) -> None:
        """Do nothing."""

    async def diff(self) -> AsyncIterator[Difference]:
        """Find no differences."""
        for nothing in ():
            yield nothing

    async def sync(self, progress: Callable[[int, int], None]) -> int:
        """Find none."""
        return 0


class StaticSite(MosquittoSite):
    """Mosquitto with static rules, and the password of each member."""

    def guard(self, fleet: Fleet) -> BrokerGuard:
        """Return none."""
        return NoGuard()  # type: ignore[return-value]  # it has no options

    async def login(self, device: Device) -> tuple[str, str]:
        """Return what is in the password file."""
        return device.member, f"{device.member}'s password"


class TestMosquittoAcl(GuardConformance):
    """It knows no paths, and nothing of evictions."""

    guards_paths: ClassVar = False
    evicts: ClassVar = False
    refuses_retained: ClassVar = False

    @pytest.fixture
    def site(self) -> Iterator[StaticSite]:
        """Run Mosquitto here."""
        broker = StaticMosquitto({name: f"{name}'s password" for name in MEMBERS})
        yield StaticSite(broker)
        broker.remove()

    async def test_an_applicant_may_ask_for_a_place_and_has_a_members_rights_once_it_is_seated(self) -> None:  # type: ignore[override]
        """Static rules make no difference between members and those who want to be."""


class Few:
    """A fleet of one group whose members a test sets."""

    def __init__(self, size: int) -> None:
        self.group = GuardedGroup("few", "bkm/1", 4, DataFilters(("app/%m/#", "log"), ("app/#",)))
        self.seats = {f"m{number}": number for number in range(size)}

    async def groups(self) -> dict[str, GuardedGroup]:
        """Return the group."""
        return {"few": self.group}

    async def member(self, group: str, member: str) -> MemberRecord | None:
        """Return what is known of a member id."""
        return self._record(member) if member in self.seats else None

    async def members(self, group: str) -> AsyncIterator[MemberRecord]:
        """Yield them all."""
        for member in self.seats:
            yield self._record(member)

    def _record(self, member: str) -> MemberRecord:
        return MemberRecord(member, Status.SEATED, bytes(32), slot=self.seats[member])


def progress(_done: int, _total: int) -> None:
    """Take no notice."""


async def differences(guard: MosquittoDynsecGuard) -> set[tuple[str, str]]:
    """Return who differs and how."""
    return {(found.member, found.what) async for found in guard.diff()}


async def test_it_mends_what_differs_and_leaves_the_rest() -> None:
    """Clients and roles of others are not its business."""
    few = Few(30)
    with DynamicMosquitto().running() as broker:
        guard = MosquittoDynsecGuard(few, {"url": broker.url, **KEYSERVER})
        await guard.open()
        try:
            await guard._do([{"command": "createClient", "username": "others", "password": "x", "roles": []}])
            assert len(await differences(guard)) == 31
            began = time.monotonic()
            assert await guard.sync(progress) == 31
            print(f"{len(few.seats)} members in {time.monotonic() - began:.2f} s")  # noqa: T201 - a figure
            assert await guard.sync(progress) == 0
            few.seats["m3"] = 900
            del few.seats["m4"]
            few.group = GuardedGroup("few", "bkm/1", 4, DataFilters(("app/%m/#",), ("app/#",)))
            assert {
                ("", "has other rights at the broker"),
                ("m3", "has other rights at the broker"),
                ("m4", "has rights at the broker, but not by the store"),
            } == await differences(guard)
            assert await guard.sync(progress) == 3
            assert not await differences(guard)
            other = MosquittoDynsecGuard(few, {"url": broker.url, **KEYSERVER})
            other._mark = "brokerkm of another password"  # type: ignore[misc]
            await other.open()
            try:
                assert await other.sync(progress) == 29
            finally:
                await other.close()
            await guard.forget("few")
            clients = [one["username"] async for one in guard._all("listClients", "clients")]
            assert {"keyserver", "others"} == set(clients)
        finally:
            await guard.close()


async def test_what_is_missing_at_the_broker_is_compared_before_anything_else() -> None:
    """A client that somebody has deleted, and receiving that somebody has allowed."""
    few = Few(2)
    deletion = [  # not the role alone: Mosquitto 2.0.11 would read freed memory
        {"command": "deleteClient", "username": "few:m0"},
        {"command": "deleteRole", "rolename": "brokerkm:few:m0"},
    ]
    grant = few.group.grant(MemberRecord("m0", Status.SEATED, bytes(32), slot=5), ("bkm/1",))
    assert grant is not None
    with DynamicMosquitto().running() as broker:
        guard = MosquittoDynsecGuard(few, {"url": broker.url, **KEYSERVER})
        await guard.open()
        try:
            with pytest.raises(TransportError, match="not been compared"):
                await guard.admit(grant)
            await guard.sync(progress)
            allow = {"acltype": "publishClientReceive", "allow": True}
            await guard._do([{"command": "setDefaultACLAccess", "acls": [allow]}])
            await guard._do(deletion)
            assert ("", "the broker allows by default what no rule forbids") in await differences(guard)
            await guard.sync(progress)
            await guard._do(deletion)
            with pytest.raises(TransportError, match="did not do modifyRole"):
                await guard.admit(grant)
            await guard.sync(progress)
            assert not await differences(guard)
            await guard.evict("few", "m1")
            await guard.evict("few", "m1")
            assert {("m1", "is missing at the broker")} == await differences(guard)
        finally:
            await guard.close()


async def test_more_than_it_can_carry_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to use instead."""
    monkeypatch.setattr(dynsec, "MAX_MEMBERS", 2)
    few = Few(2)
    with DynamicMosquitto().running() as broker:
        guard = MosquittoDynsecGuard(few, {"url": broker.url, **KEYSERVER})
        await guard.open()
        try:
            await guard.sync(progress)
            grant = Grant(Topics("few"), 4, "m2", Rank.MEMBER, 2, few.group.data.of("few", "m2"))
            with pytest.raises(TransportError, match="--level plugin"):
                await guard.admit(grant)
            few.seats["m2"] = 2
            with pytest.raises(TransportError, match="3 members are more than"):
                await guard.sync(progress)
        finally:
            await guard.close()


def test_a_password_that_can_be_guessed_is_refused() -> None:
    """Any member could try guesses of it; and a device's password is always the same."""
    with pytest.raises(UsageError, match="at least 20 characters"):
        MosquittoDynsecGuard(Few(0), {"url": "mqtt://127.0.0.1", "password": "keyserver"})
    with pytest.raises(UsageError, match="needs a user"):
        MosquittoDynsecGuard(Few(0), {"url": "mqtt://127.0.0.1"})
    principal = Principal("plant", "pump-7")
    first, second = Passwords("x" * 20), Passwords("y" * 20)
    assert first.of(principal) == "DRYG_3ILVPZ7mzB2EkXbzgjVapqhhynbMy8Yaz5V8FY"
    assert len({first.of(principal), second.of(principal), first.of(Principal("plant", "pump-8"))}) == 3
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"responses": 1}', b"\xff", b"[" * 100_000])
def test_a_malformed_answer_is_for_nobody(answer: bytes) -> None:
    """Whoever waits goes on waiting, until its time is up."""
    assert dynsec._batch_of(answer) is None


def test_answers_are_taken_with_care() -> None:
    """Only objects are looked at."""
    assert dynsec._batch_of(json.dumps({"responses": [1, {"correlationData": "b"}]}).encode()) == "b"
    assert dynsec._rule({"priority": "x"}).priority == -1

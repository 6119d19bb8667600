"""Rules, hooks, approvals, certificates, clones and quarantine in service: real members at a real server."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from admission.authority import AT, DAY, Authority
from admission.authority import Device as Certified
from admission.test_hook import NO, YES, inventory
from service.fleet import Device, eventually

from brokerkm.api import ApiServer, RemoteAdmin
from brokerkm.core.events import Evicted, Joined, Rekeyed, RequestRefused, Synced
from brokerkm.core.member import Member
from brokerkm.core.notice import RefusalReason
from brokerkm.core.request import Asked, Join, Sync
from brokerkm.errors import StoreError, UnknownNameError, UsageError
from brokerkm.service.feed import Kind
from brokerkm.store import Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from brokerkm.core.request import Credential, TokenKey
    from brokerkm.descriptor import Descriptor
    from brokerkm.service import KeyServer
    from brokerkm.service.feed import Happening
    from brokerkm.store import MemberRecord, Store

    OpenDevice = Callable[..., Awaitable[Device]]


def token_of(descriptor: Descriptor) -> TokenKey:
    """Return the descriptor's token."""
    assert descriptor.token is not None
    return descriptor.token.key


async def ask(device: Device, credential: Credential | None = None) -> None:
    """Send a Join."""
    await device.send(device.member.join(time.time(), credential))


async def refused(device: Device) -> RefusalReason:
    """Return why the device's request was refused."""
    return (await device.expect(RequestRefused)).reason


def known(store: Store, member: str = "pump") -> MemberRecord:
    """Return what the store has of a member."""
    found = store.member("plant", member)
    assert found is not None
    return found


def heard(server: KeyServer) -> list[Happening]:
    """Return a list that grows by what happens."""
    found: list[Happening] = []
    server.feed.listen(found.append)
    return found


async def seated(server: KeyServer, device: OpenDevice, name: str = "pump") -> Device:
    """Return a device that has joined by a token of its own."""
    descriptor = await server.admin.invite("plant")
    found = await device(descriptor, name)
    await ask(found, token_of(descriptor))
    await found.expect(Joined)
    return found


def audited(store: Store) -> list[str]:
    """Return what the group's audit log says was done."""
    return [record.entry.action for record in store.audit("plant")]


async def test_a_rule_that_denies(server: KeyServer, device: OpenDevice) -> None:
    """A good token does not help against it; others get in."""
    await server.admin.set_admission("plant", {"rules": [{"action": "deny", "member": "p*"}]})
    news = heard(server)
    descriptor = await server.admin.invite("plant", uses=2)
    pump = await device(descriptor)
    await ask(pump, token_of(descriptor))
    assert RefusalReason.NOT_ADMITTED is await refused(pump)
    assert [(Kind.JOIN_REFUSED, "pump", "rule")] == [
        (one.kind, one.member, one.details["reason"]) for one in news if one.kind is Kind.JOIN_REFUSED
    ]
    await seated(server, device, "valve")


async def test_a_token_for_some_ids(server: KeyServer, device: OpenDevice) -> None:
    """Its pattern is kept to."""
    descriptor = await server.admin.invite("plant", pattern="pump-*", uses=2)
    for name, kind in (("valve", RequestRefused), ("pump-1", Joined)):
        found = await device(descriptor, name)
        await ask(found, token_of(descriptor))
        await found.expect(kind)


async def wait_for_a_yes(server: KeyServer, device: OpenDevice, store: Store) -> tuple[Device, TokenKey]:
    """Return a device that waits for an operator."""
    descriptor = await server.admin.invite("plant")
    pump = await device(descriptor)
    await ask(pump, token_of(descriptor))
    assert RefusalReason.TRY_LATER is await refused(pump)
    assert Status.PENDING is known(store).status
    return pump, token_of(descriptor)


async def test_an_operator_says_yes(server: KeyServer, device: OpenDevice, store: Store) -> None:
    """The device is seated with its newest Join, without asking again; its token is spent."""
    await server.admin.set_admission("plant", {"default": "approve"})
    pump, token = await wait_for_a_yes(server, device, store)
    await ask(pump, token)
    assert RefusalReason.TRY_LATER is await refused(pump)
    assert 0 == server.groups["plant"].group.epoch, "asking again changes nothing"
    assert "listed" == (await server.admin.acting("operator:ann").approve("plant", "pump")).status
    await pump.expect(Joined)
    assert (Status.SEATED, []) == (known(store).status, store.tokens("plant"))
    assert ["invite", "ask", "approve", "seat"] == [
        one for one in audited(store) if one not in ("create", "set-admission")
    ]
    await ask(pump)
    await eventually(lambda: known(store).epoch == 2)
    assert Status.SEATED is known(store).status, "with its own key it needs no further yes"


async def test_an_operator_says_no(server: KeyServer, device: OpenDevice, store: Store) -> None:
    """The device is told, and cannot ask again before it is readmitted."""
    await server.admin.set_admission("plant", {"default": "approve"})
    pump, token = await wait_for_a_yes(server, device, store)
    assert "evicted" == (await server.admin.reject("plant", "pump")).status
    with pytest.raises(UnknownNameError, match="does not wait to be admitted"):
        await server.admin.approve("plant", "pump")
    await ask(pump, token)
    assert RefusalReason.NOT_ADMITTED is await refused(pump)
    await server.admin.readmit("plant", "pump")
    await ask(pump)
    await pump.expect(Joined)


async def test_a_yes_after_a_restart(store: Store, server: KeyServer, device: OpenDevice) -> None:
    """Who waits is in the store, not in the server's memory."""
    await server.admin.set_admission("plant", {"default": "approve"})
    pump, token = await wait_for_a_yes(server, device, store)
    del server.groups["plant"].changes.joins
    server.groups["plant"].changes.joins = {}
    await server.admin.approve("plant", "pump")
    await pump.expect(Joined)
    assert token is not None


async def test_another_device_while_one_waits(server: KeyServer, device: OpenDevice, store: Store) -> None:
    """An id that somebody waits for is not given to another key."""
    await server.admin.set_admission("plant", {"default": "approve"})
    pump, _ = await wait_for_a_yes(server, device, store)
    descriptor = await server.admin.invite("plant")
    thief = await device(descriptor)
    await ask(thief, token_of(descriptor))
    await eventually(lambda: server.requests is not None and server.requests.refused["bad-signature"] == 1)
    assert pump.member.identity == known(store).identity


async def test_few_may_wait(server: KeyServer, device: OpenDevice, store: Store) -> None:
    """Beyond them nothing is kept; those whom nobody answers make room in the end."""
    await server.admin.set_admission("plant", {"default": "approve", "pending": {"most": 1, "expires": 60}})
    await wait_for_a_yes(server, device, store)
    descriptor = await server.admin.invite("plant", uses=3)
    valve = await device(descriptor, "valve")
    await ask(valve, token_of(descriptor))
    assert RefusalReason.TRY_LATER is await refused(valve)
    assert (None, 3) == (store.member("plant", "valve"), store.tokens("plant")[0].uses_left)
    assert server.requests is not None
    registration = server.requests.registration
    later = int(time.time() * 1000) + 61_000
    await server.desk.call(registration._forget, "plant", later, later - 60_000)
    assert (Status.LISTED, b"") == (known(store).status, known(store).identity)
    await ask(valve, token_of(descriptor))
    await eventually(lambda: store.member("plant", "valve") is not None)
    assert Status.PENDING is known(store, "valve").status


@pytest.mark.parametrize(("answer", "kind"), [(YES, Joined), (NO, RequestRefused), (None, RequestRefused)])
async def test_a_hook(server: KeyServer, device: OpenDevice, answer: bytes | None, kind: type) -> None:
    """It says yes, no or nothing; only a yes lets the device in."""
    async with inventory(answer) as found:
        await server.admin.set_admission("plant", {"hook": {"url": found.url, "timeout": 0.3}})
        descriptor = await server.admin.invite("plant")
        pump = await device(descriptor)
        await ask(pump, token_of(descriptor))
        event = await pump.expect(kind)
        if isinstance(event, RequestRefused):
            assert event.reason is (RefusalReason.TRY_LATER if answer is None else RefusalReason.NOT_ADMITTED)


async def test_while_a_hook_thinks(server: KeyServer, device: OpenDevice) -> None:
    """Others are served, and the server stops without waiting for it."""
    async with inventory(None) as found:
        policy: dict[str, Any] = {"hook": {"url": found.url, "timeout": 30}}
        member = await seated(server, device, "valve")
        await server.admin.set_admission("plant", policy)
        descriptor = await server.admin.invite("plant")
        pump = await device(descriptor)
        await ask(pump, token_of(descriptor))
        await eventually(lambda: bool(found.questions))
        await ask(pump, token_of(descriptor))  # takes the place of the first
        await eventually(lambda: len(found.questions) == 2)
        await member.send(member.member.sync(time.time()))
        await member.expect(Synced)
        await server.stop()


async def test_an_eviction_while_a_hook_thinks(server: KeyServer, device: OpenDevice, store: Store) -> None:
    """A yes that comes too late seats nobody."""
    async with inventory(None) as found:
        pump = await seated(server, device)
        await server.admin.set_admission("plant", {"hook": {"url": found.url, "timeout": 30}})
        await ask(pump)
        await eventually(lambda: bool(found.questions))
        await server.admin.evict("plant", "pump")
        await pump.expect(Evicted)
        assert server.requests is not None
        registration, group = server.requests.registration, server.groups["plant"]
        gate = await registration.gate(group)
        join = Join.decode(pump.member.join(time.time()), group.record.suite)
        record = known(store)
        who = await gate.prove("pump", join, record, None, now=join.time, last_time=0)
        registration._grant(group, who, join)
        await eventually(lambda: not group.changes.joins and group.waiting_join("pump") is None)
        assert Status.EVICTED is known(store).status


@pytest.fixture
def root(tmp_path: Path) -> Authority:
    """Make an authority that is valid today, and its file."""
    found = Authority(valid=(AT - 1000 * DAY, AT + 1000 * DAY))
    (tmp_path / "ca.pem").write_bytes(found.pem)
    return found


def by_certificate(root: Authority, tmp_path: Path, *rules: dict[str, Any]) -> tuple[dict[str, Any], Certified]:
    """Return a policy that trusts the authority, and a device for it."""
    policy = {"rules": list(rules), "certificates": {"authorities": str(tmp_path / "ca.pem")}}
    return policy, root.device("pump", valid=(AT - 900 * DAY, AT + 900 * DAY))


async def test_a_certificate(server: KeyServer, device: OpenDevice, root: Authority, tmp_path: Path) -> None:
    """A device joins by its certificate, under the name in it and no other."""
    policy, shown = by_certificate(root, tmp_path)
    descriptor = await server.admin.invite("plant")
    pump, valve = await device(descriptor), await device(descriptor, "valve")
    await ask(pump, shown)
    assert RefusalReason.NOT_ADMITTED is await refused(pump), "nobody trusts the authority yet"
    await server.admin.set_admission("plant", policy)
    await ask(pump, shown)
    await pump.expect(Joined)
    await ask(valve, shown)
    assert RefusalReason.NOT_ADMITTED is await refused(valve)


@pytest.mark.parametrize(
    ("rule", "same", "other"),
    [(None, False, False), ("same", True, False), ("other", True, True)],
    ids=["no rule", "same", "other"],
)
async def test_a_device_that_comes_back_with_another_key(  # noqa: PLR0917 - fixtures and parameters
    server: KeyServer,
    device: OpenDevice,
    root: Authority,
    tmp_path: Path,
    rule: str | None,
    same: bool,  # noqa: FBT001 - a parameter
    other: bool,  # noqa: FBT001 - a parameter
) -> None:
    """It has lost its state, or it is another one: a rule says which of them may have the id again."""
    rules = [] if rule is None else [{"action": "allow", "returning": rule}]
    policy, shown = by_certificate(root, tmp_path, *rules)
    await server.admin.set_admission("plant", policy)
    descriptor = await server.admin.invite("plant", uses=9)
    news = heard(server)
    first = await device(descriptor)
    await ask(first, shown)
    await first.expect(Joined)
    replaced = root.device(
        "pump", valid=(shown.certificate.not_valid_before_utc, shown.certificate.not_valid_after_utc)
    )
    for credential, allowed in ((token_of(descriptor), other), (replaced, other), (shown, same)):
        again = await device(descriptor)
        await ask(again, credential)
        await again.expect(Joined if allowed else RequestRefused)
    assert Kind.CLONE_SUSPECTED not in {one.kind for one in news}, "who begins anew counts from the beginning"


async def test_a_device_without_a_credential_is_no_other(server: KeyServer, device: OpenDevice) -> None:
    """Whatever the rules say, another key alone proves nothing."""
    await server.admin.set_admission("plant", {"rules": [{"action": "allow", "returning": "other"}]})
    await seated(server, device)
    thief = await device(await server.admin.invite("plant"))
    await ask(thief)
    assert RefusalReason.NOT_ADMITTED is await refused(thief)


async def test_replaced_hardware(server: KeyServer, device: OpenDevice, store: Store) -> None:
    """An operator frees the id: the old device is out, whoever has a token may take its place."""
    old = await seated(server, device)
    assert ("listed", "") == ((found := await server.admin.release("plant", "pump")).status, found.identity)
    await old.expect(Evicted)
    await ask(old)
    await eventually(lambda: server.requests is not None and server.requests.refused["unknown-token"] == 1)
    new = await seated(server, device)
    assert new.member.identity == known(store).identity
    with pytest.raises(UnknownNameError, match="'nobody' is not a member"):
        await server.admin.release("plant", "nobody")


async def copied(device: OpenDevice, server: KeyServer, original: Device) -> Device:
    """Return a device that goes on from a copy of another's state."""
    member = Member.load(original.member.dump(), os.urandom, time.time())
    return await device(await server.admin.invite("plant"), "pump", member=member)


async def clone(server: KeyServer, device: OpenDevice) -> tuple[Device, Device]:
    """Return two holders of one state, both of which have asked for the current keys."""
    pump = await seated(server, device)
    other = await copied(device, server, pump)
    for later, one in enumerate((pump, other)):
        await one.send(one.member.sync(time.time() + later))
    return pump, other


async def test_a_clone_is_reported(server: KeyServer, device: OpenDevice, store: Store) -> None:
    """Once, in feed and audit log, however often the two ask; both are served."""
    news = heard(server)
    pump, other = await clone(server, device)
    await pump.expect(Synced)
    await eventually(lambda: "suspect-clone" in audited(store))
    for later, one in enumerate((pump, other), 2):
        await one.send(one.member.sync(time.time() + later))
    await eventually(lambda: len([one for one in news if one.kind is Kind.SYNC]) == 4)
    assert [("pump", "repeated")] == [
        (one.member, one.details["conduct"]) for one in news if one.kind is Kind.CLONE_SUSPECTED
    ]
    assert 1 == audited(store).count("suspect-clone")


async def test_no_false_alarm(server: KeyServer, device: OpenDevice) -> None:
    """Neither what a broker delivers twice, nor a device that restarts, nor one that joins again is a clone."""
    news = heard(server)
    pump = await seated(server, device)
    request = pump.member.sync(time.time())
    await pump.send(request)
    await pump.send(request)
    await pump.expect(Synced)
    again = await copied(device, server, pump)  # a restart: the state was saved before the request went out
    await again.send(again.member.sync(time.time()))
    await again.expect(Synced)
    await ask(again)
    await again.reaches(2)
    await again.send(again.member.sync(time.time()))
    await eventually(lambda: len([one for one in news if one.kind is Kind.SYNC]) == 3)
    assert Kind.CLONE_SUSPECTED not in {one.kind for one in news}


async def test_a_clone_is_quarantined(server: KeyServer, device: OpenDevice, store: Store) -> None:
    """Neither is served any longer, until an operator lifts that."""
    await server.admin.set_admission("plant", {"conduct": {"clones": "quarantine"}})
    news = heard(server)
    pump, _ = await clone(server, device)
    await eventually(lambda: Kind.QUARANTINED in {one.kind for one in news})
    assert known(store).blocked_until > time.time() * 1000 + 500_000
    await pump.expect(Synced)
    await pump.send(pump.member.sync(time.time() + 2))
    assert RefusalReason.TRY_LATER is await refused(pump)
    assert 0 == (await server.admin.lift("plant", "pump")).blocked_until
    with pytest.raises(UsageError, match="'pump' is not in quarantine"):
        await server.admin.lift("plant", "pump")


async def test_a_clone_gets_another_leaf(server: KeyServer, device: OpenDevice, store: Store) -> None:
    """With the next commit the leaf key is another one."""
    await server.admin.set_admission("plant", {"conduct": {"clones": "refresh"}})
    await clone(server, device)
    await eventually(lambda: known(store).epoch == 2)
    assert "refresh" in audited(store)


async def test_a_clone_is_evicted(server: KeyServer, device: OpenDevice, store: Store) -> None:
    """Both are out, and stay out."""
    await server.admin.set_admission("plant", {"conduct": {"clones": "evict"}})
    valve = await seated(server, device, "valve")
    pump, other = await clone(server, device)
    await pump.expect(Evicted)
    await other.expect(Evicted)
    await valve.expect(Rekeyed)
    assert Status.EVICTED is known(store).status


async def test_a_device_that_flaps(server: KeyServer, device: OpenDevice, store: Store) -> None:
    """Too many requests in a while, each of them good: it has to wait, also after a restart of the server."""
    await server.admin.set_admission("plant", {"conduct": {"changes": 2, "within": 3600, "quarantine": 60}})
    news = heard(server)
    pump = await seated(server, device)
    for _ in range(2):
        await pump.send(pump.member.sync(time.time()))
        await pump.expect(Synced)
    await pump.send(pump.member.sync(time.time()))
    assert RefusalReason.TRY_LATER is await refused(pump)
    assert ["flapping"] == [one.details["reason"] for one in news if one.kind is Kind.QUARANTINED]
    await ask(pump)
    await eventually(lambda: server.requests is not None and server.requests.refused["quarantined"] == 1)
    assert "quarantine" in audited(store)
    await pump.send(pump.member.leave(time.time()))
    await eventually(lambda: known(store).status is Status.LISTED)
    assert known(store).blocked_until > time.time() * 1000, "who wants to go may go, and comes back no sooner"


async def test_a_replayed_request_after_a_restart(server: KeyServer, device: OpenDevice, store: Store) -> None:
    """What was granted before a restart is refused after it: its time is in the store."""
    pump = await seated(server, device)
    request = pump.member.sync(time.time())
    await pump.send(request)
    await pump.expect(Synced)
    assert server.requests is not None
    await server.requests.sightings.flush()
    server.requests._times.clear()
    server.requests.sightings._waiting.clear()
    await server.requests.handle(server.groups["plant"], "pump", request)
    assert 1 == server.requests.refused["replay"]


async def test_a_policy_that_cannot_be_used(server: KeyServer, device: OpenDevice, tmp_path: Path) -> None:
    """It is refused when it is set; if its files go missing later, nobody is let in."""
    await server.admin.set_admission("plant", {"default": "deny"})
    policy = {"certificates": {"authorities": str(tmp_path / "none.pem")}}
    with pytest.raises(UsageError, match=r"none\.pem: No such file"):
        await server.admin.set_admission("plant", policy)
    assert "deny" == (await server.admin.show_admission("plant"))["default"]
    with pytest.raises(UsageError, match="rules has to be a list"):
        await server.admin.set_admission("plant", {"rules": "all"})
    assert server.requests is not None
    gates = server.requests.registration.gates
    gates._open.clear()
    (tmp_path / "ca.pem").write_bytes(Authority().pem)
    await server.admin.set_admission("plant", {"certificates": {"authorities": str(tmp_path / "ca.pem")}})
    gates._open.clear()
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(StoreError, match="the admission policy of group plant cannot be used"):
        await server.requests.registration.gate(server.groups["plant"])


async def test_forgeries_do_not_reach_the_store(
    server: KeyServer, device: OpenDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that was looked up since the last commit is known; after the next commit it is looked up again."""
    pump = await seated(server, device)
    group, requests = server.groups["plant"], server.requests
    assert requests is not None
    await pump.send(pump.member.sync(time.time()))
    await pump.expect(Synced)
    asked = Asked(bytes(16), int(time.time() * 1000) + 1000, 9)
    forged = Sync.seal(bytes(32), "plant", "pump", asked=asked, epoch=1)
    looked_up: list[str] = []
    real = requests._store.known

    def known(group: str, names: Sequence[str]) -> dict[str, MemberRecord]:
        looked_up.extend(names)
        return real(group, names)

    monkeypatch.setattr(requests._store, "known", known)
    await requests.handle(group, "pump", forged)
    assert (1, []) == (requests.refused["bad-mac"], looked_up)
    await server.admin.rotate("plant")
    await requests.handle(group, "pump", forged)
    assert (2, True) == (requests.refused["bad-mac"], "pump" in looked_up)


async def test_over_the_api(server: KeyServer, device: OpenDevice, store: Store, tmp_path: Path) -> None:
    """All of it can be done from another process."""
    async with ApiServer(server, tmp_path / "control.sock"):
        admin = await RemoteAdmin.connect(tmp_path / "control.sock")
        try:
            assert "approve" == (await admin.set_admission("plant", {"default": "approve"}))["default"]
            assert "approve" == (await admin.show_admission("plant"))["default"]
            with pytest.raises(UsageError, match="default has to be one of"):
                await admin.set_admission("plant", {"default": "no"})
            pump, _ = await wait_for_a_yes(server, device, store)
            assert "listed" == (await admin.approve("plant", "pump")).status
            await pump.expect(Joined)
            with pytest.raises(UnknownNameError, match="does not wait"):
                await admin.reject("plant", "pump")
            with pytest.raises(UsageError, match="is not in quarantine"):
                await admin.lift("plant", "pump")
            assert "listed" == (await admin.release("plant", "pump")).status
        finally:
            await admin.close()


async def test_who_sits_is_not_put_off(server: KeyServer, device: OpenDevice, store: Store) -> None:
    """A rule that has others approved does not let them unseat a member by asking for its id."""
    pump = await seated(server, device)
    await server.admin.set_admission("plant", {"rules": [{"action": "approve", "returning": "other"}]})
    descriptor = await server.admin.invite("plant")
    other = await device(descriptor)
    await ask(other, token_of(descriptor))
    assert RefusalReason.NOT_ADMITTED is await refused(other)
    assert (Status.SEATED, pump.member.identity) == (known(store).status, known(store).identity)

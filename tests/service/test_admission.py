"""Who gets in, who does not, and what each is told: real members, a real server, a broker between them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from service.fleet import Device, eventually

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Suite, load_signing_key
from brokerkm.core.events import Evicted, Joined, Rekeyed, RequestRefused, Synced
from brokerkm.core.notice import GoodbyeReason, RefusalReason
from brokerkm.core.request import Asked, Join
from brokerkm.errors import Reason, StoreError, UsageError
from brokerkm.service import requests as requests_module
from brokerkm.service.changes import PendingEviction, PendingJoin
from brokerkm.service.limits import RateLimit
from brokerkm.store import Status
from brokerkm.transport import Delivery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from brokerkm.descriptor import Descriptor, EnrollmentToken
    from brokerkm.service import KeyServer
    from brokerkm.service.requests import Requests

    OpenDevice = Callable[..., Awaitable[Device]]


def requests_of(server: KeyServer) -> Requests:
    """Return the server's admission."""
    assert server.requests is not None
    return server.requests


def token_of(descriptor: Descriptor) -> EnrollmentToken:
    """Return the descriptor's token."""
    assert descriptor.token is not None
    return descriptor.token


async def seated(server: KeyServer, device: OpenDevice, name: str = "pump") -> tuple[Device, Descriptor]:
    """Return a device that has joined by a token of its own."""
    descriptor = await server.admin.invite("plant")
    found = await device(descriptor, name)
    await found.join(token_of(descriptor).key)
    await found.expect(Joined)
    return found, descriptor


async def test_a_token_lets_as_many_in_as_it_has_uses(server: KeyServer, device: OpenDevice) -> None:
    """The second of two devices with a token for one is told that it is not admitted."""
    one, descriptor = await seated(server, device)
    other = await device(descriptor, "valve")
    await other.join(token_of(descriptor).key)
    assert RefusalReason.NOT_ADMITTED is (await other.expect(RequestRefused)).reason
    assert 1 == one.member.epoch
    assert ["pump"] == [info.member for info in await server.admin.list_members("plant")]


async def test_a_listed_key_needs_no_token(server: KeyServer, device: OpenDevice) -> None:
    """A device whose key was listed beforehand joins by it."""
    pump = await device(await server.admin.invite("plant"))
    info = await server.admin.add_member("plant", "pump", pump.member.identity)
    assert ("listed", None) == (info.status, info.slot)
    await pump.join()
    await pump.expect(Joined)


async def test_a_device_nobody_knows(server: KeyServer, device: OpenDevice) -> None:
    """No listed key and no token: not admitted, and nothing of it stays."""
    pump = await device(await server.admin.invite("plant"))
    await pump.join()
    assert RefusalReason.NOT_ADMITTED is (await pump.expect(RequestRefused)).reason
    assert (0, []) == (len(server.groups["plant"].changes), await server.admin.list_members("plant"))


async def test_another_key_under_a_listed_id(server: KeyServer, device: OpenDevice) -> None:
    """An id that has a key is not given to another key, whatever token it brings."""
    descriptor = await server.admin.invite("plant")
    await server.admin.add_member("plant", "pump", load_signing_key(os.urandom(32)).public_key().public_bytes_raw())
    thief = await device(descriptor)
    await thief.join(token_of(descriptor).key)
    assert RefusalReason.NOT_ADMITTED is (await thief.expect(RequestRefused)).reason


async def test_a_token_binds_the_identity(server: KeyServer, device: OpenDevice) -> None:
    """After a join by token the id belongs to that key: a second device with a fresh token cannot take it."""
    await seated(server, device)
    descriptor = await server.admin.invite("plant")
    thief = await device(descriptor)
    await thief.join(token_of(descriptor).key)
    assert RefusalReason.NOT_ADMITTED is (await thief.expect(RequestRefused)).reason
    assert 1 == (await server.admin.show("plant")).epoch


async def test_an_id_is_not_taken_while_its_join_waits(server: KeyServer, device: OpenDevice) -> None:
    """Nor can it be taken in the moment before the first join is committed."""
    descriptor = await server.admin.invite("plant", uses=2)
    key = token_of(descriptor).key
    pump, thief = await device(descriptor), await device(descriptor)
    group = server.groups["plant"]
    await requests_of(server).handle(group, "pump", pump.member.join(time.time(), key))
    await requests_of(server).handle(group, "pump", thief.member.join(time.time(), key))
    await pump.expect(Joined)
    assert 1 == requests_of(server).refused["bad-signature"]


async def test_a_member_that_joins_again_gets_a_new_leaf_key(server: KeyServer, device: OpenDevice) -> None:
    """The bound key suffices; the slot stays, its key changes, and no use of the token is spent."""
    pump, descriptor = await seated(server, device)
    key = server.groups["plant"].group.leaf_key("pump")
    await pump.join(token_of(descriptor).key)
    await pump.reaches(2)
    assert key != server.groups["plant"].group.leaf_key("pump")
    assert 0 == pump.member.slot


async def test_an_expired_token(server: KeyServer, device: OpenDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is worth nothing after its time."""
    descriptor = await server.admin.invite("plant", lifetime=60)
    late = time.time() + 61
    monkeypatch.setattr(requests_of(server), "_clock", lambda: late)
    pump = await device(descriptor)
    await pump.send(pump.member.join(late, token_of(descriptor).key))
    assert RefusalReason.NOT_ADMITTED is (await pump.expect(RequestRefused)).reason


async def test_a_clock_that_is_off(server: KeyServer, device: OpenDevice) -> None:
    """The refusal gives the server's time, so that the member can set its own."""
    descriptor = await server.admin.invite("plant")
    pump = await device(descriptor)
    await pump.send(pump.member.join(time.time() - 3600, token_of(descriptor).key))
    refused = await pump.expect(RequestRefused)
    assert RefusalReason.WRONG_TIME is refused.reason
    assert abs(refused.time - time.time()) < 60


async def test_a_replayed_join_is_ignored(server: KeyServer, device: OpenDevice) -> None:
    """The same bytes again, as brokers and attackers send them, do nothing and get no answer."""
    descriptor = await server.admin.invite("plant")
    pump = await device(descriptor)
    request = pump.member.join(time.time(), token_of(descriptor).key)
    await pump.send(request)
    await pump.expect(Joined)
    await pump.send(request)
    await eventually(lambda: requests_of(server).refused["replay"] == 1)
    assert 1 == (await server.admin.show("plant")).epoch


async def test_sync_is_answered_by_the_current_keys(server: KeyServer, device: OpenDevice) -> None:
    """The holder of the leaf key gets a Welcome without a commit."""
    pump, _ = await seated(server, device)
    await pump.send(pump.member.sync(time.time()))
    await pump.expect(Synced)
    assert 1 == (await server.admin.show("plant")).epoch


async def test_sync_of_a_stranger(server: KeyServer, device: OpenDevice) -> None:
    """Whoever is not a member is told so, whatever its proof."""
    pump, _ = await seated(server, device)
    stranger = await device(await server.admin.invite("plant"), "valve")
    await stranger.join()
    await stranger.expect(RequestRefused)
    await stranger.transport.request(stranger.member.request_topic, pump.member.sync(time.time()))
    await eventually(lambda: requests_of(server).refused["unknown-member"] == 1)


async def test_sync_with_a_false_proof(server: KeyServer, device: OpenDevice) -> None:
    """A member's Sync under another member's id does not hold."""
    pump, _ = await seated(server, device)
    valve, _ = await seated(server, device, "valve")
    await valve.send(pump.member.sync(time.time() + 1))  # newer than whatever the valve has asked
    await eventually(lambda: requests_of(server).refused["bad-mac"] == 1)


async def test_a_member_leaves_and_comes_back(server: KeyServer, device: OpenDevice) -> None:
    """Its key stays bound to its id, and lets it in again."""
    pump, _ = await seated(server, device)
    await pump.send(pump.member.leave(time.time()))
    assert GoodbyeReason.LEFT is (await pump.expect(Evicted)).reason
    assert ["listed"] == [info.status for info in await server.admin.list_members("plant")]
    await pump.join()
    await pump.expect(Joined)
    assert 3 == pump.member.epoch


async def test_an_evicted_member_stays_out(server: KeyServer, device: OpenDevice) -> None:
    """Neither its key nor another token lets it in again, before it is readmitted."""
    pump, _ = await seated(server, device)
    valve, _ = await seated(server, device, "valve")
    outcome = await server.admin.evict("plant", "pump")
    assert (3, True) == (outcome.epoch, outcome.published)
    await pump.expect(Evicted)
    await valve.expect(Rekeyed)
    descriptor = await server.admin.invite("plant")
    await pump.join(token_of(descriptor).key)
    assert RefusalReason.NOT_ADMITTED is (await pump.expect(RequestRefused)).reason
    assert "listed" == (await server.admin.readmit("plant", "pump")).status
    await pump.join()
    await pump.expect(Joined)


async def test_an_eviction_voids_a_join_that_waits(server: KeyServer, device: OpenDevice) -> None:
    """A device that is evicted before its first commit does not get in, nor does it by asking again."""
    descriptor = await server.admin.invite("plant", uses=2)
    pump = await device(descriptor)
    group = server.groups["plant"]
    request = pump.member.join(time.time(), token_of(descriptor).key)
    await requests_of(server).handle(group, "pump", request)
    assert group.waiting_join("pump") is not None
    stored = server.admin.evict("plant", "pump")
    assert 0 == (await stored).epoch or server.groups["plant"].group.leaf_key("pump") is None
    assert Status.EVICTED is server.store.member("plant", "pump").status  # type: ignore[union-attr]
    await pump.join(token_of(descriptor).key)
    assert RefusalReason.NOT_ADMITTED is (await pump.expect(RequestRefused)).reason


async def test_what_changed_since_admission_counts(server: KeyServer, device: OpenDevice) -> None:
    """A join that was granted on what is out of date is stopped at the commit."""
    pump, _ = await seated(server, device)
    valve, _ = await seated(server, device, "valve")
    group = server.groups["plant"]
    await server.admin.evict("plant", "valve")
    kem = Suite.X25519.public_key(bytes(32))
    for name, identity in (("pump", bytes(32)), ("valve", valve.member.identity), ("new", bytes(32))):
        group.join(PendingJoin(Enrollment(name, identity, kem, bytes(16)), int(time.time() * 1000), b"t" * 8))
    await server.admin.rotate("plant")
    assert {"pump": ("seated", pump.member.identity.hex()), "valve": ("evicted", valve.member.identity.hex())} == {
        info.member: (info.status, info.identity) for info in await server.admin.list_members("plant")
    }


async def test_a_seated_member_keeps_its_key(server: KeyServer, device: OpenDevice) -> None:
    """Listing its own key again changes nothing; another key is for after an eviction."""
    pump, _ = await seated(server, device)
    assert "seated" == (await server.admin.add_member("plant", "pump", pump.member.identity)).status
    with pytest.raises(UsageError, match="has its place under another key: evict it first"):
        await server.admin.add_member("plant", "pump", bytes(32))


async def test_a_store_that_cannot_be_read(
    server: KeyServer, device: OpenDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is lost, the server goes on, and the member asks again."""
    descriptor = await server.admin.invite("plant")
    pump = await device(descriptor)
    asked: list[str] = []

    def fail(group: str, members: Sequence[str]) -> None:
        asked.extend(f"{group}/{member}" for member in members)
        raise StoreError

    with monkeypatch.context() as patch:
        patch.setattr(server.store, "known", fail)
        await pump.join(token_of(descriptor).key)
        await eventually(lambda: asked == ["plant/pump"])
    await pump.join(token_of(descriptor).key)
    await pump.expect(Joined)


async def test_a_request_that_was_retained(server: KeyServer, device: OpenDevice) -> None:
    """A broker's last value on a request topic is no request; nor is what comes on a topic of no group."""
    descriptor = await server.admin.invite("plant")
    pump = await device(descriptor)
    request = pump.member.join(time.time(), token_of(descriptor).key)
    for topic in (pump.member.request_topic, "bkm/1/other/r/pump", "bkm/1/plant/r/b\u00e4d"):
        assert server._reception is not None
        await server._reception.deliver(Delivery(topic, request, retained=topic == pump.member.request_topic))
    assert 0 == requests_of(server).refused.total() + len(server.groups["plant"].changes)


async def test_a_full_group(server: KeyServer, device: OpenDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """The member is told to come back later."""
    descriptor = await server.admin.invite("plant")
    pump = await device(descriptor)
    monkeypatch.setattr("brokerkm.core.group.MAX_SLOTS", 0)
    await pump.join(token_of(descriptor).key)
    assert RefusalReason.TRY_LATER is (await pump.expect(RequestRefused)).reason


async def test_who_cannot_be_evicted(server: KeyServer, device: OpenDevice) -> None:
    """An unknown id and one that is out already are the operator's mistakes; a listed key is simply barred."""
    with pytest.raises(UsageError, match="'nobody' is not a member of group plant"):
        await server.admin.evict("plant", "nobody")
    await server.admin.add_member("plant", "pump", bytes(32))
    assert 0 == (await server.admin.evict("plant", "pump")).epoch
    with pytest.raises(UsageError, match="has been evicted from group plant already"):
        await server.admin.evict("plant", "pump")


async def test_while_an_eviction_waits(server: KeyServer, device: OpenDevice) -> None:
    """Nothing that the member asks for is granted between the order and its commit; a Join is to come later."""
    pump, _ = await seated(server, device)
    group = server.groups["plant"]
    group.changes.evict("pump", PendingEviction(GoodbyeReason.EVICTED))
    requests = requests_of(server)
    await requests.handle(group, "pump", pump.member.sync(time.time()))
    await requests.handle(group, "pump", pump.member.join(time.time()))
    await requests.handle(group, "pump", pump.member.leave(time.time()))
    assert {} == group.changes.joins
    assert GoodbyeReason.EVICTED is group.changes.evictions["pump"].reason, "a Leave does not soften it"
    assert RefusalReason.TRY_LATER is (await pump.expect(RequestRefused)).reason


async def test_a_kem_key_that_cannot_be_used(server: KeyServer, device: OpenDevice) -> None:
    """A low-order point is found when the member is to be seated, and others are seated all the same."""
    descriptor = await server.admin.invite("plant")
    pump = await device(descriptor)
    identity = load_signing_key(os.urandom(32))
    now = int(time.time() * 1000)
    await server.admin.add_member("plant", "bad", identity.public_key().public_bytes_raw())
    group, requests = server.groups["plant"], requests_of(server)
    bad = Join.seal(identity, "plant", "bad", bytes(32), credential=None, asked=Asked(os.urandom(16), now, 1))
    await requests.handle(group, "bad", bad)
    await requests.handle(group, "pump", pump.member.join(time.time(), token_of(descriptor).key))
    await pump.expect(Joined)
    assert {"bad": "listed", "pump": "seated"} == {
        info.member: info.status for info in await server.admin.list_members("plant")
    }


@pytest.mark.parametrize("payload", [b"", b"\xff" * 40, b"\x93\x01\x02\x00", b"\x92\x01\x05", bytes(20_000)])
async def test_garbage_is_counted_and_dropped(server: KeyServer, payload: bytes) -> None:
    """What is no request has no answer, and changes nothing."""
    await requests_of(server).handle(server.groups["plant"], "pump", payload)
    assert 1 == requests_of(server).refused.total()
    assert 0 == len(server.groups["plant"].changes)


async def test_a_flood_is_not_looked_at(server: KeyServer, device: OpenDevice) -> None:
    """Beyond a member's rate and what is to spare nothing is decoded; other members are served."""
    requests = requests_of(server)
    requests._spare = RateLimit(0.0, 5.0)
    for _ in range(35):
        await requests.handle(server.groups["plant"], "flood", b"garbage")
    assert (15, 20) == (requests.refused.total() - requests.refused["rate"], requests.refused["rate"])
    await seated(server, device)


async def test_a_flood_on_its_topic_does_not_keep_a_member_out(server: KeyServer, device: OpenDevice) -> None:
    """Anybody may publish there; the member's own request is looked at all the same."""
    for _ in range(100):
        await requests_of(server).handle(server.groups["plant"], "pump", b"garbage")
    await seated(server, device, "pump")


async def test_a_false_join_does_not_take_back_a_true_one(server: KeyServer, device: OpenDevice) -> None:
    """Who sees a Join's nonce can have a false one with it refused, but then the member is not told so."""
    descriptor = await server.admin.invite("plant")
    pump = await device(descriptor)
    group, requests = server.groups["plant"], requests_of(server)
    asked = pump.member.join(time.time(), token_of(descriptor).key)
    await requests.handle(group, "pump", asked)
    true = Join.decode(asked, Suite.X25519)
    forger, now = load_signing_key(os.urandom(32)), int(time.time() * 1000)
    false = Join.seal(forger, "plant", "pump", true.kem_public, credential=None, asked=Asked(true.nonce, now, 1))
    await requests.handle(group, "pump", false)
    assert 1 == requests.refused[Reason.BAD_SIGNATURE]
    assert isinstance(await pump.expect(object), Joined), "it comes first"


async def test_refusals_are_limited(server: KeyServer, device: OpenDevice) -> None:
    """A device that asks without end is told why a few times."""
    pump = await device(await server.admin.invite("plant"))
    for _ in range(8):
        await requests_of(server).handle(server.groups["plant"], "pump", pump.member.join(time.time()))
    assert requests_of(server)._refusals_to_member.allow(server.groups["plant"].topics.member("pump"), 0.0) is False


async def test_what_is_remembered_is_bounded(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of requests are kept for a bounded number of members."""
    monkeypatch.setattr(requests_module, "MAX_TIMES", 2)
    requests = requests_of(server)
    for name in ("a", "b", "c"):
        requests._remember(server.groups["plant"], name, 7)
    assert [("plant", "b"), ("plant", "c")] == list(requests._times)


def test_a_rate_limit() -> None:
    """A burst at once, then the rate; the name that was idle for longest is forgotten."""
    limit = RateLimit(1.0, 2.0, max_names=2)
    assert [True, True, False, True, False] == [limit.allow("a", at) for at in (0.0, 0.0, 0.5, 1.5, 1.6)]
    assert [True, True] == [limit.allow(name, 1.6) for name in ("b", "c")]
    assert limit.allow("a", 1.6), "it was forgotten, and begins with a full burst"

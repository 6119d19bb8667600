"""Source authentication: who sent a message, not only that some member did."""

from __future__ import annotations

import dataclasses

import pytest
from core.forge import DEVICE, DEVICE_PUBLIC, SERVER, data
from core.refusal import refused
from core.world import World, root_of

from brokerkm.core.events import MessageReceived
from brokerkm.core.policy import Policy
from brokerkm.core.welcome import Certificate
from brokerkm.errors import Reason

DAY = 24 * 3600


@pytest.fixture
def world() -> World:
    """Members a, b and c of a group that asks for signatures."""
    made = World(policy=Policy(source_authentication=True, max_silence=10 * DAY))
    made.join("a", "b", "c")
    return made


def forged(world: World, certificate: Certificate, sender: str = "x", counter: int = 0) -> bytes:
    """Return a message signed by the test's device, with a certificate."""
    source = (list[object](certificate.fields), DEVICE)
    return data(root_of(world.members["b"]), "plant/1", b"v", sender=sender, counter=counter, source=source)


def issue(world: World, member: str = "x", group: str = "fleet", life: int = DAY) -> Certificate:
    """Return the server's certificate for the test's device."""
    return Certificate.issue(SERVER, group, member, DEVICE_PUBLIC, int(world.now * 1000) + life * 1000)


def test_signed_messages_are_received(world: World) -> None:
    """Members sign what they send, first and later, and others check it."""
    expected = [MessageReceived("plant/1", "a", text, 1) for text in (b"one", b"two")]
    assert expected == world.send("a", "b", b"one") + world.send("a", "b", b"two")


def test_certified_device_is_believed(world: World) -> None:
    """A message built from the specification, with a good certificate, is received."""
    message = forged(world, issue(world))
    assert [MessageReceived("plant/1", "x", b"v", 1)] == world.members["b"].receive("plant/1", message, world.now)


def test_replay_of_a_signed_message_is_refused(world: World) -> None:
    """A signature makes nobody immune to replays."""
    message = world.members["a"].seal("plant/1", b"x", world.now)
    world.members["b"].receive("plant/1", message, world.now)
    with refused(Reason.REPLAY, "counter"):
        world.members["b"].receive("plant/1", message, world.now)


def test_message_without_signature_is_refused(world: World) -> None:
    """The group's key alone is not enough, even for a sender that is known."""
    world.send("a", "b", b"known")
    salt = next(iter(world.members["b"]._traffic.opener.windows))[2]
    message = data(root_of(world.members["b"]), "plant/1", b"v", sender="a", salt=salt, counter=7)
    with refused(Reason.NOT_SIGNED, "signature"):
        world.members["b"].receive("plant/1", message, world.now)


def test_signature_by_another_key_is_refused(world: World) -> None:
    """An insider cannot speak in another's name with that one's certificate."""
    certificate = world.members["a"]._memory.certificate
    assert certificate is not None
    with refused(Reason.BAD_SIGNATURE, "signature"):
        world.members["b"].receive("plant/1", forged(world, certificate, sender="a"), world.now)


@pytest.mark.parametrize(("member", "group"), [("y", "fleet"), ("x", "fleet2")])
def test_certificate_of_another_is_refused(world: World, member: str, group: str) -> None:
    """A certificate is good for its own name and group."""
    with refused(Reason.BAD_SIGNATURE, "certificate.signature"):
        world.members["b"].receive("plant/1", forged(world, issue(world, member, group)), world.now)


def test_self_made_certificate_is_refused(world: World) -> None:
    """Only the key server certifies."""
    certificate = Certificate.issue(DEVICE, "fleet", "x", DEVICE_PUBLIC, int(world.now * 1000) + 1000)
    with refused(Reason.BAD_SIGNATURE, "certificate.signature"):
        world.members["b"].receive("plant/1", forged(world, certificate), world.now)


@pytest.mark.parametrize("known", [True, False])
def test_expired_certificate_is_refused(world: World, *, known: bool) -> None:
    """A certificate ends for those who have seen it before, too."""
    certificate, bob = issue(world, life=60), world.members["b"]
    if known:
        bob.receive("plant/1", forged(world, certificate), world.now + 60)
    with refused(Reason.WRONG_TIME, "certificate.expiry"):
        bob.receive("plant/1", forged(world, certificate, counter=1), world.now + 60.001)


def test_certificate_with_a_later_expiry_is_refused(world: World) -> None:
    """A sender whose certificate was seen cannot give itself more time with the same signature."""
    certificate, bob = issue(world, life=60), world.members["b"]
    bob.receive("plant/1", forged(world, certificate), world.now)
    longer = dataclasses.replace(certificate, expiry=certificate.expiry + DAY * 1000)
    with refused(Reason.BAD_SIGNATURE, "certificate.signature"):
        bob.receive("plant/1", forged(world, longer, counter=1), world.now + 61)


def test_certificate_is_judged_by_the_servers_clock(world: World) -> None:
    """A member whose own clock is an hour behind still knows what has expired."""
    certificate, bob = issue(world, life=60), world.members["b"]
    bob._traffic.opener.clock_offset = 3600_000
    with refused(Reason.WRONG_TIME, "certificate.expiry"):
        bob.receive("plant/1", forged(world, certificate), world.now - 3539)
    bob.receive("plant/1", forged(world, certificate), world.now - 3540)


def test_refused_source_is_not_remembered(world: World) -> None:
    """A forgery does not use up the counter of the true message."""
    bob, good = world.members["b"], forged(world, issue(world))
    with refused(Reason.BAD_SIGNATURE, "signature"):
        bob.receive("plant/1", good[:-1] + bytes((good[-1] ^ 1,)), world.now)
    assert 1 == len(bob.receive("plant/1", good, world.now))


def test_identities_remembered_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates that were checked are remembered up to a limit, and checked again beyond it."""
    monkeypatch.setattr("brokerkm.core.opener.MAX_SENDERS", 2)
    bob = world.members["b"]
    for counter in range(2):
        for name in "uvw":
            message = forged(world, issue(world, name), name, counter)
            assert 1 == len(bob.receive("plant/1", message, world.now))
    assert len(bob._traffic.opener._identities) <= 2

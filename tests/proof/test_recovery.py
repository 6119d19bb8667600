"""What the state machine found once stays found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokerkm.core.state import State
from proof.fleet import Fleet

if TYPE_CHECKING:
    from proof.device import Device


def join(fleet: Fleet, count: int) -> list[Device]:
    """Let new devices join in one epoch."""
    devices = [fleet.add() for _ in range(count)]
    for device in devices:
        fleet.ask(device, device.join(fleet.now))
    fleet.commit(lossy=set())
    return devices


def evict(fleet: Fleet, *devices: Device) -> None:
    """Cut devices off in one epoch."""
    for device in devices:
        fleet.server.group.evict(device.name)
    fleet.commit(lossy=set())


def test_rekeys_of_a_lost_slot_do_not_keep_a_member_stale() -> None:
    """A member that was never told that it is out hears Rekeys that it cannot use, and comes back to another slot."""
    fleet = Fleet(20, 2)
    devices = join(fleet, 16)
    back = devices[0]
    back.ghost = True
    evict(fleet, devices[12])
    evict(fleet, back)
    join(fleet, 1)  # takes slot 0
    evict(fleet, devices[1])  # the bucket's Rekey has an entry for slot 0, of a leaf that is not this member's
    join(fleet, 1)  # takes slot 1, so that 12 is next
    fleet.pause(6)
    assert State.STALE is back.member.state
    fleet.ask(back, back.join(fleet.now))
    fleet.commit(lossy=set())
    fleet.pause(6)
    assert 12 == back.member.slot
    assert (True, State.ACTIVE) == (back.current, back.member.state)
    assert fleet.server.root == back.root


def test_rekey_that_overtakes_a_welcome_to_the_same_bucket_counts() -> None:
    """The bucket's Rekey has an entry for a slot that the member learns of later; it is not fetched twice."""
    fleet = Fleet(22, 4)
    first, back, *others = join(fleet, 8)
    back.ghost = True
    evict(fleet, first, back)
    back.online = False
    fleet.ask(back, back.join(fleet.now))
    fleet.commit(lossy=set())
    assert (0, 1) == (fleet.server.group.directory.slot(back.name), back.member.slot)
    evict(fleet, others[0])  # of the same bucket
    topics = fleet.server.topics
    for topic in (topics.beacon, topics.node(0, 0), topics.member(back.name)):
        back.receive(topic, fleet.retained[topic], fleet.now)
    assert fleet.server.root == back.root
    assert [] == back.member.tick(fleet.now + 6)


def test_old_welcome_does_not_set_the_clock_for_good() -> None:
    """A Welcome that waited ten minutes sets the clock back by five at most; the next Beacon tells the time of now."""
    fleet = Fleet(24, 4)
    join(fleet, 3)
    late = fleet.add()
    late.online = False
    fleet.ask(late, late.join(fleet.now))
    fleet.commit(lossy=set())
    fleet.pause(600)
    late.online = True
    fleet.fetch(late)
    assert fleet.server.root == late.root
    assert -301_000 < late.member._memory.clock_offset < -298_000
    fleet.beat()
    assert abs(late.member._memory.clock_offset) < 2
    assert fleet.ask(late, late.sync(fleet.now))

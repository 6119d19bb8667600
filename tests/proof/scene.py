"""One genuine message of every kind, each beside a member that is about to take it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from brokerkm.core.member import Member
from brokerkm.core.messages import Kind
from brokerkm.core.notice import RefusalReason
from brokerkm.core.wire import message_type
from proof.fleet import DATA_TOPIC, GROUP, Fleet

if TYPE_CHECKING:
    from brokerkm.core.events import Event
    from proof.device import Device

PLAIN: Final = 10  # seed of a group without source authentication
SIGNED: Final = 11  # and of one with it


@dataclass
class Case:
    """A genuine message and who is about to take it.

    Args:
        name: for the test's name.
        state: of the member, as it saves it.
        topic, payload: the message.
    """

    name: str
    state: bytes = field(repr=False)
    topic: str
    payload: bytes = field(repr=False)
    now: float

    def load(self) -> Member:
        """Return the member as it was before the message came."""
        return Member.load(self.state, bytes, self.now)

    def take(self, member: Member) -> list[Event]:
        """Let `member` take the genuine message."""
        return member.receive(self.topic, self.payload, self.now)


class Scene:
    """A small group with one message of every kind in the air.

    Args:
        seed: `PLAIN` or `SIGNED`.
        group: its name.
        key: the server's own, if not the one that follows from the seed.
    """

    def __init__(self, seed: int, group: str = GROUP, key: bytes | None = None) -> None:
        self.fleet: Final = Fleet(seed, 2, group, key)
        self.cases: Final[dict[str, Case]] = {}
        fleet = self.fleet
        self.devices: Final = [fleet.add() for _ in range(9)]
        *members, self.newcomer = self.devices
        for device in members:
            fleet.ask(device, device.join(fleet.now))
        fleet.commit(lossy=set())
        self.far, self.near, self.out = members[0], members[6], members[7]
        self._data()
        self._subgroups()
        self._sync()
        self._commit()

    def case(self, name: str, device: Device, topic: str, payload: bytes) -> None:
        """Note what `device` is about to take."""
        self.cases[name] = Case(name, device.member.dump(), topic, payload, self.fleet.now)

    def _data(self) -> None:
        self.case("data", self.far, DATA_TOPIC, self.near.member.seal(DATA_TOPIC, b"21.4", self.fleet.now))

    def _subgroups(self) -> None:
        server, now = self.fleet.server, self.fleet.now
        names = [device.name for device in self.devices[:3]]  # one inner node, and one leaf
        for one in server.group.seal_for(names, b"update", now, self.fleet.rng.randbytes):
            device = self.devices[0] if one.level else self.devices[2]
            topic = server.topics.node(one.level, one.index)
            self.case("subgroup" if one.level else "subgroup-leaf", device, topic, one.payload)

    def _sync(self) -> None:
        server, now, device = self.fleet.server, self.fleet.now, self.near
        topic = server.topics.member(device.name)
        nonce = device.sync(now)[5:21]  # after the array's, the version's, the type's and its own head
        self.case("refusal", device, topic, server.group.refusal(device.name, nonce, RefusalReason.TRY_LATER, now))
        payload = device.sync(now)
        answer = server.handle(device.name, payload, now)
        assert answer is not None
        self.case("welcome-sync", device, topic, answer)

    def _commit(self) -> None:
        fleet = self.fleet
        fleet.ask(self.newcomer, self.newcomer.join(fleet.now))
        fleet.server.group.evict(self.out.name)
        commit = fleet.server.commit(fleet.now)
        topics = fleet.server.topics
        for one in commit.rekeys:
            device = self.far if one.level else self.near
            topic = topics.node(one.level, one.index)
            if topic in device.member.filters:
                self.case("rekey" if one.level else "rekey-bucket", device, topic, one.payload)
        self.case("beacon", self.far, topics.beacon, commit.beacon)
        self.case("welcome", self.newcomer, topics.member(self.newcomer.name), commit.welcomes[0][1])
        self.case("goodbye", self.out, topics.member(self.out.name), commit.goodbyes[0][1])
        handover = fleet.server.group.hand_over(fleet.rng.randbytes(32), fleet.now)
        self.case("handover", self.far, topics.handover, handover)
        for case in self.cases.values():
            assert message_type(case.payload) in set(Kind)


NAMES: Final = (
    "data",
    "subgroup",
    "subgroup-leaf",
    "refusal",
    "welcome-sync",
    "rekey",
    "rekey-bucket",
    "beacon",
    "welcome",
    "goodbye",
    "handover",
)

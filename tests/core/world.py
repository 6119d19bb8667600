"""Both ends of the protocol: one group, its members and a broker between them that keeps retained messages."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from brokerkm.core import admission
from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Suite
from brokerkm.core.events import Event
from brokerkm.core.group import Group
from brokerkm.core.member import Member
from brokerkm.core.memory import Profile
from brokerkm.core.names import Topics
from brokerkm.core.policy import Policy
from brokerkm.core.request import Join

if TYPE_CHECKING:
    from collections.abc import Iterable

    from brokerkm.core.commit import Commit
    from brokerkm.core.request import TokenKey
    from brokerkm.core.welcome import NodeKey

START = 1_000_000.0  # seconds; when every world begins


class World:
    """A group "fleet" with members that hear whatever is published, and a clock that the test moves.

    Args:
        seed: of the randomness on both sides.
        degree, suite, policy: of the group.
    """

    def __init__(
        self, seed: int = 1, *, degree: int = 4, suite: Suite = Suite.X25519, policy: Policy | None = None
    ) -> None:
        self.random = Random(seed).randbytes
        self.group = Group("fleet", b"s" * 32, degree=degree, suite=suite, policy=policy or Policy())
        self.topics = Topics("fleet")
        self.members: dict[str, Member] = {}
        self.retained: dict[str, bytes] = {}
        self.now = START

    @property
    def root(self) -> NodeKey:
        """The group's key as the server has it."""
        return self.group.tree.get(self.group.tree.height, 0)

    def create(self, name: str) -> Member:
        """Return a new member that the broker delivers to from now on."""
        profile = Profile("fleet", name, self.group.server_key, self.group.suite)
        self.members[name] = Member.create(profile, self.random)
        return self.members[name]

    def ask(self, name: str, token: TokenKey | None = None) -> Join:
        """Send a Join of `name`, and return it as the server reads it."""
        return Join.decode(self.members[name].join(self.now, token), self.group.suite)

    def enroll(self, *names: str) -> None:
        """Let members ask for a place, and queue what the server admits."""
        for name in names:
            member = self.members.get(name) or self.create(name)
            join = self.ask(name)
            now = int(self.now * 1000)
            admission.check_join(join, "fleet", name, now=now, last_time=0, identity=member.identity, token=None)
            self.group.enroll(Enrollment(name, join.identity, join.kem_public, join.nonce))

    def commit(self, *, without: Iterable[str] = ()) -> Commit:
        """Commit what waits and publish it to all but those `without` a connection."""
        self.now += 1
        commit = self.group.commit(self.now, self.random)
        self.publish(commit, without=without)
        return commit

    def join(self, *names: str) -> Commit:
        """Let `names` join in one commit."""
        self.enroll(*names)
        return self.commit()

    def evict(self, *names: str) -> Commit:
        """Evict `names` in one commit."""
        for name in names:
            self.group.evict(name)
        return self.commit()

    def messages(self, commit: Commit) -> list[tuple[str, bytes]]:
        """Return (topic, payload) of all that `commit` publishes."""
        return [
            *((self.topics.node(rekey.level, rekey.index), rekey.payload) for rekey in commit.rekeys),
            *((self.topics.member(name), welcome) for name, welcome in commit.welcomes),
            *((self.topics.member(name), goodbye) for name, goodbye in commit.goodbyes),
            (self.topics.beacon, commit.beacon),
        ]

    def publish(self, commit: Commit, *, without: Iterable[str] = ()) -> dict[str, list[Event]]:
        """Retain the messages of `commit`, deliver them by topic, and return what each member makes of them."""
        away, events = set(without), dict[str, list[Event]]()
        for topic, payload in self.messages(commit):
            self.retained[topic] = payload
            for name, member in self.members.items():
                if name not in away and topic in member.filters:
                    events.setdefault(name, []).extend(member.receive(topic, payload, self.now))
        return events

    def fetch(self, name: str) -> list[Event]:
        """Let `name` take in the retained messages of its topics, and return what it makes of them."""
        member = self.members[name]
        events: list[Event] = []
        for topic in member.filters:
            if topic in self.retained and topic in member.filters:
                events += member.receive(topic, self.retained[topic], self.now)
        return events

    def send(self, sender: str, receiver: str, plaintext: bytes, topic: str = "plant/1") -> list[Event]:
        """Let one member publish to another, and return what the other makes of it."""
        message = self.members[sender].seal(topic, plaintext, self.now)
        return self.members[receiver].receive(topic, message, self.now)

    def beat(self) -> list[Event]:
        """Publish a Beacon, and return what all members together make of it."""
        beacon = self.group.beacon(self.now)
        self.retained[self.topics.beacon] = beacon
        connected = [member for member in self.members.values() if self.topics.beacon in member.filters]
        return [event for member in connected for event in member.receive(self.topics.beacon, beacon, self.now)]


def root_of(member: Member) -> NodeKey:
    """Return the root key that a member holds."""
    path = member._memory.path
    assert path is not None
    return path.root


def group_of(*names: str, degree: int = 4) -> Group:
    """Return a group with members."""
    group = Group("fleet", b"s" * 32, degree=degree)
    for name in names:
        group.enroll(Enrollment(name))
    group.commit(START, Random(1).randbytes)
    return group

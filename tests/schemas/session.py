"""A random session of a real group and its members, of which every message is recorded."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from brokerkm.core.commit import Enrollment
from brokerkm.core.group import Group
from brokerkm.core.member import Member
from brokerkm.core.memory import Profile
from brokerkm.core.names import Topics
from brokerkm.core.notice import RefusalReason
from brokerkm.core.policy import Policy
from brokerkm.core.request import Join, Leave, Sync, TokenKey
from brokerkm.core.welcome import Welcome
from schemas.material import issue

if TYPE_CHECKING:
    from brokerkm.core.crypto import Suite

GROUP = "fleet-01"


@dataclass
class Hardware:
    """A device certificate whose key signs as P-256 does: 71 bytes. Nobody in a session looks at the signature."""

    chain: tuple[bytes, ...]

    def sign(self, data: bytes) -> bytes:
        """Return bytes in place of a signature."""
        return bytes(7) + hashlib.sha512(data).digest()


@dataclass
class Session:
    """Everything that was said, by the CDDL rule that it must match; secrets of Welcomes included."""

    suite: Suite
    degree: int
    source_authentication: bool
    messages: dict[str, list[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.suite} {self.degree}")
        policy = Policy(source_authentication=self.source_authentication)
        self.group = Group(GROUP, self.draw(32), degree=self.degree, suite=self.suite, policy=policy)
        self.topics = Topics(GROUP)
        self.members: dict[str, Member] = {}
        self.enrolled: dict[str, Enrollment] = {}
        self.now = 1_700_000_000.0

    def draw(self, size: int) -> bytes:
        """Return pseudo-random bytes, the same in every run."""
        return self._random.randbytes(size)

    def record(self, rule: str, payload: bytes) -> bytes:
        """Note one message."""
        self.messages.setdefault(rule, []).append(payload)
        return payload

    def join(self, name: str) -> None:
        """Let a new member ask for a place: as one that is listed, with an enrollment token, or with a certificate."""
        member = Member.create(Profile(GROUP, name, self.group.server_key, self.suite), self.draw)
        token = TokenKey.from_secret(self.draw(8), self.draw(32))
        credential = (None, token, Hardware(issue(name, bytes(32))[:1]))[len(self.enrolled) % 3]
        join = Join.decode(self.record("join", member.join(self.now, credential)), self.suite)
        self.enrolled[name] = Enrollment(name, join.identity, join.kem_public, join.nonce)
        self.group.enroll(self.enrolled[name])
        self.members[name] = member

    def hand_over(self, turn: int) -> None:
        """Now and then, give the server another signing key; tell all members, who ask for new certificates."""
        if turn % 5 != 1:
            return
        payload = self.record("handover", self.group.hand_over(self.draw(32), self.now))
        for name, member in self.members.items():
            member.receive(self.topics.handover, payload, self.now)
            if member.slot is not None:
                self.sync(name)

    def commit(self) -> None:
        """Make one epoch of what waits and carry its messages to whom they are for."""
        self.now += 1
        commit = self.group.commit(self.now, self.draw)
        for rekey in commit.rekeys:
            self.record("rekey", rekey.payload)
        self.record("beacon", commit.beacon)
        for name, goodbye in commit.goodbyes:
            self.members.pop(name).receive(self.topics.member(name), self.record("goodbye", goodbye), self.now)
        for name, welcome in commit.welcomes:
            self.take(name, welcome)
        by_topic = {self.topics.node(rekey.level, rekey.index): rekey.payload for rekey in commit.rekeys}
        for member in self.members.values():
            for topic in member.filters:
                if topic in by_topic:
                    member.receive(topic, by_topic[topic], self.now)
            member.receive(self.topics.beacon, commit.beacon, self.now)

    def take(self, name: str, payload: bytes) -> None:
        """Give a member its Welcome and note what is sealed in it."""
        member = self.members[name]
        welcome = Welcome.decode(self.record("welcome", payload))
        secrets = welcome.open(self.suite, member._requester.seed_for(welcome.nonce), GROUP, name)
        self.record("welcome-sealed", secrets.encode())
        member.receive(self.topics.member(name), payload, self.now)

    def carry(self, name: str) -> None:
        """Note what is sealed in a Welcome with a spare for one who is there, as it would be carried by file."""
        self.group.spares = (self.draw(32),)
        known = self.enrolled[name]
        payload = self.group.welcome(replace(known, spares=1), self.now)
        seed = self.members[name]._requester.seed_for(known.nonce)
        sealed = Welcome.decode(payload).open(self.suite, seed, GROUP, name)
        self.record("welcome-sealed-with-spares", sealed.encode())

    def sync(self, name: str) -> None:
        """Let one member ask for the current keys, and grant it."""
        member = self.members[name]
        sync = self.record("sync", member.sync(self.now))
        answer = Enrollment(name, member.identity, self.enrolled[name].kem_public, Sync.decode(sync).nonce)
        self.take(name, self.group.welcome(answer, self.now))

    def ask(self, name: str) -> None:
        """Let one member make the requests that have a MAC, and grant or refuse them."""
        member = self.members[name]
        self.sync(name)
        self.record("ack", member.ack(self.now))
        leave = self.record("leave", member.leave(self.now))
        for reason in (RefusalReason.TRY_LATER, RefusalReason.WRONG_TIME):
            self.record("refusal", self.group.refusal(name, Leave.decode(leave).nonce, reason, self.now))

    def talk(self) -> None:
        """Let a member publish, and the server speak to some only."""
        one, other = self._random.sample(sorted(self.members), 2)
        plaintext = self.draw(self._random.choice((1, 3, 40, 300, 70_000)))
        payload = self.record("data", self.members[one].seal("plant/temperature", plaintext, self.now))
        assert self.members[other].receive("plant/temperature", payload, self.now)
        some = self._random.sample(sorted(self.members), self._random.randint(1, len(self.members)))
        for message in self.group.seal_for(some, self.draw(20), self.now, self.draw):
            self.record("subgroup", message.payload)

    def run(self, turns: int, crowd: int) -> dict[str, list[bytes]]:
        """Play `turns` epochs, then fill up to `crowd` members and evict every eighth; return what was said."""
        names = iter(range(1_000_000))
        for turn in range(turns):
            for _ in range(self._random.choice((0, 1, 2, 5)) + 3 * (turn == 0)):
                self.join(f"m{next(names)}")
            present = sorted(self.group.directory, key=lambda item: item[1])
            if len(present) > 6:
                for _, name in self._random.sample(present, self._random.choice((0, 1, 2))):
                    self.group.evict(name)
            if self._random.random() < 0.2:
                self.group.rotate()
            self.hand_over(turn)
            self.commit()
            self.talk()
            self.carry(min(self.members))
            self.ask(self._random.choice(sorted(self.members)))
        for number in range(crowd):
            self.group.enroll(Enrollment(f"x{number}"))
        self.commit()
        for number in range(0, crowd, 8):
            self.group.evict(f"x{number}")
        commit = self.group.commit(self.now, self.draw)
        for rekey in commit.rekeys:
            self.record("rekey", rekey.payload)
        for _, goodbye in commit.goodbyes:
            self.record("goodbye", goodbye)
        return self.messages

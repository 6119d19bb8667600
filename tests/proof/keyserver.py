"""A key server as small as it can be: the real group, pages in a dict for a store, and the real admission checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.core import admission
from brokerkm.core.commit import Enrollment
from brokerkm.core.directory import Directory
from brokerkm.core.group import Group
from brokerkm.core.messages import Kind
from brokerkm.core.names import Topics
from brokerkm.core.notice import GoodbyeReason
from brokerkm.core.request import Join, Leave, Sync
from brokerkm.core.tree import KeyTree
from brokerkm.core.wire import message_type

if TYPE_CHECKING:
    from brokerkm.core.commit import Commit
    from brokerkm.core.crypto import Random, Suite
    from brokerkm.core.policy import Policy
    from brokerkm.core.welcome import NodeKey


class KeyServer:
    """One group in service; what it stores is what a restart finds.

    Args:
        name: group id.
        seed: of the signing key, 32 bytes.
        random: source of keys.
    """

    def __init__(self, name: str, seed: bytes, random: Random, *, degree: int, suite: Suite, policy: Policy) -> None:
        self.topics: Final = Topics(name)
        self._seed: Final = seed
        self._random: Final = random
        self.identities: Final[dict[str, bytes]] = {}  # listed, by member id
        self.on_file: Final[dict[str, Enrollment]] = {}  # as last committed
        self._times: Final[dict[str, int]] = {}
        self._pages: Final[dict[tuple[int, int], bytes]] = {}
        self._seats: Final[dict[str, int]] = {}
        self.group = Group(name, seed, degree=degree, suite=suite, policy=policy)

    @property
    def root(self) -> NodeKey:
        """The group's key."""
        return self.group.tree.get(self.group.tree.height, 0)

    def handle(self, member: str, payload: bytes, now: float) -> bytes | None:
        """Queue what a request asks for; return the Welcome that answers a Sync. Raises `RefusedError`."""
        name, ms, last = self.group.name, int(now * 1000), self._times.get(member, 0)
        match message_type(payload):
            case Kind.JOIN:
                join = Join.decode(payload, self.group.suite)
                listed = self.identities.get(member)
                admission.check_join(join, name, member, now=ms, last_time=last, identity=listed, token=None)
                self.group.enroll(Enrollment(member, join.identity, join.kem_public, join.nonce))
                self._times[member] = join.time
            case Kind.SYNC:
                sync = Sync.decode(payload)
                leaf = self.group.leaf_key(member)
                admission.check_proof(sync, name, member, now=ms, last_time=last, leaf_key=leaf)
                self._times[member] = sync.time
                known = self.on_file[member]
                return self.group.welcome(Enrollment(member, known.identity, known.kem_public, sync.nonce), now)
            case Kind.LEAVE:
                leave = Leave.decode(payload)
                leaf = self.group.leaf_key(member)
                admission.check_proof(leave, name, member, now=ms, last_time=last, leaf_key=leaf)
                self._times[member] = leave.time
                self.group.evict(member, GoodbyeReason.LEFT)
            case other:
                raise AssertionError(other)
        return None

    def commit(self, now: float) -> Commit:
        """Store the next commit, then apply it."""
        commit = self.group.prepare(now, self._random)
        for level, number, page in commit.change.pages(self.group.tree):
            self._pages[level, number] = page
        for member, _ in commit.change.removed:
            del self._seats[member]
        for slot, enrollment, *_ in commit.change.seated:
            self._seats[enrollment.member] = slot
            self.on_file[enrollment.member] = enrollment
        self.group.apply(commit)
        return commit

    def restart(self) -> None:
        """Come back with what was stored; changes that were not committed are gone."""
        old = self.group
        directory = Directory()
        for member, slot in self._seats.items():
            directory.add(member, slot)
        pages = [(*place, page) for place, page in self._pages.items()]
        self.group = Group(
            old.name,
            self._seed,
            degree=old.tree.degree,
            suite=old.suite,
            policy=old.policy,
            epoch=old.epoch,
            time=old.time,
            tree=KeyTree.load(old.tree.degree, old.tree.height, pages),
            directory=directory,
        )

    def messages(self, commit: Commit) -> list[tuple[str, bytes]]:
        """Return (topic, payload) of all that a commit publishes, all of it retained."""
        topics = self.topics
        return [
            *((topics.node(rekey.level, rekey.index), rekey.payload) for rekey in commit.rekeys),
            *((topics.member(name), payload) for name, payload in (*commit.welcomes, *commit.goodbyes)),
            (topics.beacon, commit.beacon),
        ]

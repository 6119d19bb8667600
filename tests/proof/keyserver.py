"""A key server as small as it can be: the real group, pages in a dict for a store, and the real admission checks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from brokerkm.core import admission
from brokerkm.core.commit import Enrollment
from brokerkm.core.directory import Directory
from brokerkm.core.group import Group
from brokerkm.core.messages import Kind
from brokerkm.core.names import Topics
from brokerkm.core.notice import GoodbyeReason
from brokerkm.core.request import Ack, Join, Leave, Sync
from brokerkm.core.tree import KeyTree
from brokerkm.core.wire import message_type

if TYPE_CHECKING:
    from brokerkm.core.commit import Commit
    from brokerkm.core.crypto import Random, Suite
    from brokerkm.core.policy import Policy
    from brokerkm.core.welcome import NodeKey

MARGIN: Final = 1 << 20  # epochs that a recovery leaves out


@dataclass(frozen=True)
class Backup:
    """A copy of what the server stored, of one moment, but for the list of identities."""

    seed: bytes = field(repr=False)
    epoch: int
    time: int
    height: int
    policy: Policy
    handovers: tuple[bytes, ...]
    seats: dict[str, int]
    on_file: dict[str, Enrollment]
    times: dict[str, int]
    counters: dict[str, int]
    spares: tuple[bytes, ...] = field(repr=False)
    pages: dict[tuple[int, int], bytes] = field(repr=False)


class KeyServer:
    """One group in service; what it stores is what a restart finds.

    Args:
        name: group id.
        seed: of the signing key, 32 bytes.
        random: source of keys.
    """

    def __init__(self, name: str, seed: bytes, random: Random, *, degree: int, suite: Suite, policy: Policy) -> None:
        self.topics: Final = Topics(name)
        self._seed = seed
        self._random: Final = random
        self.identities: Final[dict[str, bytes]] = {}  # listed, by member id
        self.on_file: dict[str, Enrollment] = {}  # as last committed
        self.keys: Final[list[bytes]] = []  # that members were ever to believe
        self.suspects: Final[set[str]] = set()  # whose counter has shown that there are two of it
        self._times: dict[str, int] = {}
        self._counters: dict[str, int] = {}
        self._pages: dict[tuple[int, int], bytes] = {}
        self._seats: dict[str, int] = {}
        self.group = Group(name, seed, degree=degree, suite=suite, policy=policy)
        self.keys.append(self.group.server_key)

    @property
    def root(self) -> NodeKey:
        """The group's key."""
        return self.group.tree.get(self.group.tree.height, 0)

    def handle(self, member: str, payload: bytes, now: float) -> bytes | None:
        """Queue what a request asks for; return the Welcome that answers a Sync. Raises `RefusedError`."""
        name, ms, last = self.group.name, int(now * 1000), self._times.get(member, 0)
        if message_type(payload) == Kind.JOIN:
            self.enroll(member, payload, now)
            return None
        request = self._decode(payload)
        leaf = self.group.leaf_key(member)
        admission.check_proof(request, name, member, now=ms, last_time=last, leaf_key=leaf)
        if admission.conduct(request.counter, self._counters.get(member, 0)) is not admission.Conduct.STEADY:
            self.suspects.add(member)
        self._times[member], self._counters[member] = request.time, request.counter
        if isinstance(request, Leave):
            self.group.evict(member, GoodbyeReason.LEFT)
        if not isinstance(request, Sync):
            return None
        known = self.on_file[member]
        return self.group.welcome(Enrollment(member, known.identity, known.kem_public, request.nonce), now)

    def enroll(self, member: str, payload: bytes, now: float, spares: int = 0) -> Enrollment:
        """Queue a Join, one that was carried here as a file if there are to be spares; raises `RefusedError`."""
        name, last = self.group.name, self._times.get(member, 0)
        join, listed = Join.decode(payload, self.group.suite), self.identities.get(member)
        admission.check_join(join, name, member, now=int(now * 1000), last_time=last, identity=listed, token=None)
        who = Enrollment(member, join.identity, join.kem_public, join.nonce, spares)
        self.group.enroll(who)
        self._times[member], self._counters[member] = join.time, join.counter
        return who

    @staticmethod
    def _decode(payload: bytes) -> Sync | Leave | Ack:
        match message_type(payload):
            case Kind.SYNC:
                return Sync.decode(payload)
            case Kind.LEAVE:
                return Leave.decode(payload)
            case Kind.ACK:
                return Ack.decode(payload)
            case other:
                raise AssertionError(other)

    def hand_over(self, now: float) -> bytes:
        """Get another signing key; return the Handover."""
        self._seed = self._random(32)
        handover = self.group.hand_over(self._seed, now)
        self.keys.append(self.group.server_key)
        return handover

    def commit(self, now: float) -> Commit:
        """Store the next commit, then apply it."""
        commit = self.group.prepare(now, self._random)
        for level, number, page in commit.change.pages(self.group.tree):
            self._pages[level, number] = page
        for member, _ in commit.change.removed:
            del self._seats[member]
        for slot, enrollment, *_ in commit.change.seated:
            self._seats[enrollment.member] = slot
            self.on_file[enrollment.member] = replace(enrollment, spares=0)
        self.group.apply(commit)
        return commit

    def backup(self) -> Backup:
        """Return a copy of what is stored now."""
        group = self.group
        return Backup(
            self._seed,
            group.epoch,
            group.time,
            group.tree.height,
            group.policy,
            group.handovers,
            dict(self._seats),
            dict(self.on_file),
            dict(self._times),
            dict(self._counters),
            group.spares,
            dict(self._pages),
        )

    def restart(self) -> None:
        """Come back with what was stored; changes that were not committed are gone."""
        self.restore(self.backup())

    def restore(self, backup: Backup) -> None:
        """Have `backup` in place of what was stored."""
        directory, tree = Directory(), self.group.tree
        for member, slot in backup.seats.items():
            directory.add(member, slot)
        self._seed, self._seats, self.on_file = backup.seed, dict(backup.seats), dict(backup.on_file)
        self._times, self._counters, self._pages = dict(backup.times), dict(backup.counters), dict(backup.pages)
        pages = [(*place, page) for place, page in backup.pages.items()]
        self.group = Group(
            self.group.name,
            backup.seed,
            degree=tree.degree,
            suite=self.group.suite,
            policy=backup.policy,
            epoch=backup.epoch,
            time=backup.time,
            tree=KeyTree.load(tree.degree, backup.height, pages),
            directory=directory,
            handovers=backup.handovers,
            spares=backup.spares,
        )

    def recover(self, newest: int, time: int, evicted: set[str]) -> None:
        """Queue what puts a restored group right, of which epoch `newest` was seen; `evicted` are named as out."""
        self.group.recover(newest + MARGIN, time)
        for member in self._seats:
            if member in evicted:
                self.group.evict(member)
            else:
                self.group.enroll(self.on_file[member])

    def messages(self, commit: Commit) -> list[tuple[str, bytes]]:
        """Return (topic, payload) of all that a commit publishes, all of it retained."""
        topics = self.topics
        return [
            *((topics.node(rekey.level, rekey.index), rekey.payload) for rekey in commit.rekeys),
            *((topics.member(name), payload) for name, payload in (*commit.welcomes, *commit.goodbyes)),
            (topics.beacon, commit.beacon),
        ]

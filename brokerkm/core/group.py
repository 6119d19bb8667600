"""The key server's view of one group: changes queue up, a commit makes them one epoch.

`prepare` computes a commit and leaves the group as it was, so that a caller can store it first; `apply` moves the
group on, and cannot fail. This module does no I/O: storing, publishing, admitting and rate-limiting are its caller's
duties, as is never preparing two commits of the same epoch on two servers.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

from brokerkm.core.commit import Commit, Enrollment, Eviction, NodeRekey, Seat, StateChange
from brokerkm.core.cover import complete_subtree_cover
from brokerkm.core.crypto import PUBLIC_KEY_SIZE, Random, Suite, load_signing_key
from brokerkm.core.directory import Directory, Seats
from brokerkm.core.handover import Succession, join_links, succeed
from brokerkm.core.names import MAX_SLOTS, check_identifier
from brokerkm.core.notice import EVERYBODY, Goodbye, GoodbyeReason, Refusal, RefusalReason
from brokerkm.core.policy import Policy
from brokerkm.core.rekey import Beacon
from brokerkm.core.rekeying import build_rekeys
from brokerkm.core.renewal import Renewal, Rotation, renew
from brokerkm.core.seating import make_room, seat_all
from brokerkm.core.spares import settle
from brokerkm.core.subgroup import MAX_SUBGROUP_PAYLOAD, SALT_SIZE, Subgroup
from brokerkm.core.tree import KeyTree
from brokerkm.core.welcome import MAX_SPARES, NodeKey
from brokerkm.core.welcoming import Batch, Job, WriteAll, write_each
from brokerkm.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_DEGREE: Final = 4  # RFC 2627's k; fewest bytes a member for one eviction is at 3 to 4 (bench core --degree)


class Group:
    """One group: its tree, its members' places, its signing key and the changes that wait.

    Args:
        name: group id.
        signing_seed: 32 bytes, the group's Ed25519 private key.
        degree: of the tree; fixed for the group's life.
        suite: how Welcomes are sealed; fixed for the group's life.
        policy: what is asked of members.
        beacon_interval: seconds between Beacons, as members are told.
        epoch, time, tree, directory: the state that was stored, for a group that existed before.
        handovers: its earlier hand-overs, each a message of one link, oldest first.
        spares: the root's next keys, as far as they are drawn, oldest first.
    """

    def __init__(
        self,
        name: str,
        signing_seed: bytes,
        *,
        degree: int = DEFAULT_DEGREE,
        suite: Suite = Suite.X25519,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        beacon_interval: int = 30,
        epoch: int = 0,
        time: int = 0,
        tree: KeyTree | None = None,
        directory: Seats | None = None,
        handovers: tuple[bytes, ...] = (),
        spares: tuple[bytes, ...] = (),
    ) -> None:
        self.name: Final = check_identifier(name, "group")
        self.suite: Final = suite
        self.policy = policy
        self.beacon_interval: Final = beacon_interval
        self.epoch = epoch
        self.time = time
        self.tree: Final = tree or KeyTree(degree)
        self.directory: Final = Directory() if directory is None else directory
        self.handovers = handovers
        self.spares = spares
        self._key = load_signing_key(signing_seed)
        self._pending: dict[str, Enrollment | Eviction] = {}
        self._rotations: set[Rotation] = set()
        self._jump = 0  # epoch of the commit that recovers the group; 0 if it needs none

    def __repr__(self) -> str:
        return f"Group({self.name!r}, epoch={self.epoch}, members={len(self.directory)})"

    @property
    def server_key(self) -> bytes:
        """The Ed25519 public key that members verify with, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    @property
    def pending(self) -> int:
        """How many changes wait for the next commit."""
        return len(self._pending) + len(self._rotations)

    def set_policy(self, policy: Policy) -> None:
        """Ask something else of the members: from now on, every Beacon and Welcome says so."""
        self.policy = policy

    @property
    def handover(self) -> bytes | None:
        """The Handover that leads members to the newest server key, if there was another before."""
        return join_links(self.handovers) if self.handovers else None

    def prepare_handover(self, new_seed: bytes, now: float) -> Succession:
        """Return what the group becomes with another signing key; it stays as it was.

        Raises:
            UsageError: the key is the group's already, or was before.
        """
        return succeed(self._key, self.name, self.handovers, new_seed, self._clock(now))

    def apply_handover(self, succession: Succession) -> None:
        """Sign by the new key from now on: the next Beacon shows members that there is one."""
        self._key = load_signing_key(succession.seed)
        self.handovers, self.time = succession.handovers, max(self.time, succession.time)

    def hand_over(self, new_seed: bytes, now: float) -> bytes:
        """Prepare a hand-over and apply it at once; return the Handover to retain. For callers that store nothing."""
        succession = self.prepare_handover(new_seed, now)
        self.apply_handover(succession)
        return succession.message

    def enroll(self, enrollment: Enrollment) -> None:
        """Queue a join; for one who is a member already, also if its eviction waits, a new leaf key at the same slot.

        Raises:
            UsageError: the id is malformed, the group is full, a sender has no key to certify, or there are to be more
                spares than a group keeps.
            RefusedError: the KEM public key is not one of the group's suite.
        """
        check_identifier(enrollment.member, "member")
        if not 0 <= enrollment.spares <= MAX_SPARES:
            message = f"a group keeps 0 to {MAX_SPARES} spare keys, not {enrollment.spares}"
            raise UsageError(message)
        if enrollment.kem_public:
            self.suite.check_public(enrollment.kem_public)
            if self.policy.source_authentication and len(enrollment.identity) != PUBLIC_KEY_SIZE:
                message = f"group {self.name} certifies senders: {enrollment.member!r} needs an identity key"
                raise UsageError(message)
        if enrollment.member not in self.directory and len(self.directory) + len(self._pending) >= MAX_SLOTS:
            message = f"group {self.name} is full: {MAX_SLOTS} members"
            raise UsageError(message)
        self._pending[enrollment.member] = enrollment

    refresh = enroll

    def evict(self, member: str, reason: GoodbyeReason = GoodbyeReason.EVICTED) -> None:
        """Queue an eviction; a join that waits is dropped. Raises `UsageError` if there is no such member."""
        waiting = self._pending.get(member)
        if member not in self.directory and not isinstance(waiting, Enrollment):
            message = f"{member!r} is not a member of group {self.name}"
            raise UsageError(message)
        self._pending[member] = Eviction(member, reason)

    def discard_unusable(self) -> list[str]:
        """Drop the joins that wait with a KEM key which cannot be sealed to after all; return whose they are."""
        found: list[str] = []
        for member, waiting in self._pending.items():
            if isinstance(waiting, Enrollment) and waiting.kem_public:
                try:
                    self.suite.seal(waiting.kem_public, b"", b"")
                except RefusedError:
                    found.append(member)
        for member in found:
            del self._pending[member]
        return found

    def discard(self) -> None:
        """Forget all changes that wait."""
        self._pending.clear()
        self._rotations.clear()
        self._jump = 0

    def recover(self, epoch: int, time: int) -> None:
        """Have the next commit jump to `epoch` with new keys everywhere, for a group that was restored from a backup.

        The caller queues, besides, an enrollment with what is on file or an eviction for each member.

        Args:
            epoch: above every epoch that the group may have had since the backup.
            time: the newest time of the group that anybody has seen, ms since 1970.

        Raises:
            UsageError: `epoch` is not above the group's.
        """
        if epoch <= self.epoch:
            message = f"group {self.name} is at epoch {self.epoch}: it cannot recover at epoch {epoch}"
            raise UsageError(message)
        self._jump, self.time = epoch, max(self.time, time)
        self.rotate_all()

    def rotate(self, level: int | None = None, index: int = 0, *, deep: bool = False) -> None:
        """Queue new keys for a node (by default the root) and its ancestors, and all inner nodes below if `deep`.

        Raises:
            UsageError: there is no such inner node.
        """
        level = self.tree.height if level is None else level
        if not (1 <= level <= self.tree.height and 0 <= index < self.tree.degree ** (self.tree.height - level)):
            message = f"group {self.name} has no inner node ({level}, {index})"
            raise UsageError(message)
        self._rotations.add(Rotation(level, index, deep))

    def rotate_all(self) -> None:
        """Queue new keys for every inner node."""
        self.rotate(deep=True)

    def prepare(self, now: float, random: Random, write_all: WriteAll = write_each) -> Commit:
        """Return the commit of all changes that wait; the group stays as it was.

        Args:
            now: seconds since 1970.
            random: source of keys.
            write_all: makes the Welcomes; a caller with many of them has more than one core.

        Raises:
            UsageError: the group is to recover, and a member would keep its leaf key.
            RefusedError: a KEM public key cannot be used, though it looked as if; see `discard_unusable`.
        """
        changes = list(self._pending.values())
        removed = tuple(
            (change.member, slot)
            for change in changes
            if isinstance(change, Eviction) and (slot := self.directory.slot(change.member)) is not None
        )
        enrollments = [change for change in changes if isinstance(change, Enrollment)]
        seats = seat_all(self.tree, self.directory, enrollments, removed)
        refreshed = [one.slot for one in seats if one.refreshed]
        if self._jump and len(removed) + len(refreshed) != self.tree.count:
            message = f"group {self.name} recovers: each of its members needs a new leaf key, or has to go"
            raise UsageError(message)
        epoch, time = self._jump or self.epoch + 1, self._clock(now)
        height = make_room(self.tree, seats)
        renewal = renew(
            self.tree,
            epoch,
            height,
            emptied=[*(slot for _, slot in removed), *refreshed],
            seated=[one.slot for one in seats],
            rotations=self._rotations,
            random=random,
        )
        spares = settle(
            self.spares,
            renewal,
            epoch,
            shuts_out=bool(removed or refreshed or self._jump) or any(map(self._is_thorough, self._rotations)),
            wanted=max((one.spares for one in enrollments), default=0),
            random=random,
        )
        rekeys = build_rekeys(self.tree, renewal, epoch, self.name, self._key)
        evicted = [change for change in changes if isinstance(change, Eviction)]
        sealed = Goodbye.seal_all(self._key, self.name, epoch, evicted, random)
        goodbyes = tuple((change.member, goodbye) for change, goodbye in zip(evicted, sealed, strict=True))
        root = renewal.nodes[height].get(0) or self.tree.get(height, 0)
        beacon = self._beacon(epoch, height, root, time)
        change = StateChange(epoch, height, time, renewal.nodes, seats, removed, spares)
        served = frozenset([*changes, *self._rotations])
        return Commit(rekeys, beacon, self._welcomes(seats, renewal, change, write_all), goodbyes, change, served)

    def apply(self, commit: Commit) -> None:
        """Make `commit` the group's state; what was queued after it was prepared goes on waiting.

        Raises:
            UsageError: the commit is not the next one of this group.
        """
        change = commit.change
        if change.epoch != (self._jump or self.epoch + 1):
            message = f"commit of epoch {change.epoch} does not follow epoch {self.epoch}"
            raise UsageError(message)
        tree = self.tree
        tree.grow(change.height)
        for member, slot in change.removed:
            self.directory.remove(member)
            heapq.heappush(tree.free, slot)
        new = [seat for seat in change.seated if not seat.refreshed]
        for slot, enrollment, _ in new:
            if slot < tree.used:
                heapq.heappop(tree.free)  # `_seat` took the lowest, in order
            tree.used = max(tree.used, slot + 1)
            self.directory.add(enrollment.member, slot)
        for level, nodes in enumerate(change.nodes):
            tree.set(level, nodes)
        tree.count_members([slot for _, slot in change.removed], -1)
        tree.count_members([seat.slot for seat in new], 1)
        self.epoch, self.time, self.spares = change.epoch, max(self.time, change.time), change.spares
        self._pending = {member: waiting for member, waiting in self._pending.items() if waiting not in commit.served}
        self._rotations -= commit.served
        self._jump = 0

    def commit(self, now: float, random: Random) -> Commit:
        """Prepare a commit and apply it at once: for callers that store nothing."""
        commit = self.prepare(now, random)
        self.apply(commit)
        return commit

    def beacon(self, now: float) -> bytes:
        """Return a Beacon for the current epoch."""
        self.time = self._clock(now)
        return self._beacon(self.epoch, self.tree.height, self.tree.get(self.tree.height, 0), self.time)

    def farewell(self, random: Random) -> bytes:
        """Return the Goodbye to everybody that ends the group for its members, retained in place of its Beacon."""
        everybody = [(EVERYBODY, GoodbyeReason.DESTROYED)]
        return Goodbye.seal_all(self._key, self.name, self.epoch + 1, everybody, random)[0]

    def welcome(self, enrollment: Enrollment, now: float, slot: int | None = None) -> bytes:
        """Return a Welcome of the current keys for a member, and as many spares as it is to have.

        Args:
            slot: the member's, from a caller that knows it already.

        Raises:
            UsageError: there is no such member.
            RefusedError: its KEM public key cannot be used.
        """
        slot = self.directory.slot(enrollment.member) if slot is None else slot
        if slot is None:
            message = f"{enrollment.member!r} is not a member of group {self.name}"
            raise UsageError(message)
        self.time = self._clock(now)  # a member takes each Welcome once, by its time
        job = _job(Seat(slot, enrollment), self.tree.get(0, slot), self.tree.path(slot))
        job = job._replace(spares=self.spares[: enrollment.spares])
        (welcome,) = write_each(self._batch(self.epoch, self.time), [job])
        return welcome

    def refusal(self, member: str, nonce: bytes, reason: RefusalReason, now: float) -> bytes:
        """Return a Refusal of the request with `nonce`."""
        time = int(now * 1000)
        return Refusal.seal(self._key, self.name, member, nonce=nonce, reason=reason, time=time)

    def leaf_key(self, member: str) -> bytes | None:
        """Return the leaf key that proves the requests of `member`, if it is one."""
        slot = self.directory.slot(member)
        return None if slot is None else self.leaf_key_at(slot)

    def leaf_key_at(self, slot: int) -> bytes:
        """Return the leaf key of the member at `slot`."""
        return self.tree.get(0, slot).key

    def seal_for(self, members: Iterable[str], payload: bytes, now: float, random: Random) -> list[NodeRekey]:
        """Return one Subgroup message for each node of the smallest cover of `members`; nobody else opens them.

        Raises:
            UsageError: one is not a member, there is none, or `payload` is longer than 16,000 bytes.
        """
        if len(payload) > MAX_SUBGROUP_PAYLOAD:
            message = f"a subgroup message carries at most {MAX_SUBGROUP_PAYLOAD} bytes, not {len(payload)}"
            raise UsageError(message)
        slots: set[int] = set()
        for member in members:
            slot = self.directory.slot(member)
            if slot is None:
                message = f"{member!r} is not a member of group {self.name}"
                raise UsageError(message)
            slots.add(slot)
        if not slots:
            message = "a subgroup message needs at least one member"
            raise UsageError(message)
        self.time = self._clock(now)
        return [
            self._subgroup(level, index, payload, random(SALT_SIZE))
            for level, index in complete_subtree_cover(self.tree, slots)
        ]

    def _subgroup(self, level: int, index: int, payload: bytes, salt: bytes) -> NodeRekey:
        slot, topic = (None, index) if level else (index, index // self.tree.degree)
        node, context = self.tree.get(level, index), (self.name, level, topic)
        sealed = Subgroup.seal(self._key, context, node, payload, slot=slot, time=self.time, salt=salt)
        return NodeRekey(level, topic, sealed)

    def _clock(self, now: float) -> int:
        """Return the group's time for something new: ms since 1970, never the same twice, never back."""
        return max(int(now * 1000), self.time + 1)

    def _is_thorough(self, rotation: Rotation) -> bool:
        """Return whether a rotation is for more than the root: keys, spares among them, may have leaked."""
        return rotation.deep or rotation.level < self.tree.height

    def _beacon(self, epoch: int, height: int, root: NodeKey, time: int) -> bytes:
        at = (epoch, height, root.birth, root.step)
        return Beacon.seal(self._key, self.name, at, time, due=self.beacon_interval, policy=self.policy)

    def _welcomes(
        self, seats: tuple[Seat, ...], renewal: Renewal, change: StateChange, write_all: WriteAll
    ) -> tuple[tuple[str, bytes], ...]:
        """Return the Welcomes of those who sit at `seats` under the keys of `renewal`."""
        degree, leaves = self.tree.degree, renewal.nodes[0]
        inner = tuple(enumerate(renewal.nodes))[1:]
        welcomed = [seat for seat in seats if seat.enrollment.kem_public]
        jobs = (
            _job(seat, leaves[seat.slot], tuple(keys[seat.slot // degree**level] for level, keys in inner))
            for seat in welcomed
        )
        written = write_all(self._batch(change.epoch, change.time), jobs)
        return tuple((seat.enrollment.member, welcome) for seat, welcome in zip(welcomed, written, strict=True))

    def _batch(self, epoch: int, time: int) -> Batch:
        policy, seed = self.policy, self._key.private_bytes_raw()
        degree, certifies = self.tree.degree, policy.source_authentication
        return Batch(self.suite, seed, self.name, epoch, time, degree, policy.fields, certifies)


def _job(seat: Seat, leaf: NodeKey, path: tuple[NodeKey, ...]) -> Job:
    who = seat.enrollment
    return Job(who.member, who.kem_public, who.nonce, who.identity, seat.slot, leaf, path)

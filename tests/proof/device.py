"""A device: the real member, what is on its disk, and every key that was ever in its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.core.member import Member
from brokerkm.core.state import State
from brokerkm.errors import RefusedError
from proof.attacker import Known

if TYPE_CHECKING:
    from brokerkm.core.crypto import Random
    from brokerkm.core.events import Event
    from brokerkm.core.memory import Profile
    from brokerkm.core.welcome import NodeKey


class Holder:
    """A member of the group from epoch `first` up to, but not in, epoch `end`; whoever has its state has its keys.

    A member that is given a new leaf key is a new holder, and the old one counts as evicted.
    """

    def __init__(self, name: str, seed: bytes, first: int) -> None:
        self.name: Final = name
        self.seed: Final = seed  # of the KEM key that its Welcomes are sealed to
        self.first: Final = first
        self.end: int | None = None
        self.known: set[Known] = set()

    def is_member(self, epoch: int) -> bool:
        """Return whether this holder may read what is sent in `epoch`."""
        return self.first <= epoch and (self.end is None or epoch < self.end)


class Device:
    """One device over all its lives in the group.

    Attributes:
        online: whether it hears what is published.
        ghost: whether it is never shown a Goodbye.
        current: whether it must have the group's key by now, for it has missed nothing.
        saved: the last state that was due to be saved.
        first_state: the state right after its last Welcome.
    """

    def __init__(self, profile: Profile, random: Random) -> None:
        self._random: Final = random
        self.member = Member.create(profile, random)
        self.online = True
        self.ghost = False
        self.current = False
        self.saved = self.member.dump()
        self.first_state = b""
        self._version = self.member.version
        self.seeds: Final[dict[bytes, bytes]] = {}  # by KEM public key
        self.holders: Final[list[Holder]] = []

    @property
    def name(self) -> str:
        """The member id."""
        return self.member.profile.member

    @property
    def root(self) -> NodeKey | None:
        """The group's key as far as the device knows it."""
        path = self.member._memory.path
        return None if path is None else path.root

    @property
    def slot_is_known(self) -> bool:
        """Return whether the device believes that it has a place."""
        return self.member.slot is not None

    def join(self, now: float) -> bytes:
        """Return a Join."""
        payload = self.member.join(now)
        seed = self.member._memory.join_seed
        self.seeds[self.member.profile.suite.public_key(seed)] = seed
        self._save()
        return payload

    def sync(self, now: float) -> bytes:
        """Return a Sync."""
        payload = self.member.sync(now)
        self._save()
        return payload

    def leave(self, now: float) -> bytes:
        """Return a Leave."""
        payload = self.member.leave(now)
        self._save()
        return payload

    def ack(self, now: float) -> bytes:
        """Return an Ack."""
        payload = self.member.ack(now)
        self._save()
        return payload

    def receive(self, topic: str, payload: bytes, now: float) -> list[Event] | None:
        """Take in a message as from the broker; None if it was refused, and then nothing may have changed."""
        before = self.member.dump()
        try:
            events = self.member.receive(topic, payload, now)
        except RefusedError:
            assert before == self.member.dump()
            return None
        self._save()
        self._learn()
        return events

    def restart(self, now: float, *, crashed: bool) -> None:
        """Start anew from what is on disk; a device that did not crash has saved everything."""
        state = self.saved if crashed else self.member.dump()
        self.member = Member.load(state, self._random, now)
        assert state == self.member.dump()
        self._version = self.member.version

    def rebuilt(self, now: float) -> Device:
        """Return a copy that knows nothing but the last Welcome."""
        copy = Device(self.member.profile, self._random)
        copy.member = Member.load(self.first_state, self._random, now)
        return copy

    def welcomed(self) -> None:
        """Note the state right after a Welcome."""
        self.first_state = self.member.dump()

    def _save(self) -> None:
        if self.member.version != self._version:
            self.saved, self._version = self.member.dump(), self.member.version

    def _learn(self) -> None:
        """Note all keys under the membership that the leaf key belongs to."""
        path = self.member._memory.path
        if path is None or self.member.state is State.JOINING:
            return
        mine = [holder for holder in self.holders if holder.first == path.leaf.birth]
        nodes = [(0, path.slot), *path.nodes[1:]]
        for holder in mine:
            for node, (key, birth, step) in zip(nodes, (path.leaf, *path.keys), strict=True):
                holder.known.add(Known(*node, birth, step, key))

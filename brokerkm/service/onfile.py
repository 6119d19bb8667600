"""What is on file about those who ask: looked up for many at once, and remembered as far as only commits change it.

A look into the store costs several times what it finds, because it happens in another thread. Who floods the server
with requests under ids that nobody has, or that have not been seen for long, must not make it pay that for each.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brokerkm.service.desk import StoreDesk
    from brokerkm.service.live import LiveGroup
    from brokerkm.store.protocol import Store
    from brokerkm.store.records import MemberRecord, TokenRecord

MAX_PLACES: Final = 16_384  # members whose slot is remembered; about 4 MB

_Name = tuple[str, str]  # group and member id


class Asker(NamedTuple):
    """Who asks, and the id of the token that it shows, if it shows one."""

    group: LiveGroup
    member: str
    token: bytes | None = None


class Place(NamedTuple):
    """Where a member id sat at an epoch; None if nowhere."""

    epoch: int
    slot: int | None


class Found(NamedTuple):
    """What one look into the store has found.

    Args:
        members: by group and member id; `take` them, because what was found is good for one request only.
        tokens: by group and id; None for what is no token.
        epochs: of the groups, with the commit that was under way: the store's thread had done that before.
    """

    members: dict[_Name, MemberRecord | None]
    tokens: dict[tuple[str, bytes], TokenRecord | None]
    epochs: dict[str, int]

    def has(self, group: LiveGroup, member: str) -> bool:
        """Return whether a member's record is there."""
        return (group.name, member) in self.members

    def is_current(self, group: LiveGroup) -> bool:
        """Return whether no commit has begun since."""
        return self.epochs.get(group.name) == group.newest_epoch

    def take(self, group: LiveGroup, member: str) -> MemberRecord | None:
        """Return a member's record, if it has one, for the last time."""
        return self.members.pop((group.name, member))


class OnFile:
    """Looks into the store, and remembers where members sit."""

    def __init__(self, store: Store, desk: StoreDesk) -> None:
        self._store: Final = store
        self._desk: Final = desk
        self._places: Final[OrderedDict[_Name, Place]] = OrderedDict()

    def place(self, group: LiveGroup, member: str) -> Place | None:
        """Return where a member sits, if it was looked up since the last commit."""
        place = self._places.get((group.name, member))
        return place if place is not None and place.epoch == group.newest_epoch else None

    async def look_up(self, askers: Sequence[Asker]) -> Found:
        """Return what there is about all of them; raises `StoreError`."""
        groups = {one.group.name: one.group for one in askers}
        before = {name: group.newest_epoch for name, group in groups.items()}
        found = await self._desk.call(self._look, askers)
        found.epochs.update(before)
        quiet = {name for name, one in groups.items() if before[name] == one.group.epoch == one.newest_epoch}
        for (name, member), record in found.members.items():
            if name in quiet:  # otherwise the keys in memory are not those of the seats in the store
                self._note(name, member, Place(before[name], None if record is None else record.slot))
        return found

    def _look(self, askers: Sequence[Asker]) -> Found:
        """Read it all; in the store's thread."""
        found = Found({}, {}, {})
        for name in {one.group.name for one in askers}:
            members = list(dict.fromkeys(one.member for one in askers if one.group.name == name))
            known = self._store.known(name, members)
            found.members.update({(name, member): known.get(member) for member in members})
        for group, _, token in askers:
            if token is not None and (group.name, token) not in found.tokens:
                found.tokens[group.name, token] = self._store.token(group.name, token)
        return found

    def _note(self, group: str, member: str, place: Place) -> None:
        self._places.pop((group, member), None)
        self._places[group, member] = place
        if len(self._places) > MAX_PLACES:
            self._places.popitem(last=False)

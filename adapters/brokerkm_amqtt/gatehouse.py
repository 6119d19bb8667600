"""Who is at the broker and what they may do: a guard in the broker's own process.

Nobody but the key server gets in before a guard is open, and nobody else while none is; who is in by then stays, with
the rights that it had. What a login may do comes from the store; what changes afterwards the warden tells.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
from typing import TYPE_CHECKING, ClassVar, Final
from weakref import WeakSet

from brokerkm.errors import BrokerkmError
from brokerkm.guard.authority import Authority, DeniedError
from brokerkm.guard.seam import Difference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from brokerkm.guard.fleet import Fleet, GuardedGroup
    from brokerkm.guard.rules import Grant

_log = logging.getLogger(__name__)

KEYSERVER: Final = "keyserver"  # user name of the key server in the broker's own process


class Guest:
    """One connection, or one session that the broker keeps for somebody who is away.

    Args:
        end: disconnects it, and drops what the broker keeps for it.

    Attributes:
        owner: user name, the same for all logins of one principal.
        grant: what it may do; None for the key server, which may do everything, and for who may do nothing.
    """

    def __init__(self, end: Callable[[], None]) -> None:
        self._end: Final = end
        self.owner = ""
        self.is_server = False
        self.grant: Grant | None = None
        self.gone = False

    def end(self) -> None:
        """Disconnect it, for good."""
        self.gone = True
        self.grant = None
        self._end()

    def may_subscribe(self, pattern: str) -> bool:
        """Return whether it may subscribe a filter."""
        return self.is_server or (self.grant is not None and self.grant.may_subscribe(pattern))

    def may_receive(self, topic: str) -> bool:
        """Return whether what is published on a topic may be delivered to it."""
        return self.is_server or (self.grant is not None and self.grant.may_receive(topic))

    def may_publish(self, topic: str, *, retain: bool = False) -> bool:
        """Return whether it may publish on a topic."""
        return self.is_server or (self.grant is not None and self.grant.may_publish(topic, retain=retain))


class Gatehouse:
    """All guests of one broker.

    Attributes:
        login: the key server's user name and password, made anew with each gatehouse.
    """

    def __init__(self) -> None:
        self.login: Final = (KEYSERVER, secrets.token_urlsafe(32))
        self._authority: Authority | None = None
        self._guests: Final[dict[tuple[str, str], WeakSet[Guest]]] = {}  # sessions hold them

    def guard(self, fleet: Fleet, options: Mapping[str, str]) -> HouseGuard:
        """Return the guard of this gatehouse, not yet open."""
        return HouseGuard(fleet, options, self)

    def open(self, authority: Authority | None) -> None:
        """Let in whom this authority knows; None lets nobody in from now on."""
        self._authority = authority

    async def enter(self, guest: Guest, username: str, password: str) -> bool:
        """Return whether a guest may come in, who has these then."""
        name, secret = self.login
        if username == name:
            guest.is_server = secrets.compare_digest(password.encode(), secret.encode())
            guest.owner = name
            return guest.is_server
        if self._authority is None:
            _log.info("nobody is let in before the key server is ready")
            return False
        try:
            grant = await self._authority.login(username, password)
            self._book(guest, grant)
            # once more: nobody tells of what has changed after the first answer and before it was booked
            grant = await self._authority.login(username, password)
        except (DeniedError, BrokerkmError) as error:
            _log.info("not let in: %s", error)
            self.leave(guest)
            return False
        if guest.gone:
            return False
        guest.grant = grant
        return True

    def leave(self, guest: Guest) -> None:
        """Forget a guest."""
        guest.gone = True
        grant, guest.grant = guest.grant, None
        if grant is None:
            return
        key = _key(grant)
        known = self._guests.get(key)
        if known is not None:
            known.discard(guest)
            if not known:
                del self._guests[key]

    def admit(self, grant: Grant) -> int:
        """Give all guests of a member what it may do now; return for how many that was something else."""
        changed = 0
        for guest in self._of(*_key(grant)):
            before = guest.grant
            if before is None:
                continue
            if grant.identity and grant.identity != before.identity:
                self._expel(guest)  # it came in under an id that is another device's by now
                changed += 1
                continue
            guest.grant = dataclasses.replace(grant, identity=before.identity)
            changed += _differ(grant, before)
        return changed

    def evict(self, group: str, member: str) -> int:
        """Disconnect all guests of a member; return how many there were."""
        guests = list(self._of(group, member))
        for guest in guests:
            self._expel(guest)
        return len(guests)

    def principals(self) -> list[tuple[str, str]]:
        """Return who is there, by group and member id."""
        return sorted(self._guests)

    def _book(self, guest: Guest, grant: Grant) -> None:
        group, member = _key(grant)
        guest.owner, guest.grant = f"{group}:{member}", grant
        self._guests.setdefault((group, member), WeakSet()).add(guest)

    def _expel(self, guest: Guest) -> None:
        self.leave(guest)
        guest.end()

    def _of(self, group: str, member: str) -> Iterator[Guest]:
        yield from tuple(self._guests.get((group, member), ()))

    def differs(self, group: str, member: str, grant: Grant | None) -> bool:
        """Return whether a guest of this member may do anything but what `grant` says."""
        for guest in self._of(group, member):
            before = guest.grant
            if before is None:
                continue
            if grant is None or grant.identity not in (b"", before.identity) or _differ(grant, before):
                return True
        return False


class HouseGuard:
    """`brokerkm.guard.seam.BrokerGuard` of a gatehouse: it is about those who are there, all others are asked anew."""

    by_identity: ClassVar = True

    def __init__(self, fleet: Fleet, options: Mapping[str, str], house: Gatehouse | None = None) -> None:
        self._house: Final = house or Gatehouse()
        self._fleet: Final = fleet
        self._applicants: Final = options.get("applicants", "true") == "true"

    async def open(self) -> None:
        """Let in whom the store knows."""
        self._house.open(Authority(self._fleet, applicants=self._applicants))

    async def close(self) -> None:
        """Let nobody in any more."""
        self._house.open(None)

    async def admit(self, grant: Grant) -> None:
        """Give a member what it may do."""
        self._house.admit(grant)

    async def evict(self, group: str, member: str) -> None:
        """Disconnect a member, unless it is nobody's yet and may ask for a place."""
        grant = await self._expected(group, member, await self._fleet.groups())
        if grant is None:
            self._house.evict(group, member)
        else:
            self._house.admit(grant)

    async def forget(self, group: str) -> None:
        """Disconnect all members of a group."""
        for known, member in self._house.principals():
            if known == group:
                self._house.evict(group, member)

    async def diff(self) -> AsyncIterator[Difference]:
        """Yield who is there with other rights than the store says."""
        groups = await self._fleet.groups()
        for group, member in self._house.principals():
            grant = await self._expected(group, member, groups)
            if self._house.differs(group, member, grant):
                what = "is connected and should not be" if grant is None else "has other rights than it should"
                yield Difference(group, member, what)

    async def sync(self, progress: Callable[[int, int], None]) -> int:
        """Give all who are there what they should have."""
        groups = await self._fleet.groups()
        there = self._house.principals()
        changed = 0
        for number, (group, member) in enumerate(there, 1):
            grant = await self._expected(group, member, groups)
            changed += self._house.evict(group, member) if grant is None else self._house.admit(grant)
            progress(number, len(there))
        return changed

    async def _expected(self, group: str, member: str, groups: Mapping[str, GuardedGroup]) -> Grant | None:
        known = groups.get(group)
        if known is None:
            return None
        prefixes = tuple(sorted({one.prefix for one in groups.values()}))
        record = await self._fleet.member(group, member)
        if record is None:
            return known.applicant(member, prefixes) if self._applicants else None
        return known.grant(record, prefixes)


def _key(grant: Grant) -> tuple[str, str]:
    return grant.topics.group, grant.member


def _differ(one: Grant, other: Grant) -> bool:
    """Return whether two grants of a member let it do different things."""
    if one.topics.root != other.topics.root:
        return True
    return dataclasses.replace(one, topics=other.topics, identity=other.identity) != other

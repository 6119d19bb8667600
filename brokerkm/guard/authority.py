"""Who somebody at a broker is, and with that what it may do: the one place that decides for all brokers.

It fails closed: what cannot be decided, because the store does not answer or a name is malformed, is refused.
"""

from __future__ import annotations

import dataclasses
import hmac
from typing import TYPE_CHECKING

from brokerkm.core.login import MAX_USERNAME, PASSWORD_SIZE, Principal, identity_of
from brokerkm.errors import UsageError
from brokerkm.store.records import Status

if TYPE_CHECKING:
    from brokerkm.guard.fleet import Fleet, GuardedGroup
    from brokerkm.guard.rules import Grant


class DeniedError(Exception):
    """Somebody may not connect; the text says why, for a log, and is not for the one who tried."""


class Authority:
    """Decides by what the store knows.

    Args:
        keyserver: user name and password of the key server; None where the broker itself knows it.
        applicants: whether devices of which nothing is known yet may connect, to ask for a seat.
    """

    def __init__(self, fleet: Fleet, keyserver: tuple[str, str] | None = None, *, applicants: bool = True) -> None:
        self._fleet = fleet
        self._keyserver = keyserver
        self._applicants = applicants

    def is_keyserver(self, username: str, password: str) -> bool:
        """Return whether these are the key server's own name and password."""
        if self._keyserver is None:
            return False
        name, secret = self._keyserver
        return username == name and hmac.compare_digest(password.encode(), secret.encode())

    async def login(self, username: str, password: str) -> Grant:
        """Return what somebody who proves to be a member, or an applicant, may do, with the key that proved it.

        Raises:
            DeniedError: it may not connect.
            StoreError: that cannot be told now.
        """
        if len(username) > MAX_USERNAME or len(password) > PASSWORD_SIZE:
            message = "the user name or the password is too long to be a device's"
            raise DeniedError(message)
        principal, group, prefixes = await self._resolve(username)
        try:
            identity = identity_of(principal, password)
        except UsageError as error:
            raise DeniedError(str(error)) from None
        record = await self._fleet.member(principal.group, principal.member)
        if record is not None and record.identity and not hmac.compare_digest(record.identity, identity):
            message = f"another identity key is known for {principal.username}"
            raise DeniedError(message)
        unbound = record is None or not record.identity or record.status is Status.PENDING
        if unbound and not self._applicants:
            message = f"{principal.username} is not known, and applicants are not admitted ([guard] applicants)"
            raise DeniedError(message)
        grant = group.applicant(principal.member, prefixes) if record is None else group.grant(record, prefixes)
        if grant is None:
            message = f"{principal.username} has been evicted"
            raise DeniedError(message)
        return dataclasses.replace(grant, identity=identity)

    async def grant(self, username: str) -> Grant:
        """Return what somebody may do whom the broker has authenticated, by this authority or otherwise.

        Raises:
            DeniedError: it may do nothing.
            StoreError: that cannot be told now.
        """
        if len(username) > MAX_USERNAME:
            message = "the user name is too long to be a device's"
            raise DeniedError(message)
        principal, group, prefixes = await self._resolve(username)
        record = await self._fleet.member(principal.group, principal.member)
        if record is None and self._applicants:
            return group.applicant(principal.member, prefixes)
        grant = None if record is None else group.grant(record, prefixes)
        if grant is None:
            message = f"{principal.username} has been evicted, or was never known"
            raise DeniedError(message)
        return grant

    async def _resolve(self, username: str) -> tuple[Principal, GuardedGroup, tuple[str, ...]]:
        groups = await self._fleet.groups()
        only = next(iter(groups)) if len(groups) == 1 else None
        principal = Principal.parse(username, only)
        group = None if principal is None else groups.get(principal.group)
        if principal is None or group is None:
            message = f"user name {username[:MAX_USERNAME]!r} is neither GROUP:MEMBER nor a member of the only group"
            raise DeniedError(message)
        return principal, group, tuple(sorted({known.prefix for known in groups.values()}))

"""Administration of the server itself: how it is, what was done, what happens, and who may use its API."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from brokerkm.errors import StoreError, UnknownNameError, UsageError
from brokerkm.service import credentials
from brokerkm.service.api import (
    PAGE,
    AuditInfo,
    AuditVerdict,
    CredentialInfo,
    Event,
    IssuedCredential,
    ServerStatus,
)
from brokerkm.service.office import Office
from brokerkm.store import audit as chains
from brokerkm.store.records import Change, Status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from brokerkm.service.credentials import Role
    from brokerkm.store.lease import ServerRecord
    from brokerkm.store.protocol import Store


class Oversight(Office):
    """The part of `AdminApi` that is about the server."""

    async def status(self) -> ServerStatus:
        """Return how the server is."""
        server = self._server
        groups = list(server.groups.values())
        names, members, unpublished = await self._call(_sums)
        broker = "none" if server.publisher is None else "connected" if server.connected else "gone"
        return ServerStatus(
            version=version("brokerkm"),
            time=self._now(),
            broker=broker,
            groups=names,
            members=members,
            waiting=sum(len(group.changes) for group in groups),
            unpublished=unpublished,
            unserved=dict(server.leadership.unled),
        )

    async def servers(self) -> list[ServerRecord]:
        """Return the servers that share the store, and what they lead."""
        return await self._server.leadership.servers()

    async def move(self, group: str, to: str) -> None:
        """Have another server lead a group."""
        await self._server.leadership.move(group, to)
        await self._write("", Change(audit=[self._entry("move", group, to=to)]))

    async def audit(self, group: str = "", *, after: int = 0, limit: int = PAGE) -> list[AuditInfo]:
        """Return entries of an audit log; that of a group outlives the group."""
        await self._check_chain(group)
        records = await self._server.desk.call(self._server.store.audit, group, after, min(limit, PAGE))
        return [
            AuditInfo(
                number=record.number,
                time=record.entry.time,
                actor=record.entry.actor,
                action=record.entry.action,
                subject=record.entry.subject,
                details=dict(record.entry.details),
                hash=record.hash.hex(),
            )
            for record in records
        ]

    async def verify_audit(self, group: str = "") -> AuditVerdict:
        """Check a chain from its first entry, a page at a time."""
        await self._check_chain(group)
        number, newest = 0, chains.FIRST
        while True:
            try:
                page = await self._server.desk.call(self._server.store.audit, group, number, PAGE)
                last = chains.check(group, page, number, newest)
            except StoreError as error:
                return AuditVerdict(number, newest.hex(), whole=False, finding=str(error))
            if last is None:
                return AuditVerdict(number, newest.hex(), whole=True)
            number, newest = last.number, last.hash

    async def _check_chain(self, group: str) -> None:
        """Refuse the name of what has never been: a mistyped one would have a log that is empty, and so whole."""

        def exists(store: Store) -> bool:
            try:
                return store.group(group) is not None or bool(store.audit(group, 0, 1))
            except StoreError:  # a first entry that cannot be read is one
                return True

        if group and not await self._call(exists):
            message = f"there is no audit log of a group {group[:80]!r}: no group has ever had that name"
            raise UnknownNameError(message)

    async def events(self) -> AsyncGenerator[Event]:
        """Yield what happens from now on."""
        with self._server.feed.follow() as follower:
            async for one in follower:
                yield Event(one.time, one.kind.value, one.group, one.member, dict(one.details))

    async def create_credential(
        self, name: str, role: Role, *, lifetime: float = credentials.DEFAULT_LIFETIME
    ) -> IssuedCredential:
        """Make a bearer token for the API."""
        new, token = credentials.issue(name, role, lifetime, self._now(), self._server.random)
        await self._call(self._keep, new)
        return IssuedCredential(new.name, new.role, new.created, new.expires, token)

    async def list_credentials(self) -> list[CredentialInfo]:
        """Return all bearer tokens without their secrets."""
        documents = await self._server.desk.call(self._server.store.documents, "", credentials.KIND)
        found = map(credentials.Credential.from_document, documents)
        return [CredentialInfo(one.name, one.role, one.created, one.expires) for one in found]

    async def revoke_credential(self, name: str) -> None:
        """Make a bearer token void."""
        await self._call(self._drop, name)

    def _keep(self, store: Store, new: credentials.Credential) -> None:
        document = store.document("", credentials.KIND, new.name)
        if document is not None and credentials.Credential.from_document(document).expires > self._now():
            message = f"there is a credential {new.name} already: revoke it, or take another name"
            raise UsageError(message)
        entry = self._entry("credential-create", new.name, role=new.role.value, expires=new.expires)
        store.write("", Change(documents=[new.to_document()], audit=[entry]))

    def _drop(self, store: Store, name: str) -> None:
        credentials.check_stored(store, name)
        entry = self._entry("credential-revoke", name)
        store.write("", Change(dropped=[(credentials.KIND, name)], audit=[entry]))


def _sums(store: Store) -> tuple[int, int, int]:
    """Return how many groups, members and messages that wait there are, whoever leads them; in the store's thread."""
    names = [record.name for record in store.groups()]
    members = sum(store.count(name)[Status.SEATED] for name in names)
    return len(names), members, sum(store.waiting(name) for name in names)

"""One group's admission policy in service: its files open, its hook ready, its members watched."""

from __future__ import annotations

import asyncio
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from brokerkm.admission.certificates import DeviceCertificates, Verified
from brokerkm.admission.hook import Hook
from brokerkm.admission.policy import KIND, NAME, AdmissionPolicy
from brokerkm.admission.rules import Applicant, Proof, Returning, decide
from brokerkm.core.admission import check_join
from brokerkm.core.request import TokenKey
from brokerkm.errors import Reason, RefusedError
from brokerkm.service.settlement import BINDING
from brokerkm.service.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.admission.rules import Action
    from brokerkm.core.request import Join
    from brokerkm.service.desk import StoreDesk
    from brokerkm.service.live import LiveGroup
    from brokerkm.store.protocol import Store
    from brokerkm.store.records import MemberRecord, TokenRecord


class _Check:
    """Verifies the chain of one Join, and keeps what was verified."""

    def __init__(self, certificates: DeviceCertificates) -> None:
        self._certificates: Final = certificates
        self.verified: Verified | None = None

    def check(self, member: str, chain: tuple[bytes, ...], signed: bytes, signature: bytes, now: int) -> None:
        """Raise `RefusedError` unless the chain certifies `member`."""
        verified = self._certificates.verify(chain, signed, signature, now / 1000)
        if member not in verified.members:
            raise RefusedError(Reason.BAD_CERTIFICATE, "credential", "it names another member")
        self.verified = verified


class Gate:
    """Decides about the Joins of one group.

    Raises:
        UsageError: a file or a secret that the policy names cannot be read.
    """

    def __init__(
        self, group: str, policy: AdmissionPolicy, store: Store, desk: StoreDesk, clock: Callable[[], float]
    ) -> None:
        self.policy: Final = policy
        self.watch: Final = Watch(policy.conduct)
        self.hook: Final = None if policy.hook is None else Hook(policy.hook, clock)
        self._certificates: Final = None if policy.certificates is None else DeviceCertificates(policy.certificates)
        self._returning: Final = any(rule.returning for rule in policy.rules)
        self._group: Final = group
        self._store: Final = store
        self._desk: Final = desk

    async def prove(
        self,
        member: str,
        join: Join,
        known: MemberRecord | None,
        found: TokenRecord | None,
        *,
        now: int,
        last_time: int,
    ) -> Applicant:
        """Return who asks to join, once its proof has been checked; raises `RefusedError`.

        Args:
            found: the token that the Join names, if there is one.
        """
        bound = known.identity if known is not None and known.identity else None
        returning = bound is not None and bound != join.identity
        if returning and (not self._returning or join.credential is None):
            raise RefusedError(Reason.BAD_SIGNATURE, "identity")  # whatever its time: it is no repetition
        if bound is not None and not returning:
            check_join(join, self._group, member, now=now, last_time=last_time, identity=bound, token=None)
            return Applicant(self._group, member, join.identity, Proof.KEY)
        token = None
        if found is not None and found.expiry > now and fnmatchcase(member, found.pattern):
            token = TokenKey(found.id, found.key)
        check = None if self._certificates is None else _Check(self._certificates)

        def proved() -> None:
            check_join(
                join,
                self._group,
                member,
                now=now,
                last_time=last_time,
                identity=None,
                token=token,
                certificates=check,
            )

        if join.chain:
            await asyncio.to_thread(proved)  # it may read files
        else:
            proved()
        verified = check.verified if check is not None else None
        proof = Proof.TOKEN if verified is None else Proof.CERTIFICATE
        who = Applicant(self._group, member, join.identity, proof, token.id if token else b"", verified)
        return who if not returning else await self._recognised(who)

    def decide(self, who: Applicant) -> Action:
        """Return what the rules say about `who`."""
        return decide(self.policy.rules, self.policy.default, who)

    async def _recognised(self, who: Applicant) -> Applicant:
        """Return `who` with how it stands to the device that had the member id before."""
        before = await self._desk.call(self._store.document, self._group, BINDING, who.member)
        same = before is not None and before.body.decode() == who.credential
        degree = Returning.SAME if same else Returning.OTHER
        return Applicant(who.group, who.member, who.identity, who.proof, who.token, who.certificate, degree)


class Gates:
    """The gates of the groups in service, opened when they are first needed.

    A group that comes back from another server is another `LiveGroup`, so its policy is read again.
    """

    def __init__(self, store: Store, desk: StoreDesk, clock: Callable[[], float]) -> None:
        self._store: Final = store
        self._desk: Final = desk
        self._clock: Final = clock
        self._open: Final[WeakKeyDictionary[LiveGroup, Gate]] = WeakKeyDictionary()

    async def of(self, group: LiveGroup) -> Gate:
        """Return the gate of a group.

        Raises:
            StoreError: its policy cannot be read.
            UsageError: its policy cannot be put to use; then nobody is let in.
        """
        found = self._open.get(group)
        if found is None:
            document = await self._desk.call(self._store.document, group.name, KIND, NAME)
            policy = AdmissionPolicy() if document is None else AdmissionPolicy.from_json(document.body)
            found = self._open.setdefault(group, await self.make(group, policy))
        return found

    async def make(self, group: LiveGroup, policy: AdmissionPolicy) -> Gate:
        """Return a gate that is not used yet; raises `UsageError` if the policy's files cannot be used."""
        return await asyncio.to_thread(Gate, group.name, policy, self._store, self._desk, self._clock)

    def replace(self, group: LiveGroup, gate: Gate) -> None:
        """Use another gate for a group from now on."""
        self._open[group] = gate

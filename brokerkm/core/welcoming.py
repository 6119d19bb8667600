"""The Welcomes of one commit: what they have in common, what each is made of, and how they are made.

Making one costs an HPKE seal and a signature, for thousands of members more than all else in a commit together. So
what is to be made is said in plain tuples, which a caller with more than one core may hand to other processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from brokerkm.core.crypto import Suite, load_signing_key
from brokerkm.core.policy import Policy
from brokerkm.core.welcome import CERTIFICATE_LIFETIME, Certificate, NodeKey, Recipient, Welcome, WelcomeSecrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Batch(NamedTuple):
    """What the Welcomes of one commit have in common; secret.

    Args:
        time: the group's clock, ms since 1970.
        policy: as it goes on the wire.
        certifies: whether members with an identity key get a sender certificate.
    """

    suite: int
    signing_seed: bytes
    group: str
    epoch: int
    time: int
    degree: int
    policy: tuple[int, ...]
    certifies: bool

    def __repr__(self) -> str:
        return f"Batch({self.group!r}, epoch={self.epoch})"


class Job(NamedTuple):
    """One Welcome; secret.

    Args:
        kem_public, nonce: of the member's last Join.
        identity: its Ed25519 public key, or empty.
        path: the keys of levels 1 to the height.
        spares: the root's next keys, if it is to get any.
    """

    member: str
    kem_public: bytes
    nonce: bytes
    identity: bytes
    slot: int
    leaf: NodeKey
    path: tuple[NodeKey, ...]
    spares: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Job({self.member!r}, slot={self.slot})"


WriteAll: TypeAlias = "Callable[[Batch, Iterable[Job]], Iterable[bytes]]"


def write_each(batch: Batch, jobs: Iterable[Job]) -> Iterator[bytes]:
    """Yield the encoded Welcomes, one after the other.

    Raises:
        RefusedError: a KEM public key cannot be used.
    """
    key, suite, policy = load_signing_key(batch.signing_seed), Suite(batch.suite), Policy.from_fields([*batch.policy])
    for job in jobs:
        certificate = None
        if batch.certifies and job.identity:  # without, it may listen, but cannot speak
            expiry = batch.time + CERTIFICATE_LIFETIME
            certificate = Certificate.issue(key, batch.group, job.member, job.identity, expiry)
        secrets = WelcomeSecrets(
            batch.epoch, batch.time, job.slot, batch.degree, job.leaf, job.path, policy, certificate, job.spares
        )
        yield Welcome.seal(key, suite, batch.group, Recipient(job.member, job.kem_public, job.nonce), secrets)

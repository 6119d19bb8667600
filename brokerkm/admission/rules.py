"""Rules about who may join: the list controller of RFC 2627, section 4.1, kept apart from the key server.

The rules of a group are read in order and the first that matches decides; else the default does. They come after the
proof: a rule sees only applicants who hold what they show. Somebody who comes with another identity key than the one
that is bound to the member id needs a rule that says `returning`; no other rule and no default lets it in.
"""

from __future__ import annotations

import enum
import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from brokerkm.admission.certificates import Verified


class Action(enum.StrEnum):
    """What becomes of a Join."""

    ALLOW = "allow"
    DENY = "deny"
    APPROVE = "approve"  # it waits for an operator


class Proof(enum.StrEnum):
    """What an applicant has shown."""

    KEY = "key"  # the identity key that is listed for the id or bound to it
    TOKEN = "token"  # noqa: S105 - a kind of proof, not a secret
    CERTIFICATE = "certificate"


class Returning(enum.IntEnum):
    """How an applicant stands to the identity key that is bound to its id; a rule names the highest that it covers."""

    NO = 0  # the id is new, or it is the same key
    SAME = 1  # another key, by the certificate or token that let the device in before: it has lost its state
    OTHER = 2  # another key and another credential: replaced hardware, or a thief


@dataclass(frozen=True, slots=True)
class Applicant:
    """Somebody whose proof holds.

    Args:
        identity: its Ed25519 public key.
        token: id of the token that it has shown, if it has.
        certificate: what was verified, if it has shown one.
    """

    group: str
    member: str
    identity: bytes
    proof: Proof
    token: bytes = b""
    certificate: Verified | None = None
    returning: Returning = Returning.NO

    @property
    def credential(self) -> str:
        """What let it in, as it is kept to be recognised: ``token:ID`` or ``certificate:FINGERPRINT``."""
        if self.certificate is not None:
            return f"certificate:{self.certificate.fingerprint.hex()}"
        return f"token:{self.token.hex()}" if self.token else "key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; what it does not name matches everything.

    Args:
        member, issuer, subject: shell patterns on the member id and the names in the certificate.
        proofs: kinds of proof, empty for all.
        certificate: SHA-256 of a certificate's public key, in hex.
        token: id of a token, in hex.
        returning: up to which degree it covers those who come with another identity key.
        note: the operator's words.
    """

    action: Action
    member: str = "*"
    proofs: frozenset[Proof] = frozenset()
    issuer: str = "*"
    subject: str = "*"
    certificate: str = ""
    token: str = ""
    returning: Returning = Returning.NO
    note: str = ""

    def matches(self, who: Applicant) -> bool:
        """Return whether this rule is about `who`."""
        shown = who.certificate
        return (
            who.returning <= self.returning
            and fnmatch.fnmatchcase(who.member, self.member)
            and (not self.proofs or who.proof in self.proofs)
            and fnmatch.fnmatchcase(shown.issuer if shown else "", self.issuer)
            and fnmatch.fnmatchcase(shown.subject if shown else "", self.subject)
            and (not self.certificate or (shown is not None and shown.fingerprint.hex() == self.certificate))
            and (not self.token or who.token.hex() == self.token)
        )


def decide(rules: Iterable[Rule], default: Action, who: Applicant) -> Action:
    """Return what becomes of `who`.

    An operator's yes is not asked for again: whoever shows the key that is bound to its id has had it.
    """
    action = default if who.returning is Returning.NO else Action.DENY
    for rule in rules:
        if rule.matches(who):
            action = rule.action
            break
    return Action.ALLOW if action is Action.APPROVE and who.proof is Proof.KEY else action

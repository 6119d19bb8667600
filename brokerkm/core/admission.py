"""Whether a request's proof holds: what the key server checks before it does anything lasting.

Cheap checks come first: time, replay, token, and only then a signature. Looking up what is on file (the identity
listed for or bound to a member id, the token, time and counter of the last request) is the caller's duty, and so are
limiting the rate and knowing which authorities certify devices.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Protocol

from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from brokerkm.core.request import Ack, Join, Leave, Sync, TokenKey

TIME_WINDOW: Final = 300_000  # ms that a request's time may be off; Kerberos' five minutes (RFC 4120)


class Conduct(enum.StrEnum):
    """What the counter of a request, whose proof held, says of its sender.

    Whoever goes on from a copy of a state, a clone or a device restored from a backup, comes to a counter that was
    used before. That refuses no request: what follows from it is policy.
    """

    STEADY = "steady"
    REPEATED = "repeated"  # the counter of the last request, again: two hold one state
    BEHIND = "behind"  # a lower one: a copy, or an older state of the same device


class Certificates(Protocol):
    """Knows which authorities certify the devices of a group."""

    def check(self, member: str, chain: tuple[bytes, ...], signed: bytes, signature: bytes, now: int) -> None:
        """Raise `RefusedError` unless `chain` certifies `member` at `now` (ms) and its first key made `signature`.

        Raises:
            RefusedError: bad-certificate at `credential`, or bad-signature at `proof`.
        """


def check_time(time: int, now: int, last_time: int) -> None:
    """Refuse a request that is too old, from the future, or not newer than the member's last; all in ms."""
    if abs(time - now) > TIME_WINDOW:
        raise RefusedError(Reason.WRONG_TIME, "time")
    if time <= last_time:
        raise RefusedError(Reason.REPLAY, "time")


def conduct(counter: int, last_counter: int) -> Conduct:
    """Return what `counter` says after `last_counter`, the one of the member's last granted request, 0 if none."""
    if counter > last_counter:
        return Conduct.STEADY
    return Conduct.REPEATED if counter == last_counter else Conduct.BEHIND


def check_join(
    join: Join,
    group: str,
    member: str,
    *,
    now: int,
    last_time: int,
    identity: bytes | None,
    token: TokenKey | None,
    certificates: Certificates | None = None,
) -> None:
    """Raise `RefusedError` unless `join` may have a place in the group.

    Args:
        now: ms since 1970.
        last_time: time of the member's last granted request, 0 if none.
        identity: the key listed for or bound to the member id, if any; then nobody else gets in.
        token: the valid token that the join names, if it names one.
        certificates: who looks at a chain of certificates; None if none is good enough.
    """
    check_time(join.time, now, last_time)
    if identity is not None:
        if join.identity != identity:
            raise RefusedError(Reason.BAD_SIGNATURE, "identity")
    elif join.chain:
        if certificates is None:
            raise RefusedError(Reason.BAD_CERTIFICATE, "credential", "certificates are not accepted")
        certificates.check(member, join.chain, join.possession(group, member), join.proof, now)
    elif token is None:
        raise RefusedError(Reason.UNKNOWN_TOKEN, "credential")
    else:
        join.verify_token(token, group, member)
    join.verify_signature(group, member)


def check_proof(
    request: Sync | Leave | Ack, group: str, member: str, *, now: int, last_time: int, leaf_key: bytes | None
) -> None:
    """Raise `RefusedError` unless `request` is from the holder of `leaf_key`; None if there is no such member."""
    if leaf_key is None:
        raise RefusedError(Reason.UNKNOWN_MEMBER, "member")
    check_time(request.time, now, last_time)
    request.verify(leaf_key, group, member)

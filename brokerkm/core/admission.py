"""Whether a request's proof holds: what the key server checks before it does anything lasting.

Cheap checks come first: time, replay, token, and only then a signature. Looking up what is on file (the identity
listed for or bound to a member
id, the token, the time of the last request) is the caller's duty, and so is limiting the rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from brokerkm.core.request import Join, Leave, Sync, TokenKey

TIME_WINDOW: Final = 300_000  # ms that a request's time may be off; Kerberos' five minutes (RFC 4120)


def check_time(time: int, now: int, last_time: int) -> None:
    """Refuse a request that is too old, from the future, or not newer than the member's last; all in ms."""
    if abs(time - now) > TIME_WINDOW:
        raise RefusedError(Reason.WRONG_TIME, "time")
    if time <= last_time:
        raise RefusedError(Reason.REPLAY, "time")


def check_join(
    join: Join,
    group: str,
    member: str,
    *,
    now: int,
    last_time: int,
    identity: bytes | None,
    token: TokenKey | None,
) -> None:
    """Raise `RefusedError` unless `join` may have a place in the group.

    Args:
        now: ms since 1970.
        last_time: time of the member's last granted request, 0 if none.
        identity: the key listed for or bound to the member id, if any; then nobody else gets in.
        token: the valid token that the join names, if it names one.
    """
    check_time(join.time, now, last_time)
    if identity is not None:
        if join.identity != identity:
            raise RefusedError(Reason.BAD_SIGNATURE, "identity")
    elif token is None:
        raise RefusedError(Reason.UNKNOWN_TOKEN, "token")
    else:
        join.verify_token(token, group, member)
    join.verify_signature(group, member)


def check_proof(
    request: Sync | Leave, group: str, member: str, *, now: int, last_time: int, leaf_key: bytes | None
) -> None:
    """Raise `RefusedError` unless `request` is from the holder of `leaf_key`; None if there is no such member."""
    if leaf_key is None:
        raise RefusedError(Reason.UNKNOWN_MEMBER, "member")
    check_time(request.time, now, last_time)
    request.verify(leaf_key, group, member)

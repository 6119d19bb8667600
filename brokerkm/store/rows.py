"""Records as rows of the tables and back. What a row cannot be is a `StoreError` that names it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final

from brokerkm.core.crypto import Suite
from brokerkm.core.policy import Policy
from brokerkm.core.wire import array, binary, pack, unpack_array
from brokerkm.errors import RefusedError, StoreError
from brokerkm.store.records import GroupRecord, MemberRecord, Settings, Status, TokenRecord

GROUP: Final = (
    "name, prefix, degree, suite, policy, beacon_interval, settings, frozen, handovers, signing_seed, "
    "epoch, height, time"
)
MEMBER: Final = (
    "member, status, identity, slot, kem_public, nonce, last_time, epoch, since, seen, acked, blocked_until, counter"
)
TOKEN: Final = "id, key, uses_left, expiry, pattern, created, note"  # noqa: S105 - columns
_HANDOVERS_LIMIT: Final = 1 << 20  # bytes


def group(row: tuple[Any, ...], signing_seed: bytes) -> GroupRecord:
    """Return the group in a row of `GROUP` columns."""
    name, prefix, degree, suite, policy, interval, settings, frozen, handovers, _, epoch, height, time = row
    try:
        return GroupRecord(
            name,
            signing_seed,
            degree,
            prefix,
            Suite(suite),
            _policy(json.loads(policy)),
            interval,
            epoch,
            height,
            time,
            Settings(**json.loads(settings)),
            bool(frozen),
            tuple(binary(item, "handovers") for item in array(unpack_array(handovers, _HANDOVERS_LIMIT), "handovers")),
        )
    except (RefusedError, ValueError, TypeError) as error:
        message = f"the stored group {name} is damaged: {error}; restore a backup"
        raise StoreError(message) from error


def _policy(fields: list[object]) -> Policy:
    """Return a policy that may be of a time when there were fewer rules."""
    return Policy.from_fields([*fields, *Policy().fields[len(fields) :]])


def terms(record: GroupRecord) -> tuple[object, ...]:
    """Return what of a group may be replaced: the columns policy, beacon_interval, settings, frozen, handovers."""
    return (
        json.dumps(record.policy.fields),
        record.beacon_interval,
        json.dumps(dataclasses.asdict(record.settings)),
        int(record.frozen),
        pack(record.handovers),
    )


def member(row: tuple[Any, ...]) -> MemberRecord:
    """Return the member in a row of `MEMBER` columns."""
    name, status, *rest = row
    return MemberRecord(name, Status(status), *rest)


def member_row(record: MemberRecord) -> tuple[object, ...]:
    """Return the `MEMBER` columns of a record."""
    return (
        record.member,
        int(record.status),
        record.identity,
        record.slot,
        record.kem_public,
        record.nonce,
        record.last_time,
        record.epoch,
        record.since,
        record.seen,
        record.acked,
        record.blocked_until,
        record.counter,
    )


def token(row: tuple[Any, ...], key: bytes) -> TokenRecord:
    """Return the token in a row of `TOKEN` columns."""
    token_id, _, *rest = row
    return TokenRecord(token_id, key, *rest)

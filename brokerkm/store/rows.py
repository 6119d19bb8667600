"""Records as rows of the tables and back. What a row cannot be is a `StoreError` that names it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Final

from brokerkm.core.crypto import Suite
from brokerkm.core.policy import Policy
from brokerkm.core.wire import array, binary, pack, unpack_array
from brokerkm.errors import RefusedError, StoreError
from brokerkm.store.records import GroupRecord, MemberRecord, Settings, Status, TokenRecord

if TYPE_CHECKING:
    from brokerkm.store.vault import Vault

GROUP: Final = (
    "name, prefix, degree, suite, policy, beacon_interval, settings, frozen, handovers, signing_seed, "
    "epoch, height, time, uid"
)
MEMBER: Final = (
    "member, status, identity, slot, kem_public, nonce, last_time, epoch, since, seen, acked, blocked_until, counter"
)
TOKEN: Final = "id, key, uses_left, expiry, pattern, created, note"  # noqa: S105 - columns
_HANDOVERS_LIMIT: Final = 1 << 20  # bytes
_FROZEN, _DESTROYED = 1, 2  # in the column frozen


def group(row: tuple[Any, ...], vault: Vault) -> GroupRecord:
    """Return the group in a row of `GROUP` columns."""
    name, prefix, degree, suite, policy, interval, settings, frozen, handovers, sealed, epoch, height, time, uid = row
    signing_seed = open_seed(vault, uid, name, sealed)
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
            bool(frozen & _FROZEN),
            bool(frozen & _DESTROYED),
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
        _FROZEN * record.frozen | _DESTROYED * record.destroyed,
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


def token(row: tuple[Any, ...], vault: Vault, uid: bytes) -> TokenRecord:
    """Return the token in a row of `TOKEN` columns."""
    token_id, sealed, *rest = row
    return TokenRecord(token_id, open_token_key(vault, uid, token_id, sealed), *rest)


def token_row(record: TokenRecord, vault: Vault, uid: bytes) -> tuple[object, ...]:
    """Return the `TOKEN` columns of a record."""
    sealed = seal_token_key(vault, uid, record.id, record.key)
    return (record.id, sealed, record.uses_left, record.expiry, record.pattern, record.created, record.note)


def seal_seed(vault: Vault, uid: bytes, name: str, seed: bytes) -> bytes:
    """Return a group's signing key, sealed for the group with this `uid` and name."""
    return vault.box("seed", uid).seal(seed, name)


def open_seed(vault: Vault, uid: bytes, name: str, sealed: bytes) -> bytes:
    """Return a group's signing key."""
    return _opened(vault.box("seed", uid).open(sealed, name), f"the signing key of group {name}")


def seal_token_key(vault: Vault, uid: bytes, token_id: bytes, key: bytes) -> bytes:
    """Return a token's key, sealed for the token with this id."""
    return vault.box("token", uid).seal(key, token_id)


def open_token_key(vault: Vault, uid: bytes, token_id: bytes, sealed: bytes) -> bytes:
    """Return a token's key."""
    return _opened(vault.box("token", uid).open(sealed, token_id), f"the key of token {token_id.hex()}")


def _opened(plain: bytes | None, what: str) -> bytes:
    if plain is None:
        message = f"{what} is not what was sealed there: it was moved, swapped or damaged; restore a backup"
        raise StoreError(message)
    return plain

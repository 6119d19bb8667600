"""`group recover`: a store that was restored from a backup catches up with what the broker has seen.

The server refuses to start when the retained Beacon is ahead of the store. This makes the one commit that puts it
right: an epoch above all that the group may have had since the backup, new keys for every node and leaf, a Welcome for
everybody whom the backup knows. It is stored like any commit; the server publishes it when it starts.

What the backup cannot know: who was evicted after it was made, and would be welcomed again (the operator has to name
them); who joined or got a new leaf after it (they learn by the Beacon that something is missing, and join again).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import load_signing_key
from brokerkm.core.names import Topics, check_identifier
from brokerkm.errors import RefusedError, TransportError, UsageError
from brokerkm.sealing import write_on_all_cores
from brokerkm.service.live import load_group
from brokerkm.service.retained import read
from brokerkm.store.records import AuditEntry, Change, KeyChange, MemberRecord, OutboxMessage, Status
from brokerkm.store.restored import DROP, marked
from brokerkm.transport import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from brokerkm.core.commit import Commit
    from brokerkm.core.crypto import Random
    from brokerkm.service.retained import Shown
    from brokerkm.store.protocol import Store
    from brokerkm.store.records import GroupRecord
    from brokerkm.transport import Transport

MARGIN: Final = 1 << 20  # epochs; the broker may have kept newer Beacons back: 12 days of a commit a second
_PAGE: Final = 1000  # members read at a time


class Recovery(NamedTuple):
    """What `recover` has done.

    Args:
        before: the store's epoch.
        broker: the epoch of the Beacon that the broker had; 0 if it had none.
        epoch: the group's epoch now.
        welcomed: members that get new keys as soon as the server runs.
        evicted: members that are out.
    """

    before: int
    broker: int
    epoch: int
    welcomed: int
    evicted: int


async def recover(
    store: Store,
    transport: Transport | None,
    name: str,
    *,
    evicted: Collection[str],
    actor: str,
    clock: Callable[[], float],
    random: Random,
    patience: float = 5.0,
    force: bool = False,
) -> Recovery:
    """Recover the group `name`, which no server may lead meanwhile: see `brokerkm.service.seizing`.

    Args:
        transport: not yet open, of the server's role; closed afterwards. None, with `force`, if there is no broker
            that could know anything.
        evicted: ids of those who were evicted after the backup was made, and of all who are not to come back.
        actor: for the audit log.
        clock: seconds since 1970.
        random: source of keys.
        patience: seconds in which the broker delivers a retained message that it has.
        force: also if the broker shows nothing newer than the store. A restored store, of which the broker has no
            Beacon, needs no force.

    Raises:
        UsageError: there is no such group, an id is none, nothing shows that the store is behind, or nobody is asked.
        StoreError: it cannot be read or written; nothing has changed.
        TransportError: the broker cannot be reached.
    """
    for member in evicted:
        check_identifier(member, "member")
    record = await asyncio.to_thread(store.group, name)
    if record is None:
        message = f"there is no group {name!r} in this store"
        raise UsageError(message)
    if transport is None and not force:
        message = f"group {name}: without force a broker has to be asked"
        raise UsageError(message)
    beacon = None if transport is None else await _newest(transport, record, patience)
    restored = await asyncio.to_thread(marked, store, name)
    unknown = restored is not None and (beacon is None or beacon.epoch != restored)
    if not (force or unknown) and (beacon is None or beacon.epoch <= record.epoch):
        shown = "no Beacon" if beacon is None else f"a Beacon of epoch {beacon.epoch}"
        message = (
            f"group {name}: the store is at epoch {record.epoch} and the broker has {shown} of it: nothing shows that "
            "the store is behind. To renew all keys all the same, add --force"
        )
        raise UsageError(message)
    return await asyncio.to_thread(
        lambda: _commit(store, record, beacon, evicted=frozenset(evicted), actor=actor, now=clock(), random=random)
    )


async def _newest(transport: Transport, record: GroupRecord, patience: float) -> Shown | None:
    """Return what the newest Beacon with the group's signature shows that the broker delivers in time."""
    topic = Topics(record.name, record.prefix).beacon
    key = load_signing_key(record.signing_seed).public_key().public_bytes_raw()
    newest: Shown | None = None

    async def listen() -> None:
        nonlocal newest
        async for item in transport.incoming():
            if isinstance(item, Delivery) and item.topic == topic and item.payload:
                try:
                    shown = read(item.payload, key, record.name)
                except RefusedError:
                    continue
                if newest is None or newest.epoch < shown.epoch:
                    newest = shown
                if item.retained:
                    return
        message = "the transport ended by itself before the broker could be asked: try again"
        raise TransportError(message)

    await transport.open()
    try:
        await transport.subscribe([topic])
        async with asyncio.timeout(patience):
            await listen()
    except TimeoutError:
        pass
    finally:
        await transport.close()
    return newest


def _commit(
    store: Store,
    record: GroupRecord,
    beacon: Shown | None,
    *,
    evicted: frozenset[str],
    actor: str,
    now: float,
    random: Random,
) -> Recovery:
    """Store the commit that recovers the group."""
    group = load_group(store, record)
    group.recover(max(record.epoch, beacon.epoch if beacon else 0) + MARGIN, beacon.time if beacon else 0)
    members: dict[str, MemberRecord] = {}
    for known in _seated(store, record.name):
        if known.member in evicted:
            group.evict(known.member)
        else:
            group.enroll(Enrollment(known.member, known.identity, known.kem_public, known.nonce))
            members[known.member] = replace(known, acked=0)
    welcomed = len(members)
    commit = group.prepare(now, random, write_on_all_cores)
    since = int(now * 1000)
    for member in sorted(evicted):
        out = store.member(record.name, member) or MemberRecord(member, Status.EVICTED, b"")
        gone = replace(out, status=Status.EVICTED, slot=None, kem_public=b"", nonce=b"", since=since, acked=0)
        members[member] = gone
    details = {"from": record.epoch, "epoch": commit.epoch, "welcomed": welcomed, "evicted": len(evicted)}
    audit = [AuditEntry(since, actor, "recover", record.name, details)]
    audit += [AuditEntry(since, actor, "evict", member, {"epoch": commit.epoch}) for member in sorted(evicted)]
    change = Change(
        keys=KeyChange(commit.epoch, commit.change.height, commit.change.pages(group.tree), jump=True),
        time=commit.change.time,
        members=[replace(member, epoch=commit.epoch) for member in members.values()],
        messages=list(_messages(record, commit)),
        dropped=DROP,
        audit=audit,
    )
    store.write(record.name, change)
    return Recovery(record.epoch, beacon.epoch if beacon else 0, commit.epoch, welcomed, len(evicted))


def _seated(store: Store, group: str) -> Iterator[MemberRecord]:
    after = ""
    while page := store.members(group, after=after, limit=_PAGE, status=Status.SEATED):
        yield from page
        after = page[-1].member


def _messages(record: GroupRecord, commit: Commit) -> Iterator[OutboxMessage]:
    """Yield what is to be published; there is no Rekey, for nobody holds a key that another could be wrapped by."""
    topics = Topics(record.name, record.prefix)
    for member, payload in (*commit.welcomes, *commit.goodbyes):
        yield OutboxMessage(topics.member(member), payload, member)
    yield OutboxMessage(topics.beacon, commit.beacon)

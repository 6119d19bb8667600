"""What a flood of requests that prove nothing costs the key server: Syncs and Joins, under one id or very many."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from brokerkm.bench.figure import Figure
from brokerkm.bench.row import best_of
from brokerkm.bench.server_requests import served
from brokerkm.bench.server_store import plant
from brokerkm.core.crypto import Suite, load_signing_key
from brokerkm.core.request import Asked, Join, Sync, TokenKey
from brokerkm.core.wire import NONCE_SIZE
from brokerkm.errors import RefusedError
from brokerkm.service.intake import MAX_WAITING
from brokerkm.service.limits import RequestLimits
from brokerkm.store.records import Change, MemberRecord, Status
from brokerkm.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from brokerkm.service.live import LiveGroup
    from brokerkm.service.requests import Requests

REFUSAL_SECONDS: Final = 50e-6
_FLOOD: Final = 50_000  # requests that come faster than any limit allows
_IDS: Final = 2_000  # members, and requests that are looked at
_NO_LIMIT: Final = (1e9, 1e9)
_UNLIMITED: Final = RequestLimits(member=_NO_LIMIT, spare=_NO_LIMIT, total=_NO_LIMIT, refusals=(0.0, 0.0))


def refusal_cost() -> list[Figure]:
    """Return what it costs to refuse a request whose proof does not hold, in a flood and each for itself."""
    with tempfile.TemporaryDirectory() as directory:
        path = plant(Path(directory), _IDS)
        identity = os.urandom(32)
        listed = _listed(path, load_signing_key(identity).public_key().public_bytes_raw())
        return asyncio.run(_flood(path, listed, identity))


def _listed(path: Path, identity: bytes) -> list[str]:
    """List ids under a device's public key, which everybody may know; return them."""
    names = [f"listed-{number}" for number in range(_IDS)]
    with contextlib.closing(SqliteStore(path)) as store:
        (record,) = store.groups()
        store.write(record.name, Change(members=[MemberRecord(name, Status.LISTED, identity) for name in names]))
    return names


async def _flood(path: Path, listed: list[str], identity: bytes) -> list[Figure]:
    seated = [f"device-{number:07d}" for number in range(_IDS)]
    strange = [f"nobody-{number}" for number in range(_IDS)]
    one = seated[:1] * _IDS
    async with served(path) as (group, requests):
        syncs, joins, shown = _syncs(group.name), _joins(group.name, strange), _shown(group.name, listed, identity)
        flood = await _cpu(group, requests, one * (_FLOOD // _IDS), syncs * (_FLOOD // _IDS))
        requests.limit(_UNLIMITED)
        costs = {
            "one that no rate limit kept off": await _cpu(group, requests, one, syncs),
            "one each for members not seen lately": await _cpu(group, requests, seated, syncs),
            "one each under ids that nobody has": await _cpu(group, requests, strange, syncs),
            "a Join each under ids that nobody has": await _cpu(group, requests, strange, joins),
        }
        signed = await _cpu(group, requests, listed, shown)
        _check_refused(requests)
        mac, signature = _bare(lambda: _macs(group.name, syncs)), _bare(lambda: _signatures(group.name, listed, shown))
    what = "decoding and one HMAC, bare"
    figures = [_figure("one of a flood of forged Syncs", flood, mac, what, REFUSAL_SECONDS)]
    figures += [_figure(name, cost, mac, what, REFUSAL_SECONDS) for name, cost in costs.items()]
    what = "decoding and one Ed25519 verification, bare"
    return [*figures, _figure("a Join each with a listed public key", signed, signature, what, None)]


def _figure(what: str, value: float, floor: float, floor_what: str, at_most: float | None) -> Figure:
    return Figure(
        case="flood",
        what=f"CPU for {what}",
        value=value,
        unit="s",
        floor=floor,
        floor_what=floor_what,
        at_most=at_most,
    )


def _asked(number: int) -> Asked:
    return Asked(os.urandom(NONCE_SIZE), int(time.time() * 1000) + number, 1)


def _syncs(group: str) -> list[bytes]:
    return [Sync.seal(os.urandom(32), group, "device-0000000", asked=_asked(one), epoch=1) for one in range(_IDS)]


def _joins(group: str, members: Sequence[str]) -> list[bytes]:
    """Return Joins with tokens that do not exist, as anybody can make them."""
    key, kem_public = load_signing_key(os.urandom(32)), os.urandom(Suite.X25519.public_size)
    return [
        Join.seal(
            key,
            group,
            member,
            kem_public,
            credential=TokenKey.from_secret(os.urandom(8), os.urandom(32)),
            asked=_asked(number),
        )
        for number, member in enumerate(members)
    ]


def _shown(group: str, members: Sequence[str], identity: bytes) -> list[bytes]:
    """Return Joins that show a public key which is on file, with a signature over something else."""
    key, kem_public = load_signing_key(identity), os.urandom(Suite.X25519.public_size)
    return [
        Join.seal(key, group, f"{member}-", kem_public, credential=None, asked=_asked(number))
        for number, member in enumerate(members)
    ]


async def _cpu(group: LiveGroup, requests: Requests, members: Sequence[str], payloads: Sequence[bytes]) -> float:
    """Return the CPU seconds of one request, all threads together."""
    began = time.process_time()
    for number, (member, payload) in enumerate(zip(members, payloads, strict=True)):
        requests.offer(group, member, payload)
        if number % MAX_WAITING == MAX_WAITING - 1:
            await requests.intake.drained()
    await requests.intake.drained()
    return (time.process_time() - began) / len(payloads)


def _check_refused(requests: Requests) -> None:
    """Check that every request was refused for what it was."""
    least = {"bad-mac": 2 * _IDS, "unknown-member": _IDS, "unknown-token": _IDS, "bad-signature": _IDS}
    for reason, count in least.items():
        if requests.refused[reason] < count:
            message = f"only {requests.refused[reason]} forged requests were refused as {reason}, not {count}"
            raise AssertionError(message)


def _bare(work: Callable[[], None]) -> float:
    return best_of(3, work)[0] / _IDS


def _macs(group: str, payloads: Sequence[bytes]) -> None:
    for payload in payloads:
        with contextlib.suppress(RefusedError):
            Sync.decode(payload).verify(bytes(32), group, "device-0000000")


def _signatures(group: str, members: Sequence[str], payloads: Sequence[bytes]) -> None:
    for member, payload in zip(members, payloads, strict=True):
        with contextlib.suppress(RefusedError):
            Join.decode(payload, Suite.X25519).verify_signature(group, member)

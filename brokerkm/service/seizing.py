"""Working on one group from outside of all servers: under its lease, so that no server leads it meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING

from brokerkm.clock import boot_time
from brokerkm.errors import StoreError, UsageError
from brokerkm.service.fencing import MARGIN, Tenure, fenced
from brokerkm.service.leadership import describe_server
from brokerkm.store.lease import PostgresLeases

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from brokerkm.store.postgres import PostgresStore
    from brokerkm.store.protocol import Store


@contextlib.asynccontextmanager
async def seized(store: PostgresStore, group: str, duration: float) -> AsyncGenerator[Store]:
    """Have the lease of `group`, and yield the store as whoever leads that group may use it.

    Args:
        duration: seconds of a lease; it is renewed.

    Raises:
        UsageError: there is no such group, or a server leads it.
        StoreError: the database cannot be reached.
    """
    leases, me = PostgresLeases(store.engine, duration), describe_server().id
    if await asyncio.to_thread(store.group, group) is None:
        message = f"there is no group {group!r} in this store"
        raise UsageError(message)
    lease = await asyncio.to_thread(leases.acquire, me, group)
    if lease is None:
        raise UsageError(await asyncio.to_thread(_refusal, leases, group))
    tenure = Tenure(lease.fence, lease.ends - MARGIN * duration)
    renewal = asyncio.get_running_loop().create_task(_renew(leases, me, group, tenure), name=f"lease of {group}")
    try:
        yield fenced(store, {group: tenure}, lambda _: None)
    finally:
        renewal.cancel()
        await asyncio.wait([renewal])
        # A server that had the lease and did not give it back may have messages under way. The next leader cuts off
        # from the broker whoever is not heard of, but only if a lease has run out.
        if not lease.former:
            with contextlib.suppress(StoreError):  # then it runs out
                await asyncio.to_thread(leases.release, me, group)


async def _renew(leases: PostgresLeases, me: str, group: str, tenure: Tenure) -> None:
    """Lengthen the lease until cancelled, or until somebody else has it."""
    while tenure.ends > -math.inf:
        await asyncio.sleep(leases.duration / 5)
        asked = boot_time()
        with contextlib.suppress(StoreError):  # the fence says so if it lasts
            kept = await asyncio.to_thread(leases.renew, me, [group])
            tenure.ends = asked + (1 - MARGIN) * leases.duration if kept else -math.inf


def _refusal(leases: PostgresLeases, group: str) -> str:
    """Say who has the lease."""
    standing = next((one for one in leases.standings() if one.group == group), None)
    if standing is None or standing.holder is None:
        return f"group {group}: a server has just tried to lead it: try again"
    found = next((one for one in leases.servers() if one.id == standing.holder), None)
    host = "" if found is None else f" on host {found.host}"
    return (
        f"group {group} is led by the server {standing.holder}{host}: stop that server first. If it is gone already, "
        f"its lease ends in {math.ceil(standing.remaining)} s"
    )

"""A key server that evicts and rotates for ever, to be killed: python doomed.py STATE BROKER_URL GROUP STEP COUNT.

With a step it kills itself, by SIGKILL, when it gets there for the COUNT-th time after it has begun; the step
"never" leaves that to others. Each epoch is printed when it is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from service.doomed_group import DOOMED

from brokerkm.service import STORE_FILE, KeyServer
from brokerkm.store import SqliteStore, Status
from brokerkm.store.database import SqliteEngine
from brokerkm.transport import Options, Role, create

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from brokerkm.store.database import SqliteSession
    from brokerkm.transport import Outgoing, Transport


class Trap:
    """Kills the process at a step."""

    def __init__(self, step: str, count: int) -> None:
        self.armed = False
        self._step, self._count = step, count

    def step(self, name: str) -> None:
        """Pass a step, or die there."""
        if self.armed and name == self._step:
            self._count -= 1
            if self._count == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def set(self, store: SqliteStore, transport: Transport) -> None:
        """Lay the trap at every step from a transaction's begin to the mark of what is published."""
        engine, publish_batch, mark_published = store._engine, transport.publish_batch, store.mark_published
        assert isinstance(engine, SqliteEngine)
        transaction = engine.transaction

        @contextlib.contextmanager
        def trapped() -> Generator[SqliteSession]:
            self.step("before BEGIN")
            with transaction() as session:
                self.step("after BEGIN")
                yield session
                self.step("before COMMIT")
            self.step("after COMMIT")

        async def publish(messages: Sequence[Outgoing]) -> None:
            self.step("before publishing")
            await publish_batch(messages[: len(messages) // 2])
            self.step("while publishing")
            await publish_batch(messages[len(messages) // 2 :])
            self.step("after publishing")

        def mark(group: str, sequence: int) -> None:
            self.step("before marking")
            mark_published(group, sequence)
            self.step("after marking")

        engine.transaction = trapped  # type: ignore[method-assign]
        transport.publish_batch = publish  # type: ignore[method-assign]
        store.mark_published = mark  # type: ignore[method-assign]


async def serve(state: Path, url: str, group: str, trap: Trap) -> None:
    """Serve until killed."""
    transport = create(url, Options(role=Role.SERVER, client_id="doomed"))
    with contextlib.closing(SqliteStore(state / STORE_FILE)) as store:
        trap.set(store, transport)
        async with KeyServer(store, transport, interval=0, broker=url) as server:
            print("serving", flush=True)  # noqa: T201 - the test waits for it
            doomed = [one.member for one in store.members(group, status=Status.SEATED, pattern=f"{DOOMED}*")]
            trap.armed = True
            while True:
                live = server.groups[group]
                stored = live.evict(doomed.pop(), urgent=True) if doomed else live.rotate(everything=False)
                epoch, _ = await stored
                print(epoch, flush=True)  # noqa: T201 - acknowledged


asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Trap(sys.argv[4], int(sys.argv[5]))))

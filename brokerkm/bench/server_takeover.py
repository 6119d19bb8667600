"""How long a group is without a leader when its server is killed: two real processes on a PostgreSQL of their own.

Run as a program, it is the server that is killed: python -m brokerkm.bench.server_takeover DATABASE_URL LEASE.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from brokerkm.bench.figure import Figure
from brokerkm.errors import UsageError
from brokerkm.service.feed import Happening, Kind
from brokerkm.service.leased import LeasedLeadership
from brokerkm.service.server import KeyServer
from brokerkm.store.postgres import PostgresStore

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

LEASE: Final = 2.0  # seconds
ROUNDS: Final = 5
_PATIENCE: Final = 30.0  # seconds
_STORE_KEY: Final = bytes(32)  # guards a database that lives for a benchmark
_OWNER: Final = "postgres"  # who runs it if we are root, which PostgreSQL refuses to be


def take_over() -> Iterator[Figure]:
    """Yield the worst and the median time from the kill of a leader until another server leads its group."""
    with _postgresql() as url:
        times = asyncio.run(_measure(url))
    for what, value in (("median", statistics.median(times)), ("worst", max(times))):
        yield Figure(
            case="takeover",
            what=f"{what} of {ROUNDS} kills: until another server leads",
            value=value,
            unit="s",
            floor=LEASE,
            floor_what=f"the lease of {LEASE:g} s, for which nobody may know better",
            at_most=2 * LEASE,
        )


async def _measure(url: str) -> list[float]:
    """Kill the leader again and again; return how long each take-over took."""
    times: list[float] = []
    store = await asyncio.to_thread(PostgresStore, url, _STORE_KEY, LEASE)
    try:
        for number in range(ROUNDS):
            group = f"group-{number}"
            victim = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "brokerkm.bench.server_takeover", url, str(LEASE), group),
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                assert victim.stdout is not None  # noqa: S101 - a pipe
                async with asyncio.timeout(_PATIENCE):
                    await victim.stdout.readline()
                times.append(await _succeed(store, group, victim))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    victim.kill()
                await victim.wait()
    finally:
        await asyncio.to_thread(store.close)
    return times


async def _succeed(store: PostgresStore, group: str, victim: asyncio.subprocess.Process) -> float:
    """Kill `victim` beside a server that then has to lead `group`."""
    led = asyncio.Event()

    def heard(happening: Happening) -> None:
        if happening.kind is Kind.LEAD and happening.group == group:
            led.set()

    server = KeyServer(store, leadership=LeasedLeadership(store, LEASE))
    server.feed.listen(heard)
    async with server:
        killed = time.monotonic()
        victim.kill()
        async with asyncio.timeout(_PATIENCE):
            await led.wait()
        return time.monotonic() - killed


async def _serve(url: str, lease: float, group: str) -> None:
    """Lead a new group until killed."""
    with contextlib.closing(PostgresStore(url, _STORE_KEY, lease)) as store:
        async with KeyServer(store, leadership=LeasedLeadership(store, lease)) as server:
            await server.admin.create_group(group)
            print("leading", flush=True)  # noqa: T201 - the benchmark waits for it
            await server.wait()


@contextlib.contextmanager
def _postgresql() -> Generator[str]:
    """Run a cluster in a temporary directory, reached by a socket in it; give the URL of a database."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        message = "the case takeover needs PostgreSQL's programs: apt-get install postgresql"
        raise UsageError(message)
    programs = found[-1].parent
    with tempfile.TemporaryDirectory(prefix="brokerkm-bench-") as path:
        if os.geteuid() == 0:
            shutil.chown(path, _OWNER)
        made = [str(programs / "initdb"), "-D", f"{path}/data", "-U", "brokerkm", "--auth", "trust"]
        subprocess.run(_as_owner(made), cwd=path, check=True, capture_output=True)  # noqa: S603 - PostgreSQL's own
        command = [str(programs / "postgres"), "-D", f"{path}/data", "-k", path, "-c", "listen_addresses="]
        process = subprocess.Popen(  # noqa: S603 - PostgreSQL's own
            _as_owner(command), cwd=path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _await_socket(Path(path) / ".s.PGSQL.5432")
            yield f"postgresql://brokerkm@/postgres?host={path}"
        finally:
            process.terminate()
            process.wait()


def _await_socket(path: Path) -> None:
    """Return when PostgreSQL takes connections; it tells nobody but its log."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(path))
            return
        time.sleep(0.05)
    message = f"PostgreSQL did not start within {_PATIENCE:g} s"
    raise UsageError(message)


def _as_owner(command: Sequence[str]) -> list[str]:
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", "--reuid", _OWNER, "--regid", _OWNER, "--init-groups", *command]


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], float(sys.argv[2]), sys.argv[3]))

"""What a broker waits for `brokerkm guard serve`, beside an empty handler of the same framework.

All three in processes of their own: the key server, the service, and who asks, one question after the other over one
connection, as each of RabbitMQ's workers does.

    python -m brokerkm.bench.server_guard keys DIRECTORY
    python -m brokerkm.bench.server_guard empty
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from brokerkm.bench.figure import Figure
from brokerkm.bench.server_store import plant
from brokerkm.core.names import Topics
from brokerkm.service.local import CONTROL_SOCKET
from brokerkm.service.server import KeyServer
from brokerkm.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

LIMIT: Final = 2e-3  # seconds, at the 99th percentile
_PATH: Final = "/rabbitmq/topic"
_PATIENCE: Final = 30.0  # seconds until a process serves


def authorize(members: int) -> list[Figure]:
    """Return what questions about `members` cost that are asked for the first time, and again."""
    with tempfile.TemporaryDirectory() as directory:
        path = plant(Path(directory), members)
        with contextlib.closing(SqliteStore(path)) as store:
            group = store.groups()[0]
        topics = Topics(group.name, group.prefix)
        names = [f"device-{slot:07d}" for slot in range(members)]
        questions = [
            urllib.parse.urlencode(
                {
                    "username": f"{group.name}:{name}",
                    "vhost": "/",
                    "resource": "topic",
                    "name": "amq.topic",
                    "permission": "write",
                    "routing_key": topics.request(name).replace("/", "."),
                }
            ).encode()
            for name in names
        ]
        module = (sys.executable, "-m", "brokerkm.bench.server_guard")
        service = (sys.executable, "-m", "brokerkm", "guard", "serve", "--listen", "127.0.0.1:0", "--state", directory)
        with _started(*module, "keys", directory), _started(*module, "empty") as bare, _started(*service) as asked:
            _times(asked, questions[:1], time.monotonic() + _PATIENCE)
            first = _times(asked, questions)
            floor = _times(bare, questions)
            again = _times(asked, questions)
    return [
        Figure(
            case="guard",
            what=f"{what} about one of {members:,} members, {share}",
            value=_at(times, part),
            unit="s",
            floor=_at(floor, part),
            floor_what="an empty handler of the same framework",
            at_most=LIMIT if limited else None,
        )
        for what, times, limited in (("first question", first, False), ("question", again, True))
        for share, part in (("median", 0.5), ("99 %", 0.99))
    ]


def _at(times: Sequence[float], part: float) -> float:
    return sorted(times)[int(len(times) * part)]


def _times(url: str, questions: Sequence[bytes], until: float = 0.0) -> list[float]:
    """Return how long each answer took.

    Args:
        until: go on asking a question that is denied up to this time.
    """
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE)
    headers = {"content-type": "application/x-www-form-urlencoded"}
    times: list[float] = []
    for question in questions:
        while True:
            began = time.perf_counter()
            connection.request("POST", _PATH, question, headers)
            answer = connection.getresponse().read()
            times.append(time.perf_counter() - began)
            if answer == b"allow" or time.monotonic() > until:
                break
        if answer != b"allow":
            message = f"the service at {url} says {answer[:80]!r}"
            raise RuntimeError(message)
    connection.close()
    return times


@contextlib.contextmanager
def _started(*command: str) -> Generator[str]:
    """Run a process; give the URL in its first line, if there is one."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ourselves
        try:
            assert process.stdout is not None  # noqa: S101 - a pipe
            words = process.stdout.readline().split()
            yield next((word.rstrip(".") for word in words if word.startswith("http://")), "")
        finally:
            process.terminate()


async def _keys(directory: str) -> None:
    """Serve the groups of a planted store, to administrators alone."""
    from brokerkm.api import ApiServer  # noqa: PLC0415 - for this process only

    with contextlib.closing(SqliteStore(Path(directory) / "brokerkm.sqlite")) as store:
        async with KeyServer(store) as server, ApiServer(server, Path(directory) / CONTROL_SOCKET):
            print("serving", flush=True)  # noqa: T201 - the benchmark waits for it
            await server.wait()


async def _empty() -> None:
    """Say yes to everything."""
    from litestar import Litestar, Request, Response, post  # noqa: PLC0415 - for this process only

    from brokerkm.guard.authorizer.listener import Listener  # noqa: PLC0415

    @post(_PATH, status_code=200)
    async def handle(request: Request[Any, Any, Any]) -> Response[bytes]:
        await request.body()
        return Response(b"allow", media_type="text/plain")

    handle.fn.__globals__.update(Request=Request, Response=Response)  # Litestar reads the annotations as text
    async with Listener(Litestar([handle], openapi_config=None, logging_config=None), "127.0.0.1", 0) as listener:
        print(listener.url, flush=True)  # noqa: T201 - the benchmark reads it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_keys(sys.argv[2]) if sys.argv[1] == "keys" else _empty())

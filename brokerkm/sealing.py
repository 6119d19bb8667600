"""Makes Welcomes on all cores: HPKE for each of 100,000 members takes one core long enough to be noticed.

Each worker is a process of its own, `python -m brokerkm.sealing`, which reads shares from standard input and writes
the Welcomes to standard output. What it reads is secret: it goes through pipes only, never into arguments,
files or logs. Workers are started when they are worth it and kept for a while, because imports come in many parts.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any, Final, cast

import msgpack

from brokerkm.core.welcome import NodeKey
from brokerkm.core.welcoming import Batch, Job, write_each
from brokerkm.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_log = logging.getLogger(__name__)

WORTHWHILE: Final = 2048  # Welcomes within `IDLE` for which workers are started: 0.2 s of one core, as a worker's start
FEW: Final = 128  # Welcomes at once that one core does in 10 ms; handing them on gains nothing
SHARE: Final = 256  # Welcomes that a worker gets at a time: 20 ms of work, 130 KB
IDLE: Final = 10.0  # seconds without work after which the workers go
_LENGTH: Final = struct.Struct(">I")


def write_on_all_cores(batch: Batch, jobs: Iterable[Job]) -> Iterator[bytes]:
    """Yield what `write_each` does, in a fraction of the time if there are many and more than one core.

    What is to be made is taken as the workers get to it, so that its caller prepares it meanwhile.

    Raises:
        RefusedError: a KEM public key cannot be used.
    """
    waiting = iter(jobs)
    first = list(itertools.islice(waiting, WORTHWHILE))
    if len(first) < FEW or (os.cpu_count() or 1) == 1 or not WORKERS.are_wanted(len(first)):
        return iter(list(write_each(batch, itertools.chain(first, waiting))))
    return WORKERS.write(batch, itertools.chain(first, waiting))


class _Worker:
    """A process that makes Welcomes."""

    def __init__(self) -> None:
        self.process: Final = subprocess.Popen(  # noqa: S603 - this very module
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def write(self, batch: Batch, share: Sequence[Job]) -> list[bytes] | None:
        """Return what it makes of a share, None if a key in it cannot be used.

        Raises:
            OSError, ValueError, msgpack.UnpackException: it is gone, or what it says makes no sense.
        """
        _write(cast("IO[bytes]", self.process.stdin), (batch, share))
        written: list[bytes] | None = msgpack.unpackb(_read(cast("IO[bytes]", self.process.stdout)))
        return written

    def stop(self) -> None:
        """Let it end."""
        with contextlib.suppress(OSError):  # what it did not read is of no use any more
            self.process.communicate()


class Workers:
    """The workers of this process; those who want Welcomes share them."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._free: list[_Worker] = []
        self._users = 0
        self._demand = 0
        self._asked = 0.0
        self._timer: threading.Timer | None = None

    @property
    def running(self) -> tuple[subprocess.Popen[bytes], ...]:
        """The processes that wait for work."""
        with self._lock:
            return tuple(worker.process for worker in self._free)

    def are_wanted(self, count: int) -> bool:
        """Return whether there are workers, or `count` Welcomes more make it worth while to start some."""
        with self._lock:
            now = time.monotonic()
            if now - self._asked > IDLE:
                self._demand = 0
            self._asked, self._demand = now, self._demand + count
            return bool(self._free or self._users) or self._demand >= WORTHWHILE

    def write(self, batch: Batch, jobs: Iterable[Job]) -> Iterator[bytes]:
        """Yield all Welcomes, in order; as many shares as keep the workers busy are under way."""
        cores, shares = os.cpu_count() or 1, iter(jobs)
        under_way: deque[Future[list[bytes]]] = deque()
        self._enter()
        try:
            with ThreadPoolExecutor(cores) as threads:  # each waits for its worker
                while share := list(itertools.islice(shares, SHARE)):
                    under_way.append(threads.submit(self._do, batch, share))
                    if len(under_way) > 2 * cores:
                        yield from under_way.popleft().result()
                for done in under_way:
                    yield from done.result()
        finally:
            self._leave()

    def _do(self, batch: Batch, share: Sequence[Job]) -> list[bytes]:
        """Return what a worker has made; if it fails, for whatever reason, what this process does."""
        try:
            with self._lock:
                worker = self._free.pop() if self._free else None
            worker = worker or _Worker()
            try:
                written = worker.write(batch, share)
            except (OSError, ValueError, msgpack.UnpackException):
                worker.stop()
                raise
        except (OSError, ValueError, msgpack.UnpackException) as error:
            _log.warning("a worker that makes Welcomes failed, this process does its share: %s", type(error).__name__)
            return list(write_each(batch, share))
        with self._lock:
            self._free.append(worker)
        return (
            list(write_each(batch, share)) if written is None else written
        )  # the former says what is wrong with the key

    def _enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._timer is not None:
                self._timer.cancel()

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._timer = threading.Timer(IDLE, self.close)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Let all workers end, unless they are in use again."""
        with self._lock:
            if self._users:
                return
            free, self._free = self._free, []
            if self._timer is not None:
                self._timer.cancel()
        for worker in free:
            worker.stop()


WORKERS: Final = Workers()
atexit.register(WORKERS.close)


def _write(sink: IO[bytes], value: object) -> None:
    body = msgpack.packb(value)
    sink.write(_LENGTH.pack(len(body)) + body)
    sink.flush()


def _read(source: IO[bytes]) -> bytes:
    """Return what the other side wrote; nothing if it has ended. Raises `ValueError` if it ended too soon."""
    head = source.read(_LENGTH.size)
    if not head:
        return b""
    (size,) = _LENGTH.unpack(head.ljust(_LENGTH.size, b"\xff"))
    body = source.read(size)
    if len(body) != size:
        message = "the other side ended too soon"
        raise ValueError(message)
    return body


def work(source: IO[bytes], sink: IO[bytes]) -> None:
    """Write the Welcomes of the shares in `source` to `sink`; nil for a share in which a key cannot be used."""
    while body := _read(source):
        batch, share = msgpack.unpackb(body, use_list=False)
        try:
            written = list(write_each(Batch(*batch), map(_job, share)))
        except RefusedError:
            written = None
        _write(sink, written)


def _job(fields: tuple[Any, ...]) -> Job:
    member, kem_public, nonce, identity, slot, leaf, path, spares = fields
    inner = tuple(NodeKey(*node) for node in path)
    return Job(member, kem_public, nonce, identity, slot, NodeKey(*leaf), inner, spares)


if __name__ == "__main__":
    with contextlib.suppress(OSError, KeyboardInterrupt):  # whoever wanted it is gone
        work(sys.stdin.buffer, sys.stdout.buffer)

"""Seals Welcomes on all cores: HPKE for each of 100,000 members takes one core long enough to be noticed.

Each worker is a process of its own, `python -m brokerkm.sealing`, which reads its share from standard input and writes
what it has sealed to standard output. What it reads is secret: it goes through pipes only, never into arguments,
files or logs.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, Final

import msgpack

from brokerkm.core.crypto import Suite
from brokerkm.core.welcome import Sealing, seal_each
from brokerkm.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger(__name__)

WORTHWHILE: Final = 16_384  # sealings; 1.1 s for one core. Two quiet cores do it 1.2 to 1.6 times as fast; fewer lose


def seal_on_all_cores(suite: Suite, sealings: Sequence[Sealing]) -> list[bytes]:
    """Return what `seal_each` does, in a fraction of the time if there are many and more than one core.

    Raises:
        RefusedError: a KEM public key cannot be used.
    """
    cores = os.cpu_count() or 1
    if len(sealings) < WORTHWHILE or cores == 1:
        return seal_each(suite, sealings)
    size = -(-len(sealings) // cores)
    shares = [sealings[at : at + size] for at in range(0, len(sealings), size)]
    with ThreadPoolExecutor(len(shares)) as threads:  # each waits for its process
        return list(itertools.chain.from_iterable(threads.map(functools.partial(_by_worker, suite), shares)))


def _by_worker(suite: Suite, share: Sequence[Sealing]) -> list[bytes]:
    """Return what a worker has sealed; if it fails, for whatever reason, what this process does."""
    try:
        done = subprocess.run(  # noqa: S603 - this very module
            [sys.executable, "-m", __name__],
            input=msgpack.packb((int(suite), share)),
            stdout=subprocess.PIPE,
            check=True,
        )
        sealed: list[bytes] = msgpack.unpackb(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError, msgpack.UnpackException) as error:
        _log.warning("a worker that seals Welcomes failed, this process does its share: %s", type(error).__name__)
        return seal_each(suite, share)
    return sealed


def work(source: BinaryIO, sink: BinaryIO) -> int:
    """Seal what `source` says into `sink`; return the exit status."""
    suite, share = msgpack.unpackb(source.read())
    try:
        sealed = seal_each(Suite(suite), [Sealing(*one) for one in share])
    except RefusedError:
        return 1  # the other side finds out which
    sink.write(msgpack.packb(sealed))
    return 0


if __name__ == "__main__":
    sys.exit(work(sys.stdin.buffer, sys.stdout.buffer))

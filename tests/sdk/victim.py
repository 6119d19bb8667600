"""A process that tests kill: victim.py hold DIRECTORY | write DIRECTORY | member DESCRIPTOR DIRECTORY."""

import asyncio
import itertools
import sys
import time
from pathlib import Path

import brokerkm
from brokerkm.sdk.state import StateDirectory


def hold(path: str) -> None:
    """Hold the directory for ever."""
    StateDirectory(Path(path)).open()
    ready()
    time.sleep(3600)


def write(path: str) -> None:
    """Write states of different sizes, each of one repeated byte."""
    directory = StateDirectory(Path(path))
    directory.open()
    directory.write(b"\1" * 1000)
    ready()
    for value in itertools.cycle(range(1, 256)):
        directory.write(bytes([value]) * (1000 * value))


async def member(descriptor: str, path: str) -> None:
    """Send as fast as it goes."""
    async with brokerkm.connect(None, descriptor, member="pump", state_dir=path) as fleet:
        ready()
        while True:
            await fleet.publish("a", b"x")


def ready() -> None:
    """Tell the test."""
    print("ready", flush=True)  # noqa: T201 - the test waits for it


match sys.argv[1:]:
    case ["hold", path]:
        hold(path)
    case ["write", path]:
        write(path)
    case ["member", descriptor, path]:
        asyncio.run(member(descriptor, path))

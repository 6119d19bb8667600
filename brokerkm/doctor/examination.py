"""The whole examination, in the order in which one trouble causes the next.

What fails does not keep the rest from being looked at.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

from brokerkm.config import elsewhere, in_unit, missing
from brokerkm.config.stores import database_url, is_shared, sqlite_path
from brokerkm.doctor import broker, machine, storage
from brokerkm.doctor.finding import Finding, fail, ok, warn
from brokerkm.errors import BrokerkmError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from brokerkm.config import Configuration
    from brokerkm.transport import Options

_OTHERS: Final = 0o077
_NEEDED: Final = {
    "store.key": "the store key",
    "store.next_key": "the next store key",
    "store.password": "the database",
    "broker.password": "the broker",
}
"""Secrets, and what is looked at by them."""


async def examine(
    configuration: Configuration, state: Path, options: Options, again: str = "doctor"
) -> AsyncIterator[Finding]:
    """Yield one finding after the other.

    Args:
        state: the server's directory.
        options: of the server's connection to its broker.
        again: the arguments with which `brokerkm` does this, to be advised.
    """
    for finding in _references(configuration, again):
        yield finding
    for finding in machine.look():
        yield finding
    for finding in _store(configuration, state):
        yield finding
    running = False
    async for finding in _server(state):
        running |= finding.check == "server" and "answers" in finding.text
        yield finding
    url = configuration.broker.url
    if not url:
        yield ok("broker", "the server brings its own, which only this machine reaches: for trying things out")
    elif "broker.password" in elsewhere(configuration) and options.password is None:
        return
    elif url.startswith("zmq") and running:
        yield ok("broker", "the running server is the ZeroMQ hub itself: members know best whether they reach it")
    else:
        async for finding in broker.look(url, options, configuration.defaults.prefix):
            yield finding


def _references(configuration: Configuration, again: str) -> Iterator[Finding]:
    problems = list(missing(configuration))
    for problem in problems:
        yield fail("configuration", f"{problem}", "correct it; `brokerkm config check` looks at this alone")
    if not problems:
        yield ok("configuration", "it can be used, and what it refers to is there")
    if unseen := elsewhere(configuration):
        left = ", ".join(what for key, what in _NEEDED.items() if key in unseen)
        text = f"systemd gives {' and '.join(unseen)} to the unit alone, so that this is not looked at here: {left}"
        yield warn("credentials", text, f"look at it as the unit would: {in_unit(configuration, again)}")


def _store(configuration: Configuration, state: Path) -> Iterator[Finding]:
    yield from storage.look_at_directory(state)
    unseen = elsewhere(configuration)
    if is_shared(configuration) and "store.password" in unseen:
        pass
    elif is_shared(configuration):
        try:
            yield from storage.look_at_database(database_url(configuration))
        except UsageError as error:
            yield fail("store", f"{error}", "see to it that the password can be read")
    else:
        yield from storage.look_at_file(sqlite_path(configuration, state))
    reference = configuration.store.key
    if "store.key" in unseen:
        return
    if reference is not None:
        yield storage.look_at_key(reference.spec, state)
    elif not is_shared(configuration) and sqlite_path(configuration, state).exists():
        yield storage.look_at_key("file:store.key", sqlite_path(configuration, state).parent)


async def _server(state: Path) -> AsyncIterator[Finding]:
    """Yield whether a server answers on the control socket."""
    from brokerkm.api import RemoteAdmin  # noqa: PLC0415 - not for --help
    from brokerkm.service.local import CONTROL_SOCKET  # noqa: PLC0415

    path = state / CONTROL_SOCKET
    if not path.exists():
        yield ok("server", "no server runs on this state directory")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        yield fail("server", f"others may connect to {path} (mode {mode:o})", f"chmod 600 {path}")
    try:
        admin = await RemoteAdmin.connect(path)
        groups = await admin.list_groups()
    except BrokerkmError as error:
        yield warn(
            "server", f"{path} is there, but no server answers: {error}", "start it; a new one replaces the socket"
        )
        return
    await admin.close()
    yield ok("server", f"it answers at {path}, with {len(groups)} {'group' if len(groups) == 1 else 'groups'}")
    for info in groups:
        if info.problem:
            yield fail("group", f"{info.name} is not served: {info.problem}", "see what is said there; others go on")
    waiting = [info.name for info in groups if info.unpublished]
    if waiting:
        yield warn(
            "server", f"messages of {', '.join(waiting[:5])} wait for the broker", "see what is found of the broker"
        )

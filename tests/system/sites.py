"""Where a fleet meets: Mosquitto as shipped, or the ZeroMQ hub in the server's process; both know who may read what."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
from typing import TYPE_CHECKING

from brokers import hub, mqtt

from brokerkm.transport import Options
from brokerkm_zmq import keys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator
    from pathlib import Path

KEY_SERVER = "keyserver"


@dataclasses.dataclass(frozen=True)
class Site:
    """A broker.

    Args:
        url: as devices reach it.
        arguments: for ``brokerkm serve``.
        options: how the member of this name connects.
        eavesdropper: how somebody connects who may read everything.
        restart: ends the broker by a signal and starts it again; None if it lives and dies with the key server.
    """

    url: str
    arguments: list[str]
    options: Callable[[str], Options]
    eavesdropper: Options
    restart: Callable[[signal.Signals], Awaitable[None]] | None = None


@contextlib.contextmanager
def mosquitto(directory: Path, names: Collection[str]) -> Iterator[Site]:
    """Give Mosquitto as `deploy/` ships it under Debian's own configuration, with a password for every member."""
    password = directory / "password"
    password.write_text(KEY_SERVER)
    users = {name: name for name in (*names, KEY_SERVER)}
    with mqtt.guarded_mosquitto(users, persistent=True) as broker:

        def restart(how: signal.Signals) -> None:
            if how is signal.SIGKILL:
                broker.process.kill()
            else:
                broker.process.stop()
            broker.process.start()

        yield Site(
            broker.url,
            ["--broker", broker.url, "--username", KEY_SERVER, "--password-file", str(password)],
            lambda name: Options(username=name, password=name),
            Options(username=KEY_SERVER, password=KEY_SERVER),
            lambda how: asyncio.to_thread(restart, how),
        )


@contextlib.contextmanager
def zeromq(directory: Path, names: Collection[str]) -> Iterator[Site]:
    """Give a hub that knows every member by its CURVE key."""
    url = hub.tcp_url()
    pinned, listed = directory / "hub.pub", directory / "members"
    pinned.write_text(keys.make_key_file(str(directory / "hub.key")).public)

    def key_file(name: str) -> str:
        return str(directory / f"{name}.key")

    ids = {name: name for name in names} | {"witness": keys.FORWARDER}
    lines = [f"{keys.make_key_file(key_file(name)).public} {member}\n" for name, member in ids.items()]
    listed.write_text("".join(lines))

    def options(name: str) -> Options:
        return Options(ca_file=str(pinned), key_file=key_file(name))

    arguments = ["--broker", f"{url}?members={listed}", "--key-file", key_file("hub")]
    yield Site(url, arguments, options, options("witness"))

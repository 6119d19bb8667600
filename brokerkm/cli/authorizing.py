"""The authorisation service of `brokerkm guard serve`: put together, run, taken apart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
import sys
from typing import TYPE_CHECKING

import click

from brokerkm.cli.administration import named_target
from brokerkm.cli.lazy import WrongError
from brokerkm.cli.notification import notify
from brokerkm.config import address
from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.api.connection import Local, Remote


def authorize(state: Path, listen: str, tls: tuple[str | None, str | None], *, applicants: bool, verbose: bool) -> None:
    """Serve until it is interrupted.

    Args:
        state: the key server's directory, if no URL was named.
        listen: HOST:PORT.
        tls: certificate and key; both or neither.
    """
    from brokerkm.api.connection import Local  # noqa: PLC0415 - not for --help
    from brokerkm.service.local import CONTROL_SOCKET  # noqa: PLC0415

    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    context = _context(*tls)
    target: Local | Remote = named_target() or Local(state / CONTROL_SOCKET)
    place = address.parse(listen)
    if context is None and not place.is_loopback:
        click.echo("warning: other machines ask in the clear; give --tls-cert and --tls-key", err=True)
    asyncio.run(_serve(target, place, context, applicants=applicants))


def _context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        message = "--tls-cert and --tls-key go together"
        raise WrongError(message)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        message = f"{certificate}, {key}: {error}"
        raise UsageError(message) from error
    return context


async def _serve(
    target: Local | Remote, place: address.Address, context: ssl.SSLContext | None, *, applicants: bool
) -> None:
    from brokerkm.api.client import RemoteAdmin  # noqa: PLC0415 - not for --help
    from brokerkm.api.fleet import RemoteFleet  # noqa: PLC0415
    from brokerkm.guard.authority import Authority  # noqa: PLC0415
    from brokerkm.guard.authorizer.app import make_app  # noqa: PLC0415
    from brokerkm.guard.authorizer.judge import Judge  # noqa: PLC0415
    from brokerkm.guard.authorizer.listener import Listener  # noqa: PLC0415

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    fleet = RemoteFleet(lambda: RemoteAdmin.reach(target))
    following = asyncio.create_task(fleet.run(), name="what the key server tells")
    try:
        app = make_app(Judge(Authority(fleet, applicants=applicants)))
        async with Listener(app, place.host, place.port, context) as listener:
            click.echo(f"brokers may ask at {listener.url}. Stop it with Ctrl-C.")
            notify("READY=1")
            await stop.wait()
            notify("STOPPING=1")
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        await fleet.close()

"""Everything that `brokerkm serve` runs, put together by the configuration and taken apart in the opposite order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import urllib.parse
from typing import TYPE_CHECKING, NamedTuple

from brokerkm.cli.occupying import occupied
from brokerkm.cli.reloading import Reloading, api_rates, request_limits, tls_listener
from brokerkm.config import address
from brokerkm.config.stores import open_store
from brokerkm.errors import UsageError
from brokerkm.sdk.dial import asking_for_identity

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from brokerkm.config import Configuration
    from brokerkm.guard.fleet import Fleet
    from brokerkm.guard.seam import BrokerGuard
    from brokerkm.service import KeyServer
    from brokerkm.service.leased import LeasedLeadership
    from brokerkm.store.sql import SqlStore
    from brokerkm.telemetry.logs import Logs
    from brokerkm.transport import Options


class Hosted(NamedTuple):
    """What runs.

    Args:
        url: of the broker, without a login.
        metrics, api: where they are, for other machines; or empty.
    """

    server: KeyServer
    url: str
    metrics: str
    api: str
    reloading: Reloading


@contextlib.asynccontextmanager
async def hosted(
    configuration: Configuration, state: Path, options: Options, logs: Logs, load: Callable[[], Configuration]
) -> AsyncGenerator[Hosted]:
    """Run the key server with its broker, its API and its metrics.

    Args:
        options: of the connection to the broker.
        load: reads the configuration again, at SIGHUP.
    """
    from brokerkm.api import ApiServer  # noqa: PLC0415 - not for --help
    from brokerkm.automation import Automation  # noqa: PLC0415
    from brokerkm.config.terms import terms  # noqa: PLC0415
    from brokerkm.service import KeyServer  # noqa: PLC0415
    from brokerkm.service.guarded import guarding  # noqa: PLC0415
    from brokerkm.service.local import CONTROL_SOCKET  # noqa: PLC0415
    from brokerkm.transport import create  # noqa: PLC0415

    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(occupied(state))
        store = stack.enter_context(contextlib.closing(open_store(configuration, state)))
        leadership = _leadership(configuration, store)
        if leadership is not None:  # by this name the next leader of its groups ends its connection
            options = dataclasses.replace(options, client_id=leadership.me.id)
        site = await _site(configuration, options, stack)
        if site.options.password is not None:
            logs.redaction.hide([site.options.password])
        transport = create(site.url, site.options)
        server = KeyServer(
            store,
            transport,
            interval=configuration.defaults.interval,
            max_pending=configuration.defaults.max_pending,
            terms=terms(configuration.defaults),
            broker=site.device_url,
            leadership=leadership,
        )
        if server.requests is not None:
            server.requests.limit(request_limits(configuration.limits))
        if site.guard is not None:
            await stack.enter_async_context(guarding(server, site.guard))
        metrics = await _telemetry(configuration, server, stack)
        await stack.enter_async_context(server)
        automation = await stack.enter_async_context(Automation(server))
        tls, limits = tls_listener(configuration.api), api_rates(configuration.api)
        api = ApiServer(server, state / CONTROL_SOCKET, tls=tls, limits=limits, automation=automation)
        await stack.enter_async_context(api)
        reloading = Reloading(configuration, load, server=server, transport=transport, api=api, logs=logs)
        where = "" if tls is None else f"https://{address.parse(configuration.api.listen)._replace(port=api.port)}"
        yield Hosted(server, _without_login(site.url), metrics, where, reloading)


def _leadership(configuration: Configuration, store: SqlStore) -> LeasedLeadership | None:
    """Return how groups are shared with other servers, if the store is one that they can share."""
    from brokerkm.store.postgres import PostgresStore  # noqa: PLC0415 - not for --help

    if not isinstance(store, PostgresStore):
        return None
    from brokerkm.service.leadership import describe_server  # noqa: PLC0415
    from brokerkm.service.leased import LeasedLeadership  # noqa: PLC0415 - it needs psycopg

    return LeasedLeadership(store, configuration.cluster.lease, describe_server(configuration.cluster.advertise))


class _Site(NamedTuple):
    """The broker to serve at.

    Args:
        options: how the key server connects.
        device_url: what devices are told, without the key server's login.
        guard: makes its guard, not yet open, if it has one.
    """

    url: str
    options: Options
    device_url: str
    guard: Callable[[Fleet], BrokerGuard] | None


async def _site(configuration: Configuration, options: Options, stack: contextlib.AsyncExitStack) -> _Site:
    """Return the broker that is named, or else the one that runs in this process from now on."""
    if configuration.broker.url:
        return _named(configuration, options)
    if configuration.guard.kind:
        message = f"[guard] kind {configuration.guard.kind!r} is for a broker of yours: name it by [broker] url"
        raise UsageError(message)
    from brokerkm.embedded import embedded_broker  # noqa: PLC0415 - not for --help

    broker = await stack.enter_async_context(embedded_broker(configuration.broker.port))
    username, password = broker.login
    options = dataclasses.replace(options, username=username, password=password)
    device_url = asking_for_identity(configuration.broker.device_url or broker.url)
    applicants = {"applicants": _flag(configuration.guard.applicants)}

    def guard(fleet: Fleet) -> BrokerGuard:
        return broker.guard(fleet, applicants)

    return _Site(broker.url, options, device_url, guard)


def _named(configuration: Configuration, options: Options) -> _Site:
    url, chosen = configuration.broker.url, configuration.guard
    device_url = configuration.broker.device_url or _without_login(url)
    if not chosen.kind:
        return _Site(url, options, device_url, None)
    from brokerkm.guard import seam  # noqa: PLC0415 - for who has a guard

    password = options.password if chosen.password is None else chosen.password.read()
    given = {
        "applicants": _flag(chosen.applicants),
        "url": chosen.url or url,
        "username": chosen.username or options.username,
        "password": password,
        "ca_file": options.ca_file,
        "cert_file": options.cert_file,
        "key_file": options.key_file,
        "timeout": f"{options.timeout}",
        "server": options.username,
    }
    known = {name: value for name, value in given.items() if value}
    kind = seam.find(chosen.kind)
    if kind.by_identity:
        device_url = asking_for_identity(device_url)

    def guard(fleet: Fleet) -> BrokerGuard:
        return kind(fleet, known)

    return _Site(url, options, device_url, guard)


def _flag(value: bool) -> str:  # noqa: FBT001 - it is what the function is about
    return "true" if value else "false"


async def _telemetry(configuration: Configuration, server: KeyServer, stack: contextlib.AsyncExitStack) -> str:
    """Start what shows the server, before the server itself; return the URL of the metrics, or nothing."""
    chosen = configuration.telemetry
    if chosen.otel_endpoint:
        from brokerkm.telemetry.tracing import Tracing  # noqa: PLC0415 - OpenTelemetry, for who wants it

        stack.enter_context(Tracing(server.feed, chosen.otel_endpoint))
    if not chosen.listen:
        return ""
    try:
        from brokerkm.telemetry.gauges import Gauges  # noqa: PLC0415 - prometheus-client, for who wants it
        from brokerkm.telemetry.metrics import CONTENT_TYPE, Metrics  # noqa: PLC0415
    except ImportError as error:
        message = f"metrics need more packages ({error.name}): pip install 'brokerkm[server]'"
        raise UsageError(message) from error
    from brokerkm.telemetry import health  # noqa: PLC0415
    from brokerkm.telemetry.listener import Answer, Listener  # noqa: PLC0415

    watch = health.LoopWatch()
    metrics = Metrics(chosen.max_groups)
    gauges = Gauges(server, metrics, watch)
    server.desk.timed = metrics.timed
    stack.callback(metrics.listen(server.feed))
    task = asyncio.get_running_loop().create_task(watch.run(), name="watch of the event loop")
    stack.callback(task.cancel)

    async def text() -> Answer:
        return Answer(await gauges.text(), CONTENT_TYPE)

    async def alive() -> Answer:
        return Answer.of_check(*health.alive(watch))

    async def ready() -> Answer:
        return Answer.of_check(*health.ready(server))

    place = address.parse(chosen.listen)
    paths = {"/metrics": text, "/healthz": alive, "/readyz": ready}
    listener = await stack.enter_async_context(Listener(place, paths))
    return f"http://{place._replace(port=listener.port)}/metrics"


def broker_options(configuration: Configuration, given: Options) -> Options:
    """Return how to connect: as the command line says, and where it says nothing, as the configuration does."""
    broker = configuration.broker
    password = given.password
    if password is None and broker.password is not None:
        password = broker.password.read()

    def path(here: str | None, there: Path | None) -> str | None:
        return here if here is not None or there is None else str(there)

    return dataclasses.replace(
        given,
        username=given.username or broker.username or None,
        password=password,
        ca_file=path(given.ca_file, broker.ca_file),
        cert_file=path(given.cert_file, broker.cert_file),
        key_file=path(given.key_file, broker.key_file),
        keepalive=broker.keepalive,
        timeout=broker.timeout,
    )


def _without_login(url: str) -> str:
    """Return a URL to show and to hand to devices: the server's user name and password are its own."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

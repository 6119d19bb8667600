"""`brokerkm group`: create, list, show, set, rotate, freeze, thaw, hand over, move, destroy."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from brokerkm.cli.administration import administer, describe, resolve_group, server_options
from brokerkm.cli.lazy import FailedError
from brokerkm.cli.output import json_option, print_fields, print_json, print_table
from brokerkm.cli.recovering import recover
from brokerkm.cli.servers import move

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from brokerkm.service import AdminApi, GroupInfo, Outcome

_SUITES: Final = ("x25519", "mlkem768-x25519")
_ALGORITHMS: Final = ("aes-256-gcm", "chacha20-poly1305")
_F = TypeVar("_F", bound="Callable[..., object]")
_MAX: Final = 0xFFFFFFFF  # seconds; a Beacon has no room for more

_SETTINGS: Final[dict[str, Any]] = {
    "interval": click.option(
        "--interval", type=click.FloatRange(0, 3600), help="Seconds that changes wait to be made together."
    ),
    "max_pending": click.option("--max-pending", type=click.IntRange(1, 1_000_000), help="How many wait at most."),
    "root_period": click.option(
        "--root-period", type=click.IntRange(0, _MAX), help="Seconds after which the group gets a new key; 0: never."
    ),
    "leaf_period": click.option(
        "--leaf-period", type=click.IntRange(0, _MAX), help="Seconds after which members get new keys; 0: never."
    ),
    "retained": click.option(
        "--retained/--no-retained", default=None, help="Whether the broker keeps the newest Rekeys and Welcomes."
    ),
}
_POLICY: Final[dict[str, Any]] = {
    "grace": click.option(
        "--grace", type=click.IntRange(0, _MAX), help="Seconds that the previous key still opens messages (30)."
    ),
    "hold": click.option("--hold", type=click.IntRange(0, _MAX), help="Seconds that a message waits for its key (5)."),
    "max_silence": click.option(
        "--max-silence", type=click.IntRange(1, _MAX), help="Seconds without Beacon before members object (300)."
    ),
    "stop_when_silent": click.option(
        "--stop-when-silent/--send-when-silent", default=None, help="Whether members stop sending then (they do)."
    ),
    "source_authentication": click.option(
        "--sign/--no-sign", "source_authentication", default=None, help="Whether members sign every message."
    ),
    "algorithm": click.option("--algorithm", type=click.Choice(_ALGORITHMS), help="What seals messages."),
    "acknowledge": click.option(
        "--acknowledge", type=click.IntRange(0, _MAX), help="Seconds within which an epoch is confirmed; 0: never."
    ),
}


def _terms_options(command: _F) -> _F:
    """Give a command what members keep to, and what the server does by itself; None for what is not named."""
    for option in reversed([*_POLICY.values(), *_SETTINGS.values()]):
        command = option(command)
    return command


def _split(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what was named of the policy, and of the settings."""
    named = {name: value for name, value in values.items() if value is not None}
    policy = {name: value for name, value in named.items() if name in _POLICY}
    return policy, {name: value for name, value in named.items() if name in _SETTINGS}


@click.group()
def group() -> None:
    """Create groups, look at them, renew their keys."""


group.add_command(recover)
group.add_command(move)


@group.command(
    epilog="""\b
Examples:
  brokerkm group create plant
  brokerkm group create depot --suite mlkem768-x25519 --degree 8 --sign
  brokerkm group create hall --algorithm chacha20-poly1305 --acknowledge 10 --root-period 86400
"""
)
@click.argument("name")
@click.option("--degree", type=click.IntRange(2, 64), help="Children of a tree node.")
@click.option("--suite", type=click.Choice(_SUITES), help="Seals Welcomes.")
@click.option("--prefix", help="What all topics of the group begin with.")
@click.option("--beacon-interval", type=click.IntRange(1, _MAX), help="Seconds between Beacons.")
@_terms_options
@server_options
@json_option
def create(
    *,
    name: str,
    degree: int | None,
    suite: str | None,
    prefix: str | None,
    beacon_interval: int | None,
    state: Path,
    as_json: bool,
    **values: Any,  # noqa: ANN401 - click's
) -> None:
    """Create the group NAME; what no option says is as the server's configuration has it ([defaults])."""
    from brokerkm.service.terms import SUITES  # noqa: PLC0415 - not for --help

    policy, settings = _split(values)

    async def work(admin: AdminApi) -> GroupInfo:
        return await admin.create_group(
            name,
            degree=degree,
            suite=None if suite is None else SUITES[suite],
            prefix=prefix,
            beacon_interval=beacon_interval,
            policy=policy,
            settings=settings,
        )

    _print_group(administer(state, work, create=True), as_json=as_json)


@group.command("list", epilog="\b\nExamples:\n  brokerkm group list --json | jq -r .name\n")
@server_options
@json_option
def list_(*, state: Path, as_json: bool) -> None:
    """List all groups; with --json one object a line."""

    async def work(admin: AdminApi) -> list[GroupInfo]:
        return await admin.list_groups()

    groups = administer(state, work)
    if as_json:
        for info in groups:
            print_json(dataclasses.asdict(info))
    elif groups:
        print_table(
            ("GROUP", "MEMBERS", "EPOCH", "WAITING", "SUITE", "DEGREE"),
            [(info.name, info.members, info.epoch, info.waiting, info.suite, info.degree) for info in groups],
        )
    else:
        click.echo("no group yet")


@group.command(epilog="\b\nExamples:\n  brokerkm group show\n  brokerkm group show plant --json\n")
@click.argument("name", required=False)
@server_options
@json_option
def show(*, name: str | None, state: Path, as_json: bool) -> None:
    """Show the group NAME, or the only one."""

    async def work(admin: AdminApi) -> GroupInfo:
        return await admin.show(await resolve_group(admin, name))

    _print_group(administer(state, work), as_json=as_json)


@group.command(epilog="\b\nExamples:\n  brokerkm group rotate\n  brokerkm group rotate plant --all\n")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Renew every key of the tree except the members' own.")
@server_options
@json_option
def rotate(*, name: str | None, everything: bool, state: Path, as_json: bool) -> None:
    """Give the group NAME, or the only one, a new key."""

    async def work(admin: AdminApi) -> tuple[str, Outcome]:
        found = await resolve_group(admin, name)
        return found, await admin.rotate(found, everything=everything)

    found, outcome = administer(state, work)
    if as_json:
        print_json({"group": found, **dataclasses.asdict(outcome)})
    else:
        click.echo(f"group {found} has a new key: {describe(outcome)}")


@group.command("set", epilog="\b\nExamples:\n  brokerkm group set plant --grace 60 --root-period 86400\n")
@click.argument("name", required=False)
@_terms_options
@server_options
@json_option
def set_(*, name: str | None, state: Path, as_json: bool, **values: Any) -> None:  # noqa: ANN401 - click's
    """Change the group NAME, or the only one: what its members keep to, and what the server does by itself."""
    policy, settings = _split(values)
    if not policy and not settings:
        message = "say what to change: see --help"
        raise click.UsageError(message)

    async def work(admin: AdminApi) -> GroupInfo:
        return await admin.change(await resolve_group(admin, name), policy, settings)

    _print_group(administer(state, work), as_json=as_json)


@group.command("freeze", epilog="\b\nExamples:\n  brokerkm group freeze plant\n")
@click.argument("name", required=False)
@server_options
@json_option
def freeze(*, name: str | None, state: Path, as_json: bool) -> None:
    """Commit nothing in the group NAME, or the only one, until it is thawed."""

    async def work(admin: AdminApi) -> GroupInfo:
        found = await resolve_group(admin, name)
        await admin.freeze(found)
        return await admin.show(found)

    _print_group(administer(state, work), as_json=as_json)


@group.command("thaw", epilog="\b\nExamples:\n  brokerkm group thaw plant\n")
@click.argument("name", required=False)
@server_options
@json_option
def thaw(*, name: str | None, state: Path, as_json: bool) -> None:
    """Go on with the group NAME, or the only one."""

    async def work(admin: AdminApi) -> GroupInfo:
        found = await resolve_group(admin, name)
        await admin.thaw(found)
        return await admin.show(found)

    _print_group(administer(state, work), as_json=as_json)


@group.command("hand-over", epilog="\b\nExamples:\n  brokerkm group hand-over plant\n")
@click.argument("name", required=False)
@server_options
@json_option
def hand_over(*, name: str | None, state: Path, as_json: bool) -> None:
    """Draw another signing key for the group NAME, or the only one; its members follow."""

    async def work(admin: AdminApi) -> GroupInfo:
        found = await resolve_group(admin, name)
        await admin.hand_over(found)
        return await admin.show(found)

    _print_group(administer(state, work), as_json=as_json)


@group.command(epilog="\b\nExamples:\n  brokerkm group destroy plant\n  brokerkm group destroy plant --yes\n")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--now", is_flag=True, help="Forget it at once, whatever the broker still retains of it.")
@server_options
@json_option
def destroy(*, name: str, yes: bool, now: bool, state: Path, as_json: bool) -> None:
    """Forget the group NAME with all its keys and members, for good; its audit log stays.

    Before that its members are told, and the broker is cleared of what it retains for them.
    """
    if not yes and click.prompt("This cannot be undone. Type the group's name", err=True) != name:
        message = f"that is not {name!r}: nothing was done"
        raise FailedError(message)

    async def work(admin: AdminApi) -> Outcome:
        return await admin.destroy(name, now=now)

    forgotten = administer(state, work).published
    if as_json:
        print_json({"group": name, "destroyed": True, "forgotten": forgotten})
    elif forgotten:
        click.echo(f"group {name} is destroyed")
    else:
        click.echo(f"group {name} is destroyed; it is forgotten once its server has told its members and cleared the")
        click.echo("broker. To forget it at once, whatever the broker still retains of it, add --now")


def _print_group(info: GroupInfo, *, as_json: bool) -> None:
    values = dataclasses.asdict(info)
    if as_json:
        print_json(values)
        return
    for part, fields in (("policy", info.policy), ("settings", info.settings)):
        values[part] = "\n".join(f"{name.replace('_', ' ')} {_say(value)}" for name, value in fields.items())
    values["frozen"], values["destroyed"] = _say(info.frozen), _say(info.destroyed)
    print_fields({name.replace("_", " "): value for name, value in values.items()})


def _say(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return "the server's"
        case _:
            return str(value)

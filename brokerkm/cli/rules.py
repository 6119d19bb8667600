"""`brokerkm rule`: add, list, show, remove, run."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from typing import TYPE_CHECKING, Any, Final

import click

from brokerkm.cli.administration import administer, resolve_group, server_options
from brokerkm.cli.output import json_option, print_fields, print_json, print_table, printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path
    from typing import TypeVar

    from brokerkm.automation import RuleInfo, RulesApi, Run
    from brokerkm.service import AdminApi

    _T = TypeVar("_T")

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,9})([smhdw])")
_group_option = click.option("-g", "--group", help="The group.  [default: the only one]")


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Return the seconds of a duration."""
    if value is None:
        return None
    found = _DURATION.fullmatch(value)
    if found is None:
        message = f"{value[:40]!r}: write a number and one of s m h d w, as in 30d"
        raise click.BadParameter(message)
    return int(found[1]) * _UNITS[found[2]]


@click.group()
def rule() -> None:
    """Rules by which the key server acts by itself: on time, member count, silence or a webhook."""


@rule.command(
    epilog="""\b
Examples:
  brokerkm rule add nightly --cron '0 3 * * *' --rotate all
  brokerkm rule add absent --unseen 30d --evict
  brokerkm rule add crowd --above 10000 --notify https://ops.example/hook --notify-secret file:/etc/brokerkm/hook.key
  brokerkm rule add stolen --webhook file:/etc/brokerkm/hook.key --evict --share 1
"""
)
@click.argument("name")
@_group_option
@click.option("--cron", help="When it is time: minute hour day month weekday.")
@click.option("--zone", help="Time zone of --cron.  [default: UTC]")
@click.option("--above", type=int, help="When there are more members than that.")
@click.option("--below", type=int, help="When there are fewer members than that.")
@click.option(
    "--margin", type=int, help="How far the count has to come back before the rule fires again.  [default: 1]"
)
@click.option(
    "--unseen", callback=_seconds, metavar="DURATION", help="When members have been silent for that long, as 30d."
)
@click.option("--every", callback=_seconds, metavar="DURATION", help="How often to look who is silent.  [default: 1h]")
@click.option("--webhook", metavar="SPEC", help="When a request comes that is signed with the key at SPEC.")
@click.option("--rotate", type=click.Choice(["root", "all", "leaves"]), help="New keys.")
@click.option("--evict", is_flag=True, help="Cut off the silent ones, or those that the webhook names.")
@click.option("--share", type=click.IntRange(1, 100), help="Percent of the members that go in a day.  [default: 5]")
@click.option("--notify", metavar="URL", help="Tell that URL.")
@click.option("--notify-secret", metavar="SPEC", help="Where the key is that notices are signed with.")
@server_options
@json_option
def add(*, name: str, group: str | None, state: Path, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click's
    """Add the rule NAME: one trigger, one action.

    SPEC is file:PATH or credential:NAME; `brokerkm store key new file:PATH` makes a key.
    """
    fields = {"name": name, "trigger": _trigger(options), "action": _action(options)}
    info = _with_rules(state, group, lambda rules, found: rules.add_rule(found, fields))
    _print_rule(info, as_json=as_json)


@rule.command("list", epilog="\b\nExamples:\n  brokerkm rule list\n  brokerkm rule list -g plant --json\n")
@_group_option
@server_options
@json_option
def list_(*, group: str | None, state: Path, as_json: bool) -> None:
    """List the rules of a group; with --json one object a line."""
    infos = _with_rules(state, group, lambda rules, found: rules.rules(found))
    if as_json:
        for info in infos:
            print_json(dataclasses.asdict(info))
    elif infos:
        titles = ("RULE", "ON", "DOES", "LAST RUN", "OUTCOME", "NEXT")
        print_table(titles, [_row(info) for info in infos])
        for info in infos:
            if info.warning:
                click.echo(f"rule {info.name} cannot work: {printable(info.warning)}", err=True)
    else:
        click.echo("no rule yet: `brokerkm rule add --help` shows what there can be")


@rule.command(epilog="\b\nExamples:\n  brokerkm rule show nightly --json\n")
@click.argument("name")
@_group_option
@server_options
@json_option
def show(*, name: str, group: str | None, state: Path, as_json: bool) -> None:
    """Show the rule NAME and what became of its last run."""
    _print_rule(_with_rules(state, group, lambda rules, found: rules.rule(found, name)), as_json=as_json)


@rule.command(epilog="\b\nExamples:\n  brokerkm rule remove nightly\n")
@click.argument("name")
@_group_option
@server_options
@json_option
def remove(*, name: str, group: str | None, state: Path, as_json: bool) -> None:
    """Remove the rule NAME."""
    _with_rules(state, group, lambda rules, found: rules.remove_rule(found, name))
    if as_json:
        print_json({"rule": name})
    else:
        click.echo(f"there is no rule {name} any more")


@rule.command(epilog="\b\nExamples:\n  brokerkm rule run absent --dry-run\n  brokerkm rule run absent --all\n")
@click.argument("name")
@_group_option
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--all", "unbraked", is_flag=True, help="Evict also more members than the rule's share.")
@server_options
@json_option
def run(*, name: str, group: str | None, dry_run: bool, unbraked: bool, state: Path, as_json: bool) -> None:
    """Run the rule NAME now, whether it is due or not."""

    async def work(rules: RulesApi, found: str) -> Run:
        return await rules.run_rule(found, name, dry=dry_run, unbraked=unbraked)

    result = _with_rules(state, group, work)
    if as_json:
        print_json(dataclasses.asdict(result))
        return
    click.echo(f"rule {name}: {result.done}")
    for member in result.members:
        click.echo(f"  {member}")


def _with_rules(state: Path, group: str | None, work: Callable[[RulesApi, str], Awaitable[_T]]) -> _T:
    from brokerkm.api.rules import rules_of  # noqa: PLC0415 - not for --help

    async def found(admin: AdminApi) -> _T:
        return await work(rules_of(admin), await resolve_group(admin, group))

    return administer(state, found)


def _trigger(options: dict[str, Any]) -> dict[str, Any]:
    """Return the trigger that the options name; exactly one."""
    count = options["above"] is not None or options["below"] is not None
    named = {
        "time": {"cron": options["cron"], "zone": options["zone"]} if options["cron"] else None,
        "count": {name: options[name] for name in ("above", "below", "margin")} if count else None,
        "silence": {"unseen": options["unseen"], "every": options["every"]} if options["unseen"] else None,
        "webhook": {"secret": options["webhook"]} if options["webhook"] else None,
    }
    return _one(named, "on", "when: --cron, --above, --below, --unseen or --webhook")


def _action(options: dict[str, Any]) -> dict[str, Any]:
    """Return the action that the options name; exactly one."""
    named = {
        "rotate": {"what": options["rotate"]} if options["rotate"] else None,
        "evict": {"share": options["share"]} if options["evict"] else None,
        "notify": {"url": options["notify"], "secret": options["notify_secret"] or ""} if options["notify"] else None,
    }
    return _one(named, "do", "what to do: --rotate, --evict or --notify")


def _one(named: Mapping[str, Mapping[str, Any] | None], tag: str, what: str) -> dict[str, Any]:
    chosen = {kind: fields for kind, fields in named.items() if fields is not None}
    if len(chosen) != 1:
        message = f"say one thing {what}"
        raise click.UsageError(message)
    ((kind, fields),) = chosen.items()
    return {tag: kind, **{name: value for name, value in fields.items() if value is not None}}


def _row(info: RuleInfo) -> tuple[str, ...]:
    trigger = " ".join(str(value) for value in info.trigger.values() if value is not None)
    action = " ".join(str(value) for value in info.action.values())
    return info.name, printable(trigger), printable(action), _time(info.ran), printable(info.outcome), _time(info.next)


def _print_rule(info: RuleInfo, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(info))
        return
    name, trigger, action, ran, outcome, upcoming = _row(info)
    print_fields(
        {"rule": name, "on": trigger, "does": action, "last run": ran, "outcome": outcome or "-", "next": upcoming}
    )
    if info.warning:
        click.echo(f"it cannot work: {printable(info.warning)}", err=True)


def _time(milliseconds: int | None) -> str:
    if not milliseconds:
        return "-"
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

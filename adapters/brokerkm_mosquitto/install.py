"""The command ``brokerkm broker install mosquitto``: Mosquitto's files for one of three levels of guarding."""

from __future__ import annotations

import importlib.resources
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

import click

from brokerkm.core.names import DEFAULT_PREFIX, Topics, check_identifier
from brokerkm.errors import UsageError
from brokerkm_mosquitto import passwd
from brokerkm_mosquitto.initial import dynamic_security
from brokerkm_mosquitto.placing import Planned, check, write

LEVELS: Final = ("acl", "dynsec", "plugin")
PLUGIN: Final = "usr/local/lib/brokerkm_mosquitto.so"
PASSWORD: Final = "etc/brokerkm/broker-password"  # noqa: S105 - where it is
USERS: Final = "etc/mosquitto/brokerkm.passwd"
DYNAMIC: Final = "var/lib/mosquitto/dynamic-security.json"
_MOSQUITTO: Final = "mosquitto"  # the user that it runs as
_NEEDED: Final = "apt-get install gcc make libc6-dev mosquitto-dev libssl-dev"

_EXAMPLES: Final = """
\b
Examples:
  brokerkm broker install mosquitto --dry-run
  brokerkm broker install mosquitto --level plugin && systemctl restart mosquitto
\b
Levels:
  acl     static rules; members read each other's rekey topics, an eviction does not disconnect
  dynsec  a client for each member in Mosquitto's dynamic security; for some hundreds of members
  plugin  a plugin in C that knows each member's topics; for any number
"""


class Setup(NamedTuple):
    """What the files are made for; `root` is what all paths begin with."""

    level: str
    root: Path
    keyserver: str
    prefix: str
    port: int


@click.command("mosquitto", epilog=_EXAMPLES)
@click.option("--level", type=click.Choice(LEVELS), default="acl", show_default=True, help="How much Mosquitto guards.")
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@click.option("--force", is_flag=True, help="Replace files that hold something else; they are kept as FILE.old.")
@click.option("--keyserver", default="keyserver", show_default=True, help="The key server's user name at the broker.")
@click.option("--prefix", default=DEFAULT_PREFIX, show_default=True, help="What brokerkm's topics begin with.")
@click.option("--port", type=click.IntRange(1, 65535), default=1883, show_default=True, help="Where Mosquitto listens.")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/"),
    help="Directory that all paths are below, as for an image that is being built.",
)
def mosquitto(*, level: str, dry_run: bool, force: bool, keyserver: str, prefix: str, port: int, root: Path) -> None:
    """Make Mosquitto 2 keep members to their own topics: write its configuration, build its plugin.

    What is there already is left alone, unless --force is given; it can be run again and again.
    """
    Topics("group", prefix)
    check_identifier(keyserver, "key server")
    setup = Setup(level, root, keyserver, prefix, port)
    planned = plan(setup)
    if dry_run:
        _print(planned)
        if level == "plugin":
            click.echo(f"# would run: {' '.join(_build(root))}")
    else:
        _refuse_listener_settings(root)
        wanted = [one for one in planned if check(one, force=force)]  # all of them, before anything is written
        if level == "plugin":
            _make(root)
        for one in planned:
            if one in wanted:
                write(one)
            click.echo(f"{'wrote' if one in wanted else 'kept'} {one.path}")
    click.echo(_next(setup), err=dry_run)


def plan(setup: Setup) -> list[Planned]:
    """Return the files of a level."""
    password = _password(setup.root)
    files = [Planned(setup.root / PASSWORD, f"{password}\n", 0o600, kept=True), _configuration(setup)]
    if setup.level == "dynsec":
        state = dynamic_security(setup.keyserver, password, setup.prefix)
        return [*files, Planned(setup.root / DYNAMIC, state, 0o600, _MOSQUITTO, kept=True)]
    if setup.level == "acl":
        files.append(Planned(setup.root / "etc/mosquitto/brokerkm.acl", _access(setup), 0o640, _MOSQUITTO))
    return [*files, _users(setup, password)]


def _configuration(setup: Setup) -> Planned:
    text = _shipped(f"{setup.level}.conf").replace("listener 1883", f"listener {setup.port}", 1)
    text = text.replace("plugin_opt_keyserver keyserver", f"plugin_opt_keyserver {setup.keyserver}")
    found = sorted(setup.root.glob("usr/lib/*/mosquitto_dynamic_security.so"))
    if found:
        text = text.replace("/usr/lib/x86_64-linux-gnu/", f"/{found[0].parent.relative_to(setup.root)}/")
    return Planned(setup.root / "etc/mosquitto/conf.d/brokerkm.conf", text)


def _access(setup: Setup) -> str:
    text = _shipped("members.acl").replace("user keyserver", f"user {setup.keyserver}")
    return text.replace(f" {DEFAULT_PREFIX}/", f" {setup.prefix}/")


def _users(setup: Setup, password: str) -> Planned:
    path = setup.root / USERS
    text = path.read_text() if path.exists() else ""
    known = passwd.holds(text, setup.keyserver, password)
    if text and not known:
        problem = "has no user" if known is None else "has another password for"
        message = (
            f"{path} {problem} {setup.keyserver}; nothing was changed. Set the one that is in "
            f"{setup.root / PASSWORD}: mosquitto_passwd {path} {setup.keyserver}"
        )
        raise UsageError(message)
    return Planned(path, text or passwd.line(setup.keyserver, password), 0o600, _MOSQUITTO, kept=True)


def _password(root: Path) -> str:
    """Return the key server's password: the one that is there, or a new one."""
    try:
        return (root / PASSWORD).read_text().rstrip("\n")
    except FileNotFoundError:
        return secrets.token_urlsafe(32)
    except OSError as error:
        message = f"{root / PASSWORD} cannot be read: {error}; run this as root"
        raise UsageError(message) from error


def _shipped(name: str) -> str:
    return (importlib.resources.files("brokerkm_mosquitto") / "files" / name).read_text()


def _refuse_listener_settings(root: Path) -> None:
    """Refuse to install beside a setting that changes what all others mean."""
    directory = root / "etc/mosquitto"
    for path in (directory / "mosquitto.conf", *sorted(directory.glob("conf.d/*.conf"))):
        if path.is_file() and "per_listener_settings true" in path.read_text().splitlines():
            message = (
                f"{path} says per_listener_settings true, with which Mosquitto 2 guards nothing of this: remove it"
            )
            raise UsageError(message)


def _build(root: Path) -> list[str]:
    source = importlib.resources.files("brokerkm_mosquitto") / "plugin"
    return ["make", "-C", str(source), f"OUT={(root / PLUGIN).parent.absolute()}"]


def _make(root: Path) -> None:
    """Build the plugin."""
    if not all(map(shutil.which, ("make", "cc"))) or not Path("/usr/include/mosquitto_plugin.h").exists():
        message = f"the plugin is built here, which needs a compiler and Mosquitto's headers: {_NEEDED}"
        raise UsageError(message)
    try:
        (root / PLUGIN).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(_build(root), check=True, capture_output=True, text=True)  # noqa: S603 - our own Makefile
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr[-2000:] if isinstance(error, subprocess.CalledProcessError) else str(error)
        message = f"the plugin cannot be built ({_NEEDED}): {said}"
        raise UsageError(message) from error
    click.echo(f"built {root / PLUGIN}")


def _print(planned: list[Planned]) -> None:
    for one in planned:
        click.echo(f"# {one.path}, mode {one.mode:04o}, of {one.owner}")
        click.echo("# (secret, made at random)\n" if one.secret and one.kept else one.content)


def _next(setup: Setup) -> str:
    guard = {"dynsec": '\n  [guard]\n  kind = "mosquitto-dynsec"', "plugin": '\n  [guard]\n  kind = "mosquitto-plugin"'}
    after = {
        "acl": f"Give each member a password: mosquitto_passwd {setup.root / USERS} MEMBER",
        "dynsec": "Devices log in with passwords that the key server sets: brokerkm broker passwords",
        "plugin": "Devices log in with their identity keys: nothing has to be handed out.",
    }
    return f"""
Now: systemctl restart mosquitto
Configuration of the key server (/etc/brokerkm/brokerkm.toml):

  [broker]
  url = "mqtt://127.0.0.1:{setup.port}"
  username = "{setup.keyserver}"
  password = "credential:broker-password" # or file:{setup.root / PASSWORD}
{guard.get(setup.level, "")}

{after[setup.level]}"""

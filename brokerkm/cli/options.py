"""Options that several commands share: where state is kept, and how to reach the broker."""

from __future__ import annotations

import functools
import shlex
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click
from click.core import ParameterSource

from brokerkm.cli.places import server_state, state_home
from brokerkm.transport import Options, Role

if TYPE_CHECKING:
    from collections.abc import Callable

_F = TypeVar("_F", bound="Callable[..., object]")

_MAX_PASSWORD: Final = 65535  # bytes; MQTT 5, section 3.1.3.6
_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_LOGIN_FILES: Final = {
    "ca_file": "TLS trust anchor, or the hub's CURVE public key.",
    "cert_file": "TLS client certificate.",
    "key_file": "Key of the client certificate, or a CURVE key.",
}
LOGIN: Final = ("broker", "username", "password_file", *_LOGIN_FILES)
"""The options of the broker, for `repeated`."""
_DIRECTORY: Final = click.Path(file_okay=False, path_type=Path)


def server_state_option(command: _F) -> _F:
    """Give a command ``--state`` for the directory of a key server."""
    return click.option(
        "--state",
        type=_DIRECTORY,
        envvar="BROKERKM_SERVER_STATE",
        default=server_state,
        show_default="$BROKERKM_SERVER_STATE, $STATE_DIRECTORY or ~/.local/state/brokerkm-server",
        help="Directory of the key server.",
    )(command)


def config_option(command: _F) -> _F:
    """Give a command ``--config`` for the configuration of a key server."""
    text = "The server's configuration; see `brokerkm config example`."
    return click.option("--config", type=_FILE, envvar="BROKERKM_CONFIG", help=text)(command)


def chosen_state(state: Path, configured: Path | None) -> Path:
    """Return the directory of the key server: as it was given, or else as the configuration says, or the default."""
    return state if configured is None or is_given("state") else configured


def is_given(name: str) -> bool:
    """Return whether somebody gave the option of the running command, by itself or by a variable."""
    source = click.get_current_context().get_parameter_source(name)
    return source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def repeated(*names: str) -> str:
    """Return these options as they were given on the command line, to be appended to a command that is advised."""
    context = click.get_current_context()
    given = [name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    return "".join(f" --{name.replace('_', '-')} {shlex.quote(str(context.params[name]))}" for name in given)


def member_state_option(command: _F) -> _F:
    """Give a command ``--state`` for the directory that holds the members of this machine."""
    return click.option(
        "--state",
        type=_DIRECTORY,
        envvar="BROKERKM_STATE",
        default=lambda: state_home() / "brokerkm",
        show_default="$BROKERKM_STATE or ~/.local/state/brokerkm",
        help="Directory of this machine's members.",
    )(command)


def login_options(role: Role) -> Callable[[_F], _F]:
    """Give a command the options of the broker's own authentication and TLS; it receives them as `options`."""

    def decorate(command: _F) -> _F:
        @functools.wraps(command)
        def run(**values: Any) -> object:  # noqa: ANN401 - whatever the command's other options are
            password: Path | None = values.pop("password_file")
            values["options"] = Options(
                role=role,
                username=values.pop("username"),
                password=None if password is None else _read_password(password),
                ca_file=values.pop("ca_file"),
                cert_file=values.pop("cert_file"),
                key_file=values.pop("key_file"),
            )
            return command(**values)

        wrapped: Callable[..., object] = run
        for name, text in reversed(_LOGIN_FILES.items()):
            wrapped = click.option(f"--{name.replace('_', '-')}", type=click.Path(dir_okay=False), help=text)(wrapped)
        wrapped = click.option("--password-file", type=_FILE, help="File with the password at the broker.")(wrapped)
        return cast("_F", click.option("--username", help="User name at the broker.")(wrapped))

    return decorate


def check_url(context: click.Context, parameter: click.Parameter, url: str | None) -> str | None:
    """Refuse a URL with a password: everybody on this machine can read the command lines of others."""
    named = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    if named and url is not None and urllib.parse.urlsplit(url).password is not None:
        message = "a password on the command line is seen by others: use --username and --password-file"
        raise click.BadParameter(message)
    return url


def _read_password(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_MAX_PASSWORD).rstrip("\r\n")
    except OSError as error:
        message = f"password file {path}: {error.strerror}"
        raise click.UsageError(message) from error
    except UnicodeDecodeError:
        message = f"password file {path}: it is not UTF-8"
        raise click.UsageError(message) from None

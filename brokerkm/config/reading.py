"""Reading the configuration: one TOML file, then the environment's ``BROKERKM_SECTION_KEY``, which counts more.

All that is wrong is found in one reading and said with its place: line, section and key. Unknown keys are refused, with
the name that was probably meant: a misspelt limit must not be a missing limit. No message repeats a value, which may
be a secret in the wrong place.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from brokerkm.config.key import keys
from brokerkm.config.sections import SECTIONS, Configuration
from brokerkm.config.values import from_environment, from_toml, kind
from brokerkm.errors import UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

PREFIX: Final = "BROKERKM_"
MAX_FILE: Final = 1 << 20  # bytes
_HEADER: Final = re.compile(r"\s*\[\s*\"?([^\]\"]*?)\"?\s*\]")


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Args:
        place: file and line, or the variable of the environment.
        key: SECTION.KEY, or empty where no key can be named.
        text: what is wrong and what to do.
    """

    place: str
    key: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.key, self.text) if part)


class ConfigurationError(UsageError):
    """The configuration cannot be used; `problems` says all that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Final = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def load(path: str | os.PathLike[str] | None, environment: Mapping[str, str]) -> Configuration:
    """Return the configuration in a file, if one is named, with what the environment overrides.

    Raises:
        ConfigurationError: something is wrong; all of it is listed.
    """
    problems: list[Problem] = []
    found: dict[str, dict[str, object]] = {name: {} for name in SECTIONS}
    if path is not None:
        _read_file(Path(path), found, problems)
    _read_environment(environment, found, problems)
    if problems:
        raise ConfigurationError(problems)
    sections: dict[str, Any] = {name: SECTIONS[name](**values) for name, values in found.items()}
    configuration = Configuration(**sections)
    problems = [Problem(str(path or ""), name, text) for name, text in _together(configuration)]
    if problems:
        raise ConfigurationError(problems)
    return configuration


def variable(section: str, name: str) -> str:
    """Return the environment variable that overrides a key."""
    return f"{PREFIX}{section}_{name}".upper()


def _read_file(path: Path, found: dict[str, dict[str, object]], problems: list[Problem]) -> None:
    place = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            problems.append(Problem(place, "", f"it is larger than {MAX_FILE} bytes: is this the right file?"))
            return
        text = data.decode()
        document = tomllib.loads(text)
    except OSError as error:
        problems.append(Problem(place, "", f"{error.strerror}"))
        return
    except UnicodeDecodeError:
        problems.append(Problem(place, "", "it is not UTF-8"))
        return
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(place, "", f"it is not TOML: {error}"))
        return
    except RecursionError:
        problems.append(Problem(place, "", "it is nested too deeply"))
        return
    lines = _lines(text)
    for section, content in document.items():
        where = f"{place}:{lines.get((section, ''), lines.get(('', section), 1))}"
        if not isinstance(content, dict):
            problems.append(Problem(where, section, f"a key outside of any section{_guess_key(section)}"))
        elif section not in SECTIONS:
            problems.append(Problem(where, "", f"there is no section [{_shown(section)}]{_nearest(section, SECTIONS)}"))
        else:
            values = cast("dict[str, object]", content)
            _read_section(section, values, found[section], problems, (place, lines))


def _read_section(
    section: str,
    content: Mapping[str, object],
    found: dict[str, object],
    problems: list[Problem],
    source: tuple[str, Mapping[tuple[str, str], int]],
) -> None:
    place, lines = source
    hints = typing.get_type_hints(SECTIONS[section])
    known = {name: about for name, about, _ in keys(SECTIONS[section])}
    for name, raw in content.items():
        where = f"{place}:{lines.get((section, name), lines.get((section, ''), 1))}"
        if name not in known:
            text = f"there is no such key in [{section}]{_nearest(name, known)}"
            problems.append(Problem(where, f"{section}.{_shown(name)}", text))
            continue
        try:
            found[name] = from_toml(raw, kind(hints[name]), known[name])
        except UsageError as error:
            problems.append(Problem(where, f"{section}.{name}", str(error)))


def _read_environment(
    environment: Mapping[str, str], found: dict[str, dict[str, object]], problems: list[Problem]
) -> None:
    known = {variable(section, name): (section, name) for section in SECTIONS for name, _, _ in keys(SECTIONS[section])}
    beginnings = tuple(f"{PREFIX}{section}_".upper() for section in SECTIONS)
    for given, text in sorted(environment.items()):
        if not given.startswith(beginnings):
            continue
        if given not in known:
            problems.append(Problem(_shown(given), "", f"no key of the configuration{_nearest(given, known)}"))
            continue
        section, name = known[given]
        about = next(about for one, about, _ in keys(SECTIONS[section]) if one == name)
        try:
            found[section][name] = from_environment(text, kind(typing.get_type_hints(SECTIONS[section])[name]), about)
        except UsageError as error:
            problems.append(Problem(given, f"{section}.{name}", str(error)))


def _together(configuration: Configuration) -> Iterable[tuple[str, str]]:
    """Yield what no key is wrong about alone: (key, what is wrong)."""
    api, store, broker = configuration.api, configuration.store, configuration.broker
    if api.listen and (api.cert_file is None or api.key_file is None):
        yield "api.listen", "a listener on the network needs cert_file and key_file: tokens do not go unencrypted"
    if api.client_roles is not None and api.client_ca is None:
        yield "api.client_roles", "without client_ca no certificate is asked for, and nobody has a role by it"
    if store.password is not None and not store.url.startswith("postgres"):
        yield "store.password", "SQLite has no password: leave it out, or name PostgreSQL in store.url"
    if broker.password is not None and not broker.username:
        yield "broker.password", "it needs broker.username"
    for name, one in (("store.password", store.password), ("broker.password", broker.password)):
        if one is not None and one.scheme == "pkcs11":
            yield name, "pkcs11: holds keys, not passwords: take file:, credential:, env: or command:"


def _lines(text: str) -> dict[tuple[str, str], int]:
    """Return on which line each section and key begins; tomllib does not say, and for a message near enough will do."""
    found: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header is not None:
            section = header[1]
            found.setdefault((section, ""), number)
        elif "=" in line and not line.lstrip().startswith("#"):
            found.setdefault((section, line.partition("=")[0].strip().strip("\"'")), number)
    return found


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name[:100], list(known), 1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"[:600]


def _guess_key(name: str) -> str:
    homes = [section for section, one in SECTIONS.items() if name in {known for known, _, _ in keys(one)}]
    return f": put it below [{homes[0]}]" if homes else ""


def _shown(name: str) -> str:
    """Return a name that somebody wrote, short and without control characters."""
    return ascii(name[:64])[1:-1]

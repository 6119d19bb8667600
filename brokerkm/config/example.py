"""`brokerkm config example`: a file with every key, its default and its explanation, all of it commented out."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Final

from brokerkm.config.key import keys
from brokerkm.config.reading import variable
from brokerkm.config.sections import SECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brokerkm.config.key import Key

_WIDTH: Final = 100
_HEAD: Final = f"""\
# brokerkm's key server: brokerkm serve --config THIS_FILE
#
# Every key is here with its default; those that have none show an example. Remove the "#" of what you change, and
# `brokerkm config check THIS_FILE`. Each can be overridden by a variable of the environment, such as
# {variable("server", "group")}. Secrets are not written here: a key says where its secret is.
# (live) marks what a running server takes over at SIGHUP (systemctl reload brokerkm).
"""


def example() -> str:
    """Return the file's text."""
    return _HEAD + "".join(line for name, section in SECTIONS.items() for line in _section(name, section))


def _section(name: str, section: type) -> Iterator[str]:
    yield f"\n# {section.__doc__}\n[{name}]\n"
    for key, about, default in keys(section):
        text = about.text + "".join(f" ({note})" for note in _notes(about))
        yield "\n" + textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ") + "\n"
        yield f"# {key} = {_toml(default if default not in {None, ''} else about.sample)}\n"


def _notes(about: Key) -> Iterator[str]:
    limits = [f"at least {about.low:g}"] if about.low is not None else []
    limits += [f"at most {about.high:.15g}"] if about.high is not None else []
    if limits:
        yield " and ".join(limits)
    if about.choices:
        yield " | ".join(about.choices)
    if about.unit:
        yield f"unit: {about.unit}"
    if about.live:
        yield "live"


def _toml(value: object) -> str:
    """Return a value as TOML writes it, which is as JSON does for all that is here."""
    return json.dumps(value)

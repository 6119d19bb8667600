"""From what TOML or the environment gives to the value of a key: type, range, and what is wrong in words."""

from __future__ import annotations

import math
import re
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from brokerkm.config import secret
from brokerkm.config.roles import ClientRoles
from brokerkm.config.secret import Secret
from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from brokerkm.config.key import Key

_MAX_TEXT: Final = 4096  # characters
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")
_WORDS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
NAMES: Final[dict[type, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    Secret: "a reference to a secret",
    ClientRoles: "a table of roles",
}
_GIVEN: Final = ((bool, "true or false"), (str, "a text"), (int, "a whole number"), (float, "a number"))


def kind(hint: object) -> type:
    """Return the type of a key's values from its annotation, without the None of a missing one."""
    if isinstance(hint, types.UnionType):
        (hint,) = (one for one in typing.get_args(hint) if one is not type(None))
    assert isinstance(hint, type)  # noqa: S101 - the sections are ours
    return hint


def from_toml(raw: object, wanted: type, about: Key) -> object:
    """Return the value that a TOML value stands for; raises `UsageError`."""
    value: Any = raw
    if wanted is ClientRoles:
        return ClientRoles.from_toml(raw)
    if wanted is float and type(raw) is int:
        value = float(raw)
    given = str if wanted in {Path, Secret} else wanted
    if type(value) is not given:
        message = f"it has to be {NAMES[wanted]}, not {_given(raw)}"
        raise UsageError(message)
    if isinstance(value, str):
        value = _from_text(value, wanted)
    return checked(value, about)


def from_environment(text: str, wanted: type, about: Key) -> object:
    """Return the value that a variable stands for; raises `UsageError`."""
    value: Any
    try:
        if wanted is bool:
            value = _WORDS[text.strip().lower()]
        elif wanted in {int, float}:
            value = wanted(text)
        else:
            value = _from_text(text, wanted)
    except (KeyError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        message = f"it has to be {NAMES[wanted]}"
        raise UsageError(message) from None
    return checked(value, about)


def checked(value: Any, about: Key) -> object:  # noqa: ANN401 - whatever the key holds
    """Return `value` if it is in the key's range; raises `UsageError`."""
    wrong = ""
    if about.choices and value not in about.choices:
        wrong = f"it has to be one of {', '.join(about.choices)}"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        wrong = _outside(value, about)
    elif about.check is not None:
        wrong = about.check(value)
    if wrong:
        raise UsageError(wrong)
    return value


def _from_text(text: str, wanted: type) -> object:
    if len(text) > _MAX_TEXT or _CONTROLS.search(text):
        message = f"a text of at most {_MAX_TEXT} characters, none of them a control character"
        raise UsageError(message)
    if wanted is Secret:
        return secret.parse(text)
    if wanted is ClientRoles:
        return ClientRoles.from_text(text)
    if wanted is Path:
        if not text:
            message = "a path cannot be empty: leave the key out"
            raise UsageError(message)
        return Path(text).expanduser()
    return text


def _given(raw: object) -> str:
    return next((text for one, text in _GIVEN if isinstance(raw, one)), "more")


def _outside(value: float, about: Key) -> str:
    unit = f" {about.unit}" if about.unit else ""
    if not math.isfinite(value):
        return "it has to be finite"
    if about.low is not None and value < about.low:
        return f"it has to be at least {about.low:g}{unit}"
    if about.high is not None and value > about.high:
        return f"it has to be at most {about.high:.15g}{unit}"
    return ""

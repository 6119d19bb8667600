"""How one key of the configuration is declared: default, unit, range, and the words that explain it.

The declaration is all there is: reading, checking, the example and the reload follow it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_T = TypeVar("_T")
_KEY: Final = "key"


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """What is said of a key beside its type.

    Args:
        text: what it does, in a sentence or two.
        unit: of a number, such as "s".
        low, high: the numbers that it may be, both included.
        choices: the texts that it may be.
        check: returns what is wrong with a value that has the right type, or "".
        live: whether a running server takes a change over.
        sample: what the example shows where the default is empty.
    """

    text: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    check: Callable[[Any], str] | None = None
    live: bool = False
    sample: str = ""


def key(
    default: _T,
    text: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    check: Callable[[Any], str] | None = None,
    live: bool = False,
    sample: str = "",
) -> _T:
    """Declare a key in a dataclass of settings; the arguments are those of `Key`."""
    about = Key(text, unit, low, high, choices, check, live, sample)
    declared: _T = dataclasses.field(default=default, metadata={_KEY: about})
    return declared


def keys(section: type) -> Iterator[tuple[str, Key, object]]:
    """Yield (name, key, default) of a section, in the order of their declaration."""
    for field in dataclasses.fields(section):
        yield field.name, field.metadata[_KEY], field.default

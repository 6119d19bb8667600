"""Shell patterns on member ids: what SQL can look for first, and what decides."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_CLASS: Final = re.compile(r"\[!?\]?[^\]]*\]")
_WILD: Final = {"*": "%", "?": "_", "%": "!%", "_": "!_", "!": "!!"}


def matcher(pattern: str) -> Callable[[str], object] | None:
    """Return what tells whether an id matches, as `fnmatch.fnmatchcase` does; None if all do."""
    return None if pattern == "*" else re.compile(fnmatch.translate(pattern)).match


def like(pattern: str) -> str:
    """Return a LIKE pattern, with ``!`` as escape, that every match of `pattern` matches too."""
    plain = _CLASS.sub("?", pattern)  # [abc] may be any character here
    return "".join(_WILD.get(character, character) for character in plain)

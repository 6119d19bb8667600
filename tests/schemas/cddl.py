"""A strict validator for the part of CDDL (RFC 8610) that our schemas use.

The validator from the package index proves that the files are CDDL and that our messages match them. It is lenient,
though: it takes byte strings for integers, and nested arrays of any length. What must *not* match is therefore
checked with this one, which knows rules, choices, arrays, named elements, `n*m`, ranges, numbers, `nil`, `text`,
`bytes`, `.size` and `.regexp`. Anything else is an error, not a match.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

Check: TypeAlias = Callable[[object], bool]

_TOKENS = re.compile(r'"[^"]*"|\d+\.\.\d+|\d+\*\d+|\d+|\.[a-z]+|[A-Za-z_][A-Za-z0-9_-]*|[\[\](),:/=]|\S')
_RULE = re.compile(r"^([a-z][a-z0-9-]*) *= ", re.MULTILINE)


class Schema:
    """The rules of some CDDL text."""

    def __init__(self, text: str) -> None:
        plain = re.sub(r";[^\n]*", "", text)
        _, *parts = _RULE.split(plain)
        self._bodies = dict(zip(parts[::2], parts[1::2], strict=True))
        self._checks: dict[str, Check] = {}

    def matches(self, rule: str, value: object) -> bool:
        """Return whether `value` is what `rule` says."""
        return self._rule(rule)(value)

    def _rule(self, name: str) -> Check:
        if name not in self._checks:
            tokens = _TOKENS.findall(self._bodies[name])
            self._checks[name] = self._choice(tokens)
            if tokens:
                message = f"rule {name}: {tokens} is not in the part of CDDL that is known here"
                raise ValueError(message)
        return self._checks[name]

    def _choice(self, tokens: list[str]) -> Check:
        checks = [self._type(tokens)]
        while tokens[:1] == ["/"]:
            del tokens[0]
            checks.append(self._type(tokens))
        return lambda value: any(check(value) for check in checks)

    def _type(self, tokens: list[str]) -> Check:
        token = tokens.pop(0)
        if token == "[":
            return self._array(tokens)
        if token in {"bytes", "text"}:
            return _string(bytes if token == "bytes" else str, tokens)
        if token == "nil":
            return lambda value: value is None
        if token[0].isdigit():
            return _range(token)
        return self._rule(token)

    def _array(self, tokens: list[str]) -> Check:
        if "*" in tokens[0]:
            low, high = map(int, tokens.pop(0).split("*"))
            each = self._choice(tokens)
            assert tokens.pop(0) == "]"
            return lambda value: type(value) is list and low <= len(value) <= high and all(map(each, value))
        checks: list[Check] = []
        while tokens[0] != "]":
            if tokens[1] == ":":
                del tokens[:2]
            checks.append(self._choice(tokens))
            if tokens[0] == ",":
                del tokens[0]
        del tokens[0]
        return lambda value: (
            type(value) is list
            and len(value) == len(checks)
            and all(check(item) for check, item in zip(checks, value, strict=True))
        )


def _range(token: str) -> Check:
    low, _, high = token.partition("..")
    return lambda value: type(value) is int and int(low) <= value <= int(high or low)


def _string(kind: type[bytes | str], tokens: list[str]) -> Check:
    if tokens[:1] == [".regexp"]:
        pattern = re.compile(tokens[1][1:-1], re.ASCII)
        del tokens[:2]
        return lambda value: type(value) is str and kind is str and pattern.fullmatch(value) is not None
    if tokens[:1] != [".size"]:
        return lambda value: type(value) is kind
    del tokens[0]
    if tokens[0] == "(":
        del tokens[0], tokens[1]
    fits = _range(tokens.pop(0))
    return lambda value: type(value) is kind and fits(len(value))  # type: ignore[arg-type]

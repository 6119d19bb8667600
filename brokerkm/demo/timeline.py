"""How the demonstration is told: one line for each thing that happened, and what was checked.

On a terminal in colours, elsewhere plainly; with ``--json`` each line is an object.
"""

from __future__ import annotations

import enum
import json
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

_WIDTH: Final = 100  # columns
_INDENT: Final = " " * 22  # behind the time and who it is about


class Claim(enum.Enum):
    """What the demonstration claims, in the order in which it is checked."""

    FORMED = "every device joined and has a leaf of the key tree for itself"
    TALKED = "every member read the reading of every other"
    EVICTED = "the evicted member was told so, and all others moved to a new key at once"
    CUT_OFF = "with a copy of all its keys, the evicted member opened nothing of what came after"
    NEW_BLIND = "a newcomer opened nothing of what was recorded before it joined"
    NEW_READS = "and reads everything after"
    SLEPT = "a member whose process was killed missed three rekeys"
    CAUGHT_UP = "it caught up from retained messages alone, with the key server stopped"
    ALONE = "all members went on talking without the key server"
    RETURNED = "an eviction made while the server was stopped took effect when it came back"
    SURVIVED = "the key server, killed and started again, went on, and every member followed"


class Timeline:
    """Tells what happens since it was made.

    Args:
        as_json: for a script rather than for people.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json: Final = as_json
        self._begin: Final = time.monotonic()
        self._results: Final[dict[Claim, bool]] = {}

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begin

    def tell(self, who: str, text: str, **values: object) -> None:
        """Say what happened to whom; `values` are for scripts."""
        if self._as_json:
            self._line({"at": round(self.seconds, 3), "event": who, "text": text, **values})
            return
        first, *rest = textwrap.wrap(text, _WIDTH - len(_INDENT)) or [""]
        click.echo(f"{self.seconds:6.1f} s  {click.style(f'{who:<10}', bold=True)}  {first}")
        for line in rest:
            click.echo(_INDENT + line)

    def check(self, claim: Claim, *, holds: bool, detail: str) -> None:
        """Note whether a claim holds, and what shows it."""
        self._results[claim] = self._results.get(claim, True) and holds
        if self._as_json:
            values = {"claim": claim.name.lower(), "holds": holds, "detail": detail}
            self._line({"at": round(self.seconds, 3), "event": "checked", "text": claim.value, **values})
            return
        mark = click.style("ok    ", fg="green") if holds else click.style("FAILED", fg="red", bold=True)
        click.echo(f"{_INDENT}{mark}  {claim.value}")
        click.echo(f"{_INDENT}{'':8}{detail}")

    def finish(self, claims: Iterable[Claim], error: str | None) -> bool:
        """Say what was checked and what was not; return whether everything was, and holds."""
        claims = list(claims)
        failed = [claim.value for claim in claims if self._results.get(claim) is False]
        unchecked = [claim.value for claim in claims if claim not in self._results]
        good = error is None and not failed and not unchecked
        if self._as_json:
            result = {"ok": good, "checked": len(claims) - len(unchecked), "failed": failed, "not_checked": unchecked}
            self._line({"at": round(self.seconds, 3), "event": "finished", **result, "error": error})
            return good
        click.echo("")
        if error is not None:
            click.echo(click.style("It did not come to its end: ", fg="red", bold=True) + error, err=True)
        for title, texts in (("failed", failed), ("not checked", unchecked)):
            for text in texts:
                click.echo(f"{click.style(title, fg='red', bold=True)}: {text}", err=True)
        if good:
            words = f"All {len(claims)} claims were checked and hold; it took {self.seconds:.0f} s."
            click.echo(click.style(words, fg="green", bold=True))
        return good

    @staticmethod
    def _line(value: dict[str, object]) -> None:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()

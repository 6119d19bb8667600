"""Whether what the configuration refers to is there: secrets and files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from brokerkm.config.key import keys
from brokerkm.config.reading import Problem
from brokerkm.config.secret import Secret
from brokerkm.config.sections import SECTIONS
from brokerkm.unit import run_in_unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brokerkm.config.sections import Configuration


def missing(configuration: Configuration) -> Iterator[Problem]:
    """Yield the secrets and files that the configuration names and this user cannot read, but for `elsewhere`."""
    for section in SECTIONS:
        values = getattr(configuration, section)
        for name, _, _ in keys(SECTIONS[section]):
            value = getattr(values, name)
            if isinstance(value, Secret):
                wrong = "" if value.elsewhere else value.missing()
            elif isinstance(value, Path) and name != "state":
                wrong = "" if os.access(value, os.R_OK) else f"{value} cannot be read: check path and mode"
            else:
                continue
            if wrong:
                yield Problem("", f"{section}.{name}", wrong)


def elsewhere(configuration: Configuration) -> dict[str, Secret]:
    """Return the secrets that systemd gives to the unit, and not to this process: whether they are there is unknown."""
    found: dict[str, Secret] = {}
    for section in SECTIONS:
        for name, _, _ in keys(SECTIONS[section]):
            value = getattr(getattr(configuration, section), name)
            if isinstance(value, Secret) and value.elsewhere:
                found[f"{section}.{name}"] = value
    return found


def in_unit(configuration: Configuration, arguments: str) -> str:
    """Return the command that gives `brokerkm` with these arguments the credentials which `elsewhere` names."""
    names = {secret.spec.partition(":")[2]: None for secret in elsewhere(configuration).values()}
    return f"{run_in_unit(*names)} {arguments}"

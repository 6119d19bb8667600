"""Whether what the configuration refers to is there: secrets and files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from brokerkm.config.key import keys
from brokerkm.config.reading import Problem
from brokerkm.config.secret import Secret
from brokerkm.config.sections import SECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brokerkm.config.sections import Configuration


def missing(configuration: Configuration) -> Iterator[Problem]:
    """Yield the secrets and files that the configuration names and this user cannot read."""
    for section in SECTIONS:
        values = getattr(configuration, section)
        for name, _, _ in keys(SECTIONS[section]):
            value = getattr(values, name)
            if isinstance(value, Secret):
                wrong = value.missing()
            elif isinstance(value, Path) and name != "state":
                wrong = "" if os.access(value, os.R_OK) else f"{value} cannot be read: check path and mode"
            else:
                continue
            if wrong:
                yield Problem("", f"{section}.{name}", wrong)

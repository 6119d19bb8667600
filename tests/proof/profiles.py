"""How long Hypothesis looks: `ci`, the same examples every time, or `deep` (HYPOTHESIS_PROFILE=deep), for hours."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, Phase, settings

_SLOW: Final = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=100,
    report_multiple_bugs=False,
    suppress_health_check=_SLOW,
)
settings.register_profile(
    "deep",
    deadline=None,
    database=None,
    max_examples=20_000,
    report_multiple_bugs=False,
    suppress_health_check=_SLOW,
    phases=[Phase.generate, Phase.shrink],
)


def load() -> bool:
    """Load the profile that the environment names, `ci` by default; return whether it is the long one."""
    name = os.environ.get("HYPOTHESIS_PROFILE", "ci")
    settings.load_profile(name)
    return name == "deep"


DEEP: Final = load()

"""What new groups begin with, by the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokerkm.core.crypto import Algorithm
from brokerkm.core.policy import Policy
from brokerkm.service.terms import SUITES, Terms

if TYPE_CHECKING:
    from brokerkm.config.sections import Defaults


def terms(defaults: Defaults) -> Terms:
    """Return the terms of a new group."""
    policy = Policy(
        grace=defaults.grace,
        hold=defaults.hold,
        max_silence=defaults.max_silence,
        stop_when_silent=defaults.stop_when_silent,
        source_authentication=defaults.source_authentication,
        algorithm=Algorithm[defaults.algorithm.upper().replace("-", "_")],
        acknowledge=defaults.acknowledge,
    )
    return Terms(defaults.degree, SUITES[defaults.suite], defaults.prefix, defaults.beacon_interval, policy)

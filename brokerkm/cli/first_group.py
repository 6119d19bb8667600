"""The group that `brokerkm serve` makes in an empty store, with the configuration's defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokerkm.core.crypto import Algorithm, Suite
from brokerkm.core.policy import Policy

if TYPE_CHECKING:
    from brokerkm.config import Configuration
    from brokerkm.config.sections import Defaults
    from brokerkm.service import AdminApi, GroupInfo


def policy(defaults: Defaults) -> Policy:
    """Return what a new group asks of its members."""
    return Policy(
        grace=defaults.grace,
        hold=defaults.hold,
        max_silence=defaults.max_silence,
        stop_when_silent=defaults.stop_when_silent,
        source_authentication=defaults.source_authentication,
        algorithm=Algorithm[defaults.algorithm.upper().replace("-", "_")],
        acknowledge=defaults.acknowledge,
    )


async def create_first(admin: AdminApi, configuration: Configuration) -> GroupInfo:
    """Make the first group."""
    defaults = configuration.defaults
    return await admin.create_group(
        configuration.server.group,
        degree=defaults.degree,
        suite=Suite[defaults.suite.upper().replace("-", "_")],
        policy=policy(defaults),
        prefix=defaults.prefix,
        beacon_interval=defaults.beacon_interval,
    )

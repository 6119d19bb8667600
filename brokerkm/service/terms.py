"""The terms of a group: what a new one begins with, and by which names people and JSON know its policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from brokerkm.core.crypto import Algorithm, Suite
from brokerkm.core.group import DEFAULT_DEGREE
from brokerkm.core.names import DEFAULT_PREFIX
from brokerkm.core.policy import Policy

Named: TypeAlias = Mapping[str, int | float | bool | str | None]
"""Fields of a policy or of settings, by name."""

ALGORITHMS: Final = {one: one.name.lower().replace("_", "-") for one in Algorithm}


@dataclass(frozen=True, slots=True)
class Terms:
    """What a group is made with, as far as its creator does not say otherwise.

    Args:
        beacon_interval: seconds; a tenth of the policy's `max_silence`.
    """

    degree: int = DEFAULT_DEGREE
    suite: Suite = Suite.X25519
    prefix: str = DEFAULT_PREFIX
    beacon_interval: int = 30
    policy: Policy = field(default_factory=Policy)


def suite_name(suite: Suite) -> str:
    """Return what people call a suite."""
    return suite.name.lower().replace("_", "-")


SUITES: Final = {suite_name(one): one for one in Suite}


def policy_fields(policy: Policy) -> dict[str, int | bool | str]:
    """Return a policy by the names of its fields; its algorithm by its name."""
    return dataclasses.asdict(policy) | {"algorithm": ALGORITHMS[policy.algorithm]}


def adopt_policy(policy: Policy, named: Named) -> Policy:
    """Return a policy with the fields that are named as `policy_fields` names them."""
    found: dict[str, Any] = {**policy_fields(policy), **named}
    algorithm = next(one for one, name in ALGORITHMS.items() if name == found["algorithm"])
    found["algorithm"] = algorithm
    return Policy(**found)

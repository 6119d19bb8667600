"""Fixtures: a group in memory, and one at Mosquitto."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sdk.yard import Yard, yard_at

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncGenerator[Yard]:
    """A group at the broker inside the process."""
    async with yard_at("memory://yard", tmp_path) as made:
        yield made

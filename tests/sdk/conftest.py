"""Fixtures: a group in memory, and one at Mosquitto."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from sdk.yard import Yard, yard_at

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from brokers.mqtt import MqttBroker


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncGenerator[Yard]:
    """Give a group at the broker inside the process."""
    async with yard_at("memory://yard", tmp_path) as made:
        yield made


@pytest.fixture
async def mqtt_yard(mosquitto: MqttBroker, tmp_path: Path) -> AsyncGenerator[Yard]:
    """Give a group at Mosquitto, which keeps what it retained of other tests."""
    async with yard_at(mosquitto.url, tmp_path, group=f"plant-{secrets.token_hex(4)}") as made:
        yield made

"""Fixtures for the whole suite: real brokers and a real database, started when a test first asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from brokers import mqtt
from databases.postgresql import Postgres, postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[mqtt.MqttBroker]:
    """Mosquitto, open to everybody."""
    with mqtt.open_mosquitto() as broker:
        yield broker


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[mqtt.MqttBroker]:
    """RabbitMQ with its MQTT plugin."""
    with mqtt.rabbitmq() as broker:
        yield broker


@pytest.fixture(scope="session")
def nats() -> Iterator[mqtt.MqttBroker]:
    """nats-server with MQTT."""
    with mqtt.nats() as broker:
        yield broker


@pytest.fixture(scope="session")
def amqtt() -> Iterator[mqtt.MqttBroker]:
    """Python's own broker, amqtt."""
    with mqtt.amqtt() as broker:
        yield broker


@pytest.fixture(scope="session")
def guarded_mosquitto() -> Iterator[mqtt.MqttBroker]:
    """Mosquitto exactly as `deploy/` ships it; the users keyserver, alice and bob have their names as passwords."""
    with mqtt.guarded_mosquitto({user: user for user in ("keyserver", "alice", "bob")}) as broker:
        yield broker


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """PostgreSQL, with fsync on."""
    with postgresql() as cluster:
        yield cluster


@pytest.fixture
def database(postgres: Postgres) -> str:
    """Give the URL of an empty database of PostgreSQL."""
    return postgres.create_database()

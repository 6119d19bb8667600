"""The doctor at real brokers: open, guarded, and one that keeps nothing; and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from brokers.mqtt import mosquitto as run_mosquitto
from brokers.process import free_port

from brokerkm import transport
from brokerkm.doctor.broker import look, round_trip
from brokerkm.doctor.finding import Level
from brokerkm.transport import Delivery, Options, Role

if TYPE_CHECKING:
    from brokers.mqtt import MqttBroker


async def examined(url: str, **login: str) -> dict[str, Level]:
    """Return the level of each check."""
    options = Options(role=Role.SERVER, timeout=5, **login)  # type: ignore[arg-type]
    return {finding.check: finding.level async for finding in look(url, options, "bkm/1")}


async def test_an_open_broker_works_but_is_open(mosquitto: MqttBroker) -> None:
    """Whoever wants to may write rekeys there."""
    assert {
        "broker": Level.OK,
        "round trip": Level.OK,
        "retained": Level.OK,
        "access list": Level.WARN,
    } == await examined(mosquitto.url)


async def test_a_guarded_broker_is_well(guarded_mosquitto: MqttBroker) -> None:
    """The settings that we ship pass their own examination."""
    found = await examined(guarded_mosquitto.url, username="keyserver", password="keyserver")
    assert {Level.OK} == set(found.values())
    assert "access list" in found


async def test_a_login_without_rights_fails(guarded_mosquitto: MqttBroker) -> None:
    """A member's login is none for a key server: what it sends does not come back, and it is told so."""
    found = await examined(guarded_mosquitto.url, username="alice", password="alice")
    assert Level.FAIL is found.get("round trip", found["broker"])


async def test_a_password_that_is_wrong_fails(guarded_mosquitto: MqttBroker) -> None:
    """In one finding."""
    assert {"broker": Level.FAIL} == await examined(guarded_mosquitto.url, username="keyserver", password="other")


async def test_credentials_that_nobody_needs_are_a_failure(mosquitto: MqttBroker) -> None:
    """Who configured a login thinks that others are kept out."""
    found = await examined(mosquitto.url, username="keyserver", password="keyserver")
    assert Level.FAIL is found["access list"]


async def test_a_broker_that_keeps_nothing_fails() -> None:
    """Members that were away would find no keys."""
    port = free_port()
    with run_mosquitto(f"listener {port} 127.0.0.1\nallow_anonymous true\nretain_available false", port) as broker:
        assert Level.FAIL is (await examined(broker.url))["retained"]


async def test_an_access_list_that_is_too_tight_fails() -> None:
    """The server gets in and may write, but hears nothing: the round trip says what to let it do."""
    port = free_port()
    rules = {"acl": "topic write bkm/#\n"}
    text = f"listener {port} 127.0.0.1\nallow_anonymous true\nacl_file acl"
    with run_mosquitto(text, port, rules) as broker:
        found = {finding.check: finding async for finding in look(broker.url, Options(role=Role.SERVER), "bkm/1")}
    assert (Level.OK, Level.FAIL) == (found["broker"].level, found["round trip"].level)
    assert "read and write bkm/1/#" in found["round trip"].advice


@pytest.mark.parametrize(("took", "level"), [(0.001, Level.OK), (1.5, Level.WARN), (None, Level.FAIL)])
def test_a_round_trip_is_judged_by_its_time(took: float | None, level: Level) -> None:
    """A slow broker is a doubt, one that does not deliver a failure."""
    finding = round_trip(took, "bkm/1")
    assert (level, level is not Level.OK) == (finding.level, bool(finding.advice))


async def test_a_broker_that_is_not_there_fails() -> None:
    """In one finding, which says so."""
    assert {"broker": Level.FAIL} == await examined(f"mqtt://127.0.0.1:{free_port()}")


async def test_nothing_is_left_retained(mosquitto: MqttBroker) -> None:
    """What the doctor had kept it clears."""
    await examined(mosquitto.url)
    found: list[str] = []
    link = transport.create(mosquitto.url, Options())
    await link.open()
    try:
        await link.subscribe(["bkm/1/+/n/#", "bkm/1/+/b"])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                async for item in link.incoming():
                    if isinstance(item, Delivery) and item.payload and "/doctor-" in item.topic:
                        found += [item.topic]
    finally:
        await link.close()
    assert [] == found

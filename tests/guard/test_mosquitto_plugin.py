"""The C plugin in a real Mosquitto, spoken to in the bytes of its control messages (plugin/README.md)."""

from __future__ import annotations

import os
import queue
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from brokers.mqtt import MqttBroker, mosquitto
from brokers.process import free_port, require
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from brokerkm.core.login import Principal, password

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).parents[2] / "adapters/brokerkm_mosquitto/plugin"
PATIENCE = 10.0  # seconds
CONTROL = "$CONTROL/brokerkm/v1"
HELLO, BEGIN, PORTION, END, CHANGE, SETTINGS, FORGET, STATE, LIST = range(1, 10)
LISTED, SEATED, EVICTED = 1, 2, 3
OK, MALFORMED, REFUSED = 0, 1, 2


class Party:
    """A client of the broker, with all that it has received."""

    def __init__(self, port: int, user: str, secret: str, client_id: str) -> None:
        self.received: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.gone = threading.Event()
        self.answers: queue.Queue[int] = queue.Queue()
        self.connected: queue.Queue[bool] = queue.Queue()
        self.client = client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        client.username_pw_set(user, secret)
        client.on_connect = lambda _c, _u, _f, reason, _p: self.connected.put(not reason.is_failure)
        client.on_disconnect = lambda *_: self.gone.set()
        client.on_subscribe = lambda _c, _u, _m, reasons, _p: self.answers.put(reasons[0].value)
        client.on_publish = lambda _c, _u, _m, reason, _p: self.answers.put(reason.value)
        client.on_message = self._on_message
        client.connect("127.0.0.1", port)
        client.loop_start()
        self.admitted = self.connected.get(timeout=PATIENCE)

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:  # noqa: ANN401 - paho's
        self.received.put((message.topic, message.payload))

    def may_subscribe(self, pattern: str) -> bool:
        """Subscribe, and return whether the broker granted it."""
        self.client.subscribe(pattern, 1)
        return self.answers.get(timeout=PATIENCE) < 0x80

    def may_publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> bool:
        """Publish, and return whether the broker took it."""
        self.client.publish(topic, payload, 1, retain)
        return self.answers.get(timeout=PATIENCE) < 0x80

    def control(self, kind: int, body: bytes = b"", serial: int = 7) -> tuple[int, bytes]:
        """Send a control message; return the code and the text of its answer."""
        return self.control_raw(struct.pack(">BBI", 1, kind, serial) + body)

    def control_raw(self, message: bytes) -> tuple[int, bytes]:
        """Send the bytes of a control message, whole."""
        assert self.may_publish(CONTROL, message)
        topic, answer = self.received.get(timeout=PATIENCE)
        assert topic == f"{CONTROL}/response"
        return answer[6], answer[7:]

    def close(self) -> None:
        """Leave."""
        self.client.disconnect()
        self.client.loop_stop()


def text(value: str) -> bytes:
    """Return a text with its length in front."""
    return bytes([len(value)]) + value.encode()


def filters(*values: str) -> bytes:
    """Return a list of topic filters."""
    return bytes([len(values)]) + b"".join(struct.pack(">H", len(value)) + value.encode() for value in values)


def settings(*, applicants: bool = True) -> bytes:
    """Return a group's settings."""
    return bytes([4, applicants]) + text("bkm/1") + filters("app/%m/#") + filters("app/#")


class Device:
    """A member id with its identity key."""

    def __init__(self, member: str, slot: int | None = None, status: int = SEATED) -> None:
        self.member, self.slot, self.status = member, slot, status
        self.key = Ed25519PrivateKey.from_private_bytes(member.encode().ljust(32, b"."))

    def record(self, status: int | None = None) -> bytes:
        """Return the device's record, as the table has it."""
        slot = 0xFFFFFFFF if self.slot is None or status == EVICTED else self.slot
        identity = self.key.public_key().public_bytes_raw()
        return text(self.member) + struct.pack(">BI", status or self.status, slot) + identity

    def log_in(self, port: int, user: str = "") -> Party:
        """Connect as this device."""
        principal = Principal("plant", self.member)
        secret = password(principal, self.key.public_key().public_bytes_raw(), self.key.sign)
        return Party(port, user or principal.username, secret, f"client-{self.member}-{user}")


ALICE, BOB, CAROL = Device("alice", 0), Device("bob", 5), Device("carol", None, LISTED)
TABLE = (ALICE, BOB, CAROL)


def load(server: Party) -> None:
    """Give the broker the whole table, as one snapshot."""
    records = b"".join(device.record() for device in TABLE)
    assert server.control(BEGIN, text("plant") + settings())[0] == OK
    assert server.control(PORTION, text("plant") + struct.pack(">H", len(TABLE)) + records)[0] == OK
    assert server.control(END, text("plant") + struct.pack(">I", len(TABLE)))[0] == OK


def change(server: Party, record: bytes) -> None:
    """Tell the broker of one member."""
    assert server.control(CHANGE, text("plant") + struct.pack(">H", 1) + record) == (OK, b"")


@pytest.fixture(scope="module")
def plugin() -> Iterator[Path]:
    """Build the plugin as an operator does, where Mosquitto, which becomes another user, may read it."""
    require("gcc", "gcc libc6-dev libssl-dev")
    if not Path("/usr/include/mosquitto_plugin.h").exists() and not os.environ.get("CI"):
        pytest.skip("mosquitto_plugin.h is not installed: apt-get install mosquitto-dev")
    with tempfile.TemporaryDirectory(prefix="brokerkm-plugin-") as directory:
        Path(directory).chmod(0o755)
        command = [require("make", "make"), "-C", str(SOURCE), f"OUT={directory}"]
        subprocess.run(command, check=True, capture_output=True)
        yield Path(directory) / "brokerkm_mosquitto.so"


@pytest.fixture
def broker(plugin: Path, tmp_path: Path) -> Iterator[MqttBroker]:
    """Mosquitto with the plugin, a state file, and the key server in its password file."""
    users = tmp_path / "users"
    users.write_text("keyserver:keyserver\n")
    subprocess.run([require("mosquitto_passwd", "mosquitto"), "-U", str(users)], check=True)
    port = free_port()
    configuration = (
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file users\nset_tcp_nodelay true\n"
        f"plugin {plugin}\nplugin_opt_keyserver keyserver\nplugin_opt_state state\n"
    )
    with mosquitto(configuration, port, {"users": users.read_text()}) as running:
        yield running


@pytest.fixture
def server(broker: MqttBroker) -> Iterator[Party]:
    """Connect the key server."""
    party = Party(broker.port, "keyserver", "keyserver", "keyserver")
    yield party
    party.close()


def test_without_a_table_only_the_key_server_gets_in(broker: MqttBroker, server: Party) -> None:
    """Until the key server has loaded a table, no device is let in."""
    party = ALICE.log_in(broker.port)
    assert not party.admitted
    party.close()
    load(server)
    party = ALICE.log_in(broker.port)
    assert party.admitted
    party.close()


def test_a_member_has_its_own_topics_and_no_others(broker: MqttBroker, server: Party) -> None:
    """Path, Beacon, own Welcome and own requests; not a sibling's, no wildcard, no forged Rekey."""
    load(server)
    bob = BOB.log_in(broker.port)
    own = ("n/0/1", "n/1/1", "n/2/0", "n/24/0", "b", "k", "m/bob")
    others = ("n/0/0", "n/1/0", "n/2/1", "n/25/0", "n/1/01", "m/alice", "r/bob", "r/+", "m/+", "#")
    assert [True] * len(own) == [bob.may_subscribe(f"bkm/1/plant/{topic}") for topic in own]
    assert [False] * len(others) == [bob.may_subscribe(f"bkm/1/plant/{topic}") for topic in others]
    refused = (
        "#",
        "+/#",
        "+/1/plant/b",
        "bkm/#",
        "$share/x/#",
        "$share/x/bkm/1/plant/b",
        "$SYS/#",
        CONTROL + "/response",
    )
    assert [False] * len(refused) == [bob.may_subscribe(pattern) for pattern in refused]
    assert bob.may_subscribe("app/+/temperature")
    assert bob.may_subscribe("$share/x/app/#")
    assert bob.may_publish("bkm/1/plant/r/bob")
    assert bob.may_publish("app/bob/temperature")
    forbidden = ("bkm/1/plant/n/1/1", "bkm/1/plant/b", "bkm/1/plant/k", "bkm/1/plant/m/bob", "bkm/1/plant/r/alice")
    assert [False] * len(forbidden) == [bob.may_publish(topic) for topic in forbidden]
    assert not bob.may_publish("bkm/1/plant/r/bob", retain=True)
    assert not bob.may_publish("app/alice/temperature")
    assert not bob.may_publish(CONTROL, struct.pack(">BBI", 1, HELLO, 1))
    bob.close()


def test_what_is_published_reaches_whom_it_is_for_and_stops_at_a_move(broker: MqttBroker, server: Party) -> None:
    """Rights are asked for at each delivery: after a move the old path's topic delivers nothing."""
    load(server)
    bob = BOB.log_in(broker.port)
    assert bob.may_subscribe("bkm/1/plant/n/1/1")
    assert server.may_publish("bkm/1/plant/n/1/1", b"first")
    assert ("bkm/1/plant/n/1/1", b"first") == bob.received.get(timeout=PATIENCE)
    change(server, Device("bob", 9).record())
    assert server.may_publish("bkm/1/plant/n/1/1", b"second")
    assert bob.may_subscribe("bkm/1/plant/n/1/2")
    assert server.may_publish("bkm/1/plant/n/1/2", b"third")
    assert ("bkm/1/plant/n/1/2", b"third") == bob.received.get(timeout=PATIENCE)
    bob.close()


def test_a_listed_device_may_only_ask_for_a_seat(broker: MqttBroker, server: Party) -> None:
    """An applicant has its request topic, its own mail and the group's notices; neither data nor Rekeys."""
    load(server)
    carol = CAROL.log_in(broker.port, user="carol")
    assert carol.admitted
    assert carol.may_publish("bkm/1/plant/r/carol")
    assert carol.may_subscribe("bkm/1/plant/m/carol")
    assert not carol.may_subscribe("bkm/1/plant/n/0/0")
    assert not carol.may_subscribe("app/x")
    assert not carol.may_publish("app/carol/x")
    carol.close()


def test_another_key_than_the_listed_one_is_refused(broker: MqttBroker, server: Party) -> None:
    """A password by another identity key, for another name, or none of ours, opens nothing."""
    load(server)
    stranger = Ed25519PrivateKey.generate()
    public = stranger.public_key().public_bytes_raw()
    good = password(Principal("plant", "alice"), ALICE.key.public_key().public_bytes_raw(), ALICE.key.sign)
    attempts = {
        "plant:alice": (
            password(Principal("plant", "alice"), public, stranger.sign),
            good[:-1],
            good + "A",
            "bkm1:",
            "x",
        ),
        "plant:bob": (good,),
        "nowhere:alice": (good,),
    }
    for user, secrets in attempts.items():
        for secret in secrets:
            party = Party(broker.port, user, secret, "attempt")
            assert not party.admitted
            party.close()


def test_who_logged_in_under_an_id_that_becomes_somebody_elses_has_to_go(broker: MqttBroker, server: Party) -> None:
    """An id that no key is bound to takes any; when one is bound, only the connection by that one stays."""
    load(server)
    squatter, owner = Device("dave"), Device("dave", 7)
    owner.key = Ed25519PrivateKey.generate()
    first = squatter.log_in(broker.port)
    assert first.admitted
    change(server, owner.record())
    assert first.gone.wait(PATIENCE)
    first.client.loop_stop()
    newcomer, seat = Device("erin"), Device("erin", 8)
    second = newcomer.log_in(broker.port)
    change(server, seat.record())
    assert second.may_subscribe("bkm/1/plant/n/1/2")
    second.close()


def test_an_evicted_member_is_disconnected_at_once_and_stays_out(broker: MqttBroker, server: Party) -> None:
    """Within a second it is gone, and the same credentials are refused."""
    load(server)
    bob = BOB.log_in(broker.port)
    started = time.monotonic()
    change(server, BOB.record(EVICTED))
    assert bob.gone.wait(1)
    print(f"evicted member disconnected after {1000 * (time.monotonic() - started):.1f} ms")  # noqa: T201 - a figure
    bob.client.loop_stop()
    again = BOB.log_in(broker.port)
    assert not again.admitted
    again.close()


def test_a_restarted_broker_knows_from_its_state_file_who_is_in_and_who_is_out(
    broker: MqttBroker, server: Party
) -> None:
    """Without a word from the key server, members get in and evicted ones do not."""
    load(server)
    change(server, BOB.record(EVICTED))
    before = server.control(STATE, text("plant"))
    server.client.loop_stop()
    broker.restart()
    for device, admitted in ((ALICE, True), (BOB, False)):
        party = device.log_in(broker.port)
        assert admitted == party.admitted
        party.close()
    again = Party(broker.port, "keyserver", "keyserver", "keyserver-2")
    assert before == again.control(STATE, text("plant"))
    again.close()


def test_a_malformed_message_is_answered_with_its_field_and_changes_nothing(server: Party) -> None:
    """Each names what is wrong with it."""
    load(server)
    before = server.control(STATE, text("plant"))
    one = text("plant") + struct.pack(">H", 1)
    assert (MALFORMED, b"version: is not 1") == server.control_raw(b"\2\1\0\0\0\1")
    assert (MALFORMED, b"serial: truncated") == server.control_raw(b"\1\1")
    assert (MALFORMED, b"kind: out of range") == server.control(99)
    assert (MALFORMED, b"message: has trailing bytes") == server.control(HELLO, b"x")
    assert (MALFORMED, b"status (number 1): out of range") == server.control(
        CHANGE, one + text("bob") + b"\x09" + b"\0" * 36
    )
    assert (MALFORMED, b"identity (number 1): truncated") == server.control(CHANGE, one + ALICE.record()[:-1])
    code, problem = server.control(CHANGE, text("plant") + struct.pack(">H", 2) + BOB.record(EVICTED) + b"\1/")
    assert (MALFORMED, True) == (code, problem.startswith(b"id (number 2): "))
    assert (REFUSED, b"group: it is not loaded") == server.control(STATE, text("other"))
    assert before == server.control(STATE, text("plant"))

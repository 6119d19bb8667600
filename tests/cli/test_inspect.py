"""Every message type taken apart, wherever it comes from, and every malformed field named."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Suite
from brokerkm.core.group import Group
from brokerkm.core.member import Member
from brokerkm.core.memory import Profile
from brokerkm.core.names import Topics
from brokerkm.core.notice import RefusalReason
from brokerkm.core.policy import Policy
from brokerkm.core.request import Join, TokenKey
from brokerkm.core.wire import pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    Call = Callable[..., Result]

NOW = time.time()
TOPICS = Topics("plant")


@pytest.fixture(scope="module", params=[Suite.X25519, Suite.MLKEM768_X25519])
def recorded(request: pytest.FixtureRequest) -> tuple[Group, dict[str, tuple[str, bytes]]]:
    """Give a group, and one message of each type that it and its members sent: by type, with its topic."""
    suite = request.param
    group = Group("plant", os.urandom(32), degree=4, suite=suite, policy=Policy(source_authentication=True))
    members = {}
    messages: dict[str, tuple[str, bytes]] = {}
    for number in range(20):
        name = f"m{number}"
        member = members[name] = Member.create(Profile("plant", name, group.server_key, suite), os.urandom)
        token = TokenKey.from_secret(bytes(8), bytes(32)) if number else None
        messages["join" if number else "listed"] = (TOPICS.request(name), member.join(NOW, token))
        join = Join.decode(messages["join" if number else "listed"][1], suite)
        group.enroll(Enrollment(name, join.identity, join.kem_public, join.nonce))
    for name, payload in group.commit(NOW, os.urandom).welcomes:
        messages["welcome"] = (TOPICS.member(name), payload)
        members[name].receive(TOPICS.member(name), payload, NOW)
    messages["sync"] = (TOPICS.request("m3"), members["m3"].sync(NOW))
    messages["data"] = ("plant/temperature", members["m3"].seal("plant/temperature", b"21.4", NOW))
    messages["leave"] = (TOPICS.request("m3"), members["m3"].leave(NOW))
    group.evict("m5")
    commit = group.commit(NOW, os.urandom)
    for rekey in commit.rekeys:
        kind = f"rekey{rekey.level}"
        messages[kind] = (TOPICS.node(rekey.level, rekey.index), rekey.payload)
    messages["beacon"] = (TOPICS.beacon, commit.beacon)
    messages["goodbye"] = (TOPICS.member("m5"), commit.goodbyes[0][1])
    for number, part in enumerate(group.seal_for(["m1", "m8", "m9", "m10", "m11"], b"hello", NOW, os.urandom)):
        messages[f"subgroup{number}"] = (TOPICS.node(part.level, part.index), part.payload)
    refusal = group.refusal("m9", bytes(16), RefusalReason.NOT_ADMITTED, NOW)
    messages["farewell"] = (TOPICS.beacon, group.farewell(os.urandom))
    messages["refusal"] = (TOPICS.member("m9"), refusal)
    messages["handover"] = (TOPICS.handover, group.prepare_handover(bytes(32), NOW).message)
    return group, messages


def report(result: Result) -> dict[str, object]:
    """Return what was printed as JSON."""
    found: dict[str, object] = json.loads(result.output)
    return found


Recorded = tuple[Group, dict[str, tuple[str, bytes]]]
BY_SERVER = {
    "welcome",
    "rekey0",
    "rekey1",
    "rekey2",
    "beacon",
    "goodbye",
    "farewell",
    "subgroup0",
    "subgroup1",
    "refusal",
    "handover",
}


ALIASES = {"listed": "join", "farewell": "goodbye"}


def test_every_type_is_shown_with_and_without_topic(call: Call, recorded: Recorded) -> None:
    """The same fields are found whether the topic is known or not, and the signature is checked if it is."""
    group, messages = recorded
    assert BY_SERVER | {"join", "listed", "sync", "leave", "data"} == set(messages)
    for kind, (topic, payload) in messages.items():
        key = group.server_key.hex()
        known = report(call("inspect", "--json", "--hex", payload.hex(), "-t", topic, "--server-key", key))
        blind = report(call("inspect", "--json", "--hex", payload.hex()))
        assert (ALIASES.get(kind, kind.rstrip("012")), known["type"]) == (known["type"], blind["type"])
        assert (len(payload), known["fields"]) == (blind["bytes"], blind["fields"])
        expected = "good" if kind in BY_SERVER | {"join", "listed"} else "not signed by the key server"
        assert (None if kind == "data" else expected) == known.get("signature_check")


def test_person_is_shown_names_and_times(call: Call, recorded: Recorded) -> None:
    """For people, fields stand in two columns, long ones are cut, and times are dates."""
    _, messages = recorded
    topic, payload = messages["beacon"]
    lines = call("inspect", "-t", topic, "--hex", payload.hex()).output.splitlines()
    assert f"Beacon, {len(payload)} bytes, bkm/1/plant/b" == lines[0]
    values = dict(line.strip().split(None, 1) for line in lines[1:])
    assert ("plant", "2", "3", "2", "0", "30") == tuple(
        values[name] for name in ("group", "epoch", "height", "birth", "step", "due")
    )
    assert time.strftime("%Y-%m-%dT%H:%M", time.gmtime(NOW)) in values["time"]
    assert values["signature"].endswith("... (64 bytes)")
    assert values["policy"].startswith("grace 30, hold 5, max_silence 300, ")
    topic, payload = messages["rekey1"]
    assert "entries    slot -, birth 1, step 0, wrapped " in call("inspect", "--hex", payload.hex()).output
    assert "chain      none" in call("inspect", "--hex", messages["rekey2"][1].hex()).output
    assert "certificate  identity " in call("inspect", "--hex", messages["data"][1].hex()).output


def test_message_may_come_in_any_clothing(call: Call, recorded: Recorded) -> None:
    """Raw, hexadecimal and base64 are recognised, from a file and from standard input."""
    _, messages = recorded
    _, payload = messages["beacon"]
    with open("captured", "wb") as file:  # noqa: PTH123 - in the fresh directory
        file.write(payload)
    expected = report(call("inspect", "--json", "captured"))
    assert expected["type"] == "beacon"
    for clothing in (payload, payload.hex().encode() + b"\n", base64.b64encode(payload)):
        assert expected == report(call("inspect", "--json", input=clothing))
    for garbage, kind in ((b"\xc0garbage", "malformed"), (b" \n", "cleared")):
        assert kind == report(call("inspect", "--json", input=garbage))["type"]
    assert expected == report(call("inspect", "--json", "--base64", base64.b64encode(payload).decode()))


def test_lines_of_a_recording_are_shown_one_by_one(call: Call, recorded: Recorded) -> None:
    """A recording of topics and payloads is taken apart line by line; an empty payload clears a topic."""
    _, messages = recorded
    text = "".join(f"{topic} {payload.hex()}\n" for topic, payload in messages.values()) + "\nbkm/1/plant/m/m8 \n"
    result = call("inspect", "--lines", "--json", input=text)
    assert 0 == result.exit_code
    kinds = [json.loads(line)["type"] for line in result.output.splitlines()]
    assert (len(messages) + 1, "cleared") == (len(kinds), kinds[-1])
    assert "clears what the broker retained" in call("inspect", "-l", input="bkm/1/plant/b\n").output
    assert 2 == call("inspect", "-l", input="bkm/1/plant/b xyz\n").exit_code


def test_forged_signature_is_bad(call: Call, recorded: Recorded) -> None:
    """Another server's key, and a topic other than the message's, make a signature bad; the command fails."""
    group, messages = recorded
    _, payload = messages["rekey1"]
    for topic, key in ((TOPICS.node(1, 7), group.server_key.hex()), (messages["rekey1"][0], "ab" * 32)):
        result = call("inspect", "-t", topic, "--server-key", key, "--hex", payload.hex())
        assert (1, True) == (result.exit_code, "signature check  bad" in result.output)
    result = call("inspect", "-t", TOPICS.node(1, 7), "--server-key", "ab", "--hex", payload.hex())
    assert (1, True) == (result.exit_code, "server_key: wrong-length" in result.output)


@pytest.mark.parametrize(
    ("payload", "topic", "field", "reason"),
    [
        (b"\xc0", None, "message", "wrong-type"),
        (b"\x98\x01", None, "message", "truncated"),
        (pack((2, 1)), None, "version", "wrong-version"),
        (pack((1, 13)), None, "type", "wrong-message"),
        (pack((1, 1, 1, 1, [], b"", None, bytes(64))), None, "entries", "wrong-length"),
        (pack((1, 1, 1, 0, [], b"", None, bytes(64))), None, "height", "out-of-range"),
        (pack((1, 2, 1, 1, 1, 1, 1, 1, (1, 1, 1, 0, 0, 1, 0), bytes(63))), None, "signature", "wrong-length"),
        (pack((1, 8, 1, 0, "a b", bytes(8), 0, bytes(16))), None, "sender", "out-of-range"),
        (pack((1, 10, 1)), None, "message", "wrong-length"),
        (pack((1, 4, 1, 1, bytes(16), None, bytes(64))), "bkm/1/plant/k", "topic", "wrong-topic"),
        (pack((1, 4, 1, 1, bytes(16), None, bytes(64))), "bkm/1/pl+nt/b", "topic", "wrong-topic"),
        (pack((1, 4, 1, 1, bytes(16), None, bytes(64))), "bkm/1", "topic", "wrong-topic"),
        (pack((1, 3, bytes(16), bytes(17000), bytes(64))), None, "message", "oversized"),
    ],
)
def test_malformed_field_is_named(call: Call, payload: bytes, topic: str | None, field: str, reason: str) -> None:
    """What is wrong is said by field and reason of the closed list, beside what could be read."""
    where = [] if topic is None else ["-t", topic]
    result = call("inspect", "--json", *where, "--hex", payload.hex())
    error = report(result)["error"]
    assert isinstance(error, dict)
    assert (1, field, reason) == (result.exit_code, error["field"], error["reason"])
    assert f"wrong     {field}: {reason}" in call("inspect", *where, "--hex", payload.hex()).output


def test_application_topic_may_carry_anything(call: Call) -> None:
    """Only topics below the prefix say what belongs there."""
    payload = pack((1, 4, 1, 1, bytes(16), None, bytes(64)))
    assert "goodbye" == report(call("inspect", "--json", "-t", "plant/x", "--hex", payload.hex()))["type"]
    assert 1 == call("inspect", "--json", "-t", "x/plant/k", "--prefix", "x", "--hex", payload.hex()).exit_code


def test_elements_of_a_malformed_message_are_sketched(call: Call) -> None:
    """Types and sizes of the elements are shown, so that one sees where it goes wrong."""
    payload = pack((1, 2, "abc", bytes(5), [1, 2], None, {}))
    assert ["1", "2", "3 characters", "5 bytes", "2 elements", "nil", "dict"] == report(
        call("inspect", "--json", "--hex", payload.hex())
    )["elements"]


def test_absurd_time_does_not_break_it(call: Call) -> None:
    """A time that no calendar has is shown as the number that it is."""
    payload = pack((1, 7, bytes(16), (1 << 63) - 1, 1, bytes(32)))
    assert "beyond the calendar" in call("inspect", "--hex", payload.hex()).output


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_topic_gives_no_orders_to_the_terminal(call: Call, options: tuple[str, ...]) -> None:
    """Anybody can publish on a topic with escape sequences; a recording of it shows them spelled out."""
    topic = "plant/\x1b]0;owned\x07\x9b2J\u202e"
    shown = call("inspect", "--lines", *options, input=f"{topic} \n".encode()).output
    assert not set(topic) & set(shown) - set("plant/]0;owned2J")
    assert "owned" in shown

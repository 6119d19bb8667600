"""The CDDL of every message holds for what the real group and its members say, and for nothing like it."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import cbor2
import msgpack
import pycddl
import pytest

from brokerkm.core.crypto import Suite
from schemas.cddl import Schema
from schemas.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = pathlib.Path(__file__).parents[2] / "schemas"
FILES = {
    "rekey": "rekey",
    "beacon": "beacon",
    "welcome": "welcome",
    "welcome-sealed": "welcome",
    "welcome-sealed-with-spares": "welcome",
    "goodbye": "goodbye",
    "handover": "handover",
    "join": "requests",
    "sync": "requests",
    "leave": "requests",
    "ack": "requests",
    "data": "data",
    "refusal": "refusal",
    "subgroup": "subgroup",
}
SESSIONS = [
    (Suite.X25519, 2, False),
    (Suite.X25519, 4, True),
    (Suite.MLKEM768_X25519, 3, True),
    (Suite.MLKEM768_X25519, 64, False),
]
IDENTIFIER = "[A-Za-z0-9._-]{1,64}"


def read(rule: str) -> str:
    """Return the CDDL that has `rule`."""
    return (FOLDER / f"{FILES[rule]}.cddl").read_text() + (FOLDER / "common.cddl").read_text()


def load(rule: str) -> pycddl.Schema:
    """Return the schema whose first rule is `rule`."""
    assert IDENTIFIER in read(rule)
    # RFC 8610's regular expressions match whole strings; the validator's do not unless they are told to.
    return pycddl.Schema(f"start = {rule}\n" + read(rule).replace(IDENTIFIER, f"^(?:{IDENTIFIER})$"))


SCHEMAS = {rule: load(rule) for rule in FILES}
STRICT = {rule: Schema(read(rule)) for rule in FILES}


def matches(rule: str, value: object) -> bool:
    """Return whether `value` is what `rule` says, to the validator that everybody can install."""
    try:
        SCHEMAS[rule].validate_cbor(cbor2.dumps(value))
    except pycddl.ValidationError:
        return False
    return True


@pytest.fixture(scope="module", params=SESSIONS, ids=lambda item: f"{item[0].name}-{item[1]}-{item[2]}")
def said(request: pytest.FixtureRequest) -> dict[str, list[list[object]]]:
    """All values that a random session said, by rule."""
    messages = Session(*request.param).run(turns=25, crowd=4200)
    return {rule: [msgpack.unpackb(payload) for payload in payloads] for rule, payloads in messages.items()}


def variants(value: object) -> Iterator[object]:
    """Yield values that must not stand where `value` may."""
    match value:
        case bytes():
            yield from (value.hex(), 7, 1.5, [value])
            if len(value) % 16:  # a proof may be nil
                yield None
            if len(value) in {8, 16, 32, 64, 1216} or (len(value) == 40 and value.count(0) < 40):
                yield from (value + b"\0", value[:-1])
        case str():
            yield from (value.encode(), value + " ", value + "\n", "", "a" * 65, "\u00e4", None)
        case int():
            yield from (-1, 1 << 63, 1.5, True, str(value), bytes(1), bytes(8), [value], {})
        case list():
            yield from ([], [[]], [0], {}, 7, [1.5, *value[1:]])
        case _:
            yield from (1.5, "nil", bytes(17), {}, [])


def spoiled(fields: list[object]) -> Iterator[list[object]]:
    """Yield what no message may be: an element more or less, each element of another type, length or range."""
    if not isinstance(fields[0], list):  # entries and paths may have another length
        yield from ([*fields, 0], [*fields, None], fields[:-1], [fields])
    for at, field in enumerate(fields):
        for other in variants(field):
            yield [*fields[:at], other, *fields[at + 1 :]]
        if isinstance(field, list):
            for deep in spoiled(field):
                yield [*fields[:at], deep, *fields[at + 1 :]]


def proves_by_certificate(rule: str, sample: list[object], value: list[object]) -> bool:
    """Return whether a Join became one by a device certificate: certificates and signatures have any length."""
    if rule != "join" or [*sample[:7], *sample[9:]] != [*value[:7], *value[9:]]:
        return False
    return isinstance(value[7], list) and isinstance(value[8], bytes)


def test_every_message_of_a_session_matches(said: dict[str, list[list[object]]]) -> None:
    """Each rule is used, and each message matches its own."""
    assert set(said) == set(FILES)
    assert [(rule, value) for rule, values in said.items() for value in values if not matches(rule, value)] == []
    assert [(rule, value) for rule in said for value in said[rule] if not STRICT[rule].matches(rule, value)] == []


def test_no_message_matches_the_rule_of_another(said: dict[str, list[list[object]]]) -> None:
    """A message is of one type only."""
    firsts = {rule: values[0] for rule, values in said.items()}
    assert [(one, other) for one in firsts for other in FILES if one != other and matches(other, firsts[one])] == []


def test_spoiled_messages_do_not_match(said: dict[str, list[list[object]]]) -> None:
    """An element more or less, or one of another type, length or range, at any depth, is no message."""
    wrong = [
        (rule, value)
        for rule, values in said.items()
        for sample in (values[0], values[-1])
        for value in spoiled(sample)
        if STRICT[rule].matches(rule, value) and not proves_by_certificate(rule, sample, value)
    ]
    assert wrong == []


def test_numbers_beyond_their_range_do_not_match(said: dict[str, list[list[object]]]) -> None:
    """One less than the least and one more than the most, for each number that has a range of its own."""
    ranges = {
        "rekey": {2: (0,), 3: (0, 25)},
        "beacon": {3: (0, 25), 5: (65_536,), 7: (0, 1 << 32)},
        "welcome-sealed": {0: (0,), 2: (1 << 24,), 3: (1, 65)},
        "welcome-sealed-with-spares": {0: (0,), 2: (1 << 24,), 3: (1, 65)},
        "goodbye": {2: (0,), 3: (0, 4)},
        "data": {2: (0,), 3: (65_536,)},
        "refusal": {3: (0, 5)},
        "ack": {5: (0,)},
        "subgroup": {3: (1 << 24,), 4: (0,), 5: (65_536,)},
    }
    for rule, places in ranges.items():
        fields = said[rule][0]
        assert STRICT[rule].matches(rule, fields)
        for at, values in places.items():
            for value in values:
                assert not STRICT[rule].matches(rule, [*fields[:at], value, *fields[at + 1 :]])


def test_spoiled_messages_do_not_match_for_others(said: dict[str, list[list[object]]]) -> None:
    """What the lenient validator looks at, the number of elements and the type of each, it refuses too."""
    for rule, values in said.items():
        fields = values[0]
        assert not matches(rule, [*fields, 0])
        assert not matches(rule, fields[:-1])
        assert not any(matches(rule, [*fields[:at], 1.5, *fields[at + 1 :]]) for at in range(len(fields)))


def test_session_has_what_the_formats_offer(said: dict[str, list[list[object]]]) -> None:
    """Blocks and single signatures, buckets and inner nodes, the kinds of Join and of Subgroup are among it."""
    assert {proof is None for *_, proof, _ in said["rekey"]} == {True, False}
    assert {proof is None for *_, proof, _ in said["goodbye"]} == {True, False}
    assert {type(credential) for *_, credential, _, _ in said["join"]} == {type(None), bytes, list}
    assert {slot is None for _, _, _, slot, *_ in said["subgroup"]} == {True, False}
    assert {entries[0][0] is None for _, _, _, _, entries, *_ in said["rekey"]} == {True, False}

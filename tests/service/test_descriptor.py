"""The group descriptor: what is written is read, and what is wrong with it is said."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest

from brokerkm.core.crypto import Suite
from brokerkm.descriptor import MAX_SIZE, Descriptor, EnrollmentToken
from brokerkm.errors import StoreError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = EnrollmentToken(bytes(8), bytes(range(32)))
TEXT = "bkt1_AAAAAAAAAAAAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw"
FULL = Descriptor(
    broker="mqtts://user:secret@broker:8883",
    group="plant",
    prefix="x/y",
    suite=Suite.MLKEM768_X25519,
    server_key=bytes(range(32)),
    token=TOKEN,
    token_expires=1_790_000_000,
)
LEAST: dict[str, Any] = {
    "brokerkm": 1,
    "broker": "zmq+ipc:///run/hub",
    "group": "plant",
    "prefix": "bkm/1",
    "suite": "x25519",
    "server_key": "00" * 32,
}


def test_a_token_as_text() -> None:
    """The text form is fixed, and read back."""
    assert TEXT == str(TOKEN)
    assert EnrollmentToken.parse(TEXT) == TOKEN
    assert TOKEN.key.id == TOKEN.id


@pytest.mark.parametrize("text", ["", "bkt1_", TEXT[:-1], TEXT + "A", TEXT[5:], "bkt2_" + TEXT[5:], TEXT[:-1] + "é"])
def test_a_damaged_token(text: str) -> None:
    """It is refused without being repeated."""
    with pytest.raises(UsageError, match="was it cut off") as caught:
        EnrollmentToken.parse(text)
    assert not text[5:] or text[5:] not in str(caught.value)


def test_a_file_comes_back(tmp_path: Path) -> None:
    """It is private, and replaces an older one."""
    path = tmp_path / "fleet.join"
    path.write_text("old")
    FULL.write(path)
    assert Descriptor.read(path) == FULL
    assert (0o600, [path]) == (stat.S_IMODE(path.stat().st_mode), list(tmp_path.iterdir()))


def test_what_is_optional() -> None:
    """A descriptor without a token is for devices whose keys are listed."""
    found = Descriptor.from_json(json.dumps(LEAST))
    assert (None, None, Suite.X25519) == (found.token, found.token_expires, found.suite)
    assert LEAST == json.loads(found.to_json())


def test_no_text_shows_a_secret() -> None:
    """Neither the token's nor the broker's password is in a repr."""
    assert "secret" not in repr(FULL).replace("secret=", "")
    assert repr(bytes(range(32))[5:20])[2:-1] not in repr(TOKEN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokn": TEXT}, "'tokn' is unknown: did you mean 'token'?"),
        ({"zzzzzz": 1}, "'zzzzzz' is unknown$"),
        ({"brokerkm": 2}, "brokerkm: this program reads descriptors of version 1, not 2"),
        ({"brokerkm": True}, "brokerkm: this program"),
        ({"broker": "broker"}, "broker: it has to be a URL"),
        ({"broker": "mqtt://x\n"}, "broker: it has to be a URL"),
        ({"broker": "mqtt://" + "x" * 3000}, "broker: it has to be a URL"),
        ({"broker": 1}, "broker: it has to be text"),
        ({"group": "a/b"}, "group 'a/b' is not 1 to 64"),
        ({"prefix": "a/b/c/d"}, "prefix 'a/b/c/d' is not"),
        ({"suite": "rsa"}, "suite: 'rsa' is not one of x25519, mlkem768-x25519"),
        ({"server_key": "00" * 31}, "server_key: it has to be 64 hex digits"),
        ({"server_key": "0 " * 32}, "server_key: it has to be 64 hex digits"),
        ({"token": "bkt1_x"}, "token: a token is bkt1_"),
        ({"token_expires": 1.5}, "token_expires: it has to be a whole number"),
        ({"token_expires": -1}, "token_expires: it has to be seconds since 1970"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    """Each error begins with the member of the object that is wrong."""
    with pytest.raises(UsageError, match=message):
        Descriptor.from_json(json.dumps(LEAST | change))


@pytest.mark.parametrize("name", LEAST)
def test_what_is_missing_is_named(name: str) -> None:
    """All but token and expiry has to be there."""
    with pytest.raises(UsageError, match=f"'{name}' is missing"):
        Descriptor.from_json(json.dumps({key: value for key, value in LEAST.items() if key != name}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[]", "it is not a JSON object"),
        (b"[" * 10_000, "it is not JSON"),
        (b'{"group": "a", "group": "b"}', "it is not JSON: a member is there twice"),
        (b" " * (MAX_SIZE + 1), "a descriptor has at most 16384 bytes"),
    ],
)
def test_what_is_no_descriptor(tmp_path: Path, text: bytes, message: str) -> None:
    """The error names the file."""
    path = tmp_path / "fleet.join"
    path.write_bytes(text)
    with pytest.raises(UsageError, match=f"group descriptor {path}: {message}"):
        Descriptor.read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Reading and writing say which path, and why."""
    with pytest.raises(UsageError, match=r"fleet\.join: No such file"):
        Descriptor.read(tmp_path / "fleet.join")
    with pytest.raises(StoreError, match="nothing was written"):
        FULL.write(tmp_path / "none" / "fleet.join")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """No half-written file with a token stays behind."""
    (tmp_path / "fleet.join").mkdir()
    with pytest.raises(StoreError, match="nothing was written"):
        FULL.write(tmp_path / "fleet.join")
    assert ["fleet.join"] == [path.name for path in tmp_path.iterdir()]


def test_a_key_of_the_wrong_length() -> None:
    """A descriptor made by a program is checked like one that was read."""
    with pytest.raises(UsageError, match="server_key: 32 bytes, not 31"):
        Descriptor(broker="mqtt://b", group="g", suite=Suite.X25519, server_key=bytes(31))

"""How a device reaches its broker, and as whom."""

from __future__ import annotations

import os

import pytest

from brokerkm.core.crypto import Suite
from brokerkm.core.login import Principal, identity_of
from brokerkm.core.member import Member
from brokerkm.core.memory import Profile
from brokerkm.errors import UsageError
from brokerkm.sdk.dial import asking_for_identity, dial
from brokerkm.transport import Options

PLAIN = "mqtt://broker.example:1884?version=5"
MEMBER = Member.create(Profile("plant", "pump", bytes(32), Suite.X25519), os.urandom)


@pytest.mark.parametrize(
    ("url", "asking"),
    [
        ("mqtt://broker.example", "mqtt://broker.example?login=identity"),
        (PLAIN, f"{PLAIN}&login=identity"),
        ("mqtt://broker.example?login=identity&version=5", "mqtt://broker.example?login=identity&version=5"),
    ],
)
def test_a_url_asks_once(url: str, asking: str) -> None:
    """It keeps its other parameters."""
    assert asking == asking_for_identity(url)


def test_the_login_is_by_the_identity_key() -> None:
    """The adapter gets user name and password, and not the parameter that asks for them."""
    line = dial(asking_for_identity(PLAIN), Options())
    assert (PLAIN, True) == (line.url, line.by_identity)
    options = line.transport(MEMBER)._options  # type: ignore[attr-defined]
    assert "plant:pump" == options.username
    assert MEMBER.identity == identity_of(Principal("plant", "pump"), options.password)
    assert options.password not in repr(options)
    assert "pump may have been cut off" in line.advice(MEMBER)


@pytest.mark.parametrize(
    ("url", "username", "advice"),
    [
        (PLAIN, None, "; if devices log in there with their identity keys, add login=identity to its URL's parameters"),
        (PLAIN, "alice", ""),
        (f"{PLAIN}&login=identity", "alice", ""),
        ("mqtt://bob:secret@broker.example?login=identity", None, ""),
    ],
)
def test_a_login_that_is_given_counts_more(url: str, username: str | None, advice: str) -> None:
    """So do a URL that asks for nothing, and a name within it."""
    line = dial(url, Options(username=username, password=None if username is None else "secret"))
    assert not line.by_identity
    assert {"alice": "alice", None: "bob" if "bob" in url else None}[username] == (
        line.transport(MEMBER)._options.username  # type: ignore[attr-defined]
    )
    assert advice == line.advice(MEMBER)


def test_another_login_is_refused() -> None:
    """There is one that a URL can ask for."""
    with pytest.raises(UsageError, match=r"login=token: the one login"):
        dial("mqtt://broker.example?login=token", Options())

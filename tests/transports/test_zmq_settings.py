"""ZeroMQ: what URLs, options and key files mean, and which are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from brokerkm.errors import UsageError
from brokerkm.transport import Options, Outgoing, Role, create
from brokerkm_zmq import ZmqTransport, keys, settings

if TYPE_CHECKING:
    import pathlib

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"  # RFC 26's example


@pytest.mark.parametrize(
    ("url", "role", "expected"),
    [
        ("zmq+tcp://localhost:5560", Role.MEMBER, ("tcp://localhost:5560", "tcp://localhost:5561")),
        ("zmq+tcp://localhost:5560", Role.SERVER, ("tcp://127.0.0.1:5560", "tcp://127.0.0.1:5561")),
        ("zmq+tcp://[::1]:5560/", Role.SERVER, ("tcp://[::1]:5560", "tcp://[::1]:5561")),
        ("zmq+ipc:///run/hub", Role.SERVER, ("ipc:///run/hub", "ipc:///run/hub.req")),
        ("zmq+ipc://hub%20one", Role.SERVER, ("ipc://hub%20one", "ipc://hub%20one.req")),
    ],
)
def test_a_url_names_two_endpoints(url: str, role: Role, expected: tuple[str, str]) -> None:
    """Port and port + 1, or path and path.req."""
    assert expected == settings.endpoints(url, role)


@pytest.mark.parametrize(
    "url",
    [
        "zmq+tcp://host",
        "zmq+tcp://host:0",
        "zmq+tcp://host:65535",
        "zmq+tcp://host:99999",
        "zmq+tcp://host:x",
        "zmq+tcp://:5000",
        "zmq+tcp://host:5000/path",
        "zmq+ipc://",
        "zmq+ipc:///" + "x" * 120,
        "zmq+udp://host:5000",
        "zmq+tcp://host:5000?hwm=3",
        "zmq+tcp://host:5000?high_water=many",
        "zmq+tcp://host:5000?high_water=-1",
        "zmq+tcp://host:5000?curve=old",
        "zmq+tcp://host:5000?curve=new",
        "zmq+tcp://host:5000?members=x",
        "zmq+tcp://host:5000?server_key=short",
    ],
)
def test_a_bad_url_is_refused(url: str) -> None:
    """With what is wrong, before anything is opened."""
    with pytest.raises(UsageError):
        ZmqTransport(url, Options())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("username", {"username": "u"}),
        ("password", {"password": "p"}),
        ("cert_file", {"cert_file": "c"}),
        ("will", {"will": Outgoing("t", b"")}),
        ("session_expiry", {"session_expiry": 60}),
        ("clean_start", {"clean_start": False}),
        ("ca_file", {"role": Role.SERVER, "ca_file": "x"}),
        ("server_key", {"role": Role.SERVER, "parameters": {"server_key": KEY}}),
        ("list of members", {"role": Role.SERVER, "parameters": {"members": "x"}}),
    ],
)
def test_what_zeromq_does_not_have_is_refused(name: str, options: dict[str, object]) -> None:
    """The error names the option."""
    with pytest.raises(UsageError, match=name):
        ZmqTransport("zmq+tcp://localhost:5000", Options(**options))  # type: ignore[arg-type]


def test_a_key_without_the_hubs_key_is_refused(tmp_path: pathlib.Path) -> None:
    """It would be used with whoever answers."""
    keys.make_key_file(str(tmp_path / "own"))
    with pytest.raises(UsageError, match="without the hub's public key"):
        ZmqTransport("zmq+tcp://localhost:5000", Options(key_file=str(tmp_path / "own")))


def test_authorize_is_for_the_hub() -> None:
    """A member decides nothing."""
    with pytest.raises(UsageError, match="authorize"):
        ZmqTransport("zmq+tcp://localhost:5000", Options(), lambda _user, _pattern: True)


def test_the_registry_finds_the_adapter() -> None:
    """By scheme, with the URL's parameters in force."""
    transport = create("zmq+tcp://127.0.0.1:5000?high_water=77", Options(role=Role.SERVER))
    assert isinstance(transport, ZmqTransport)
    assert transport._settings.high_water == 77


@pytest.mark.parametrize("content", ["short", "", KEY + "x", "\xff", KEY[:-1] + "\n"])
def test_a_bad_public_key_file_is_refused(tmp_path: pathlib.Path, content: str) -> None:
    """The error names the file."""
    (tmp_path / "pub").write_text(content, encoding="latin-1")
    with pytest.raises(UsageError, match="pub"):
        keys.read_public_key(str(tmp_path / "pub"))


@pytest.mark.parametrize("line", ["one", f"{KEY} a b", "key alice", f"{KEY} a/b", f"{KEY} {'x' * 65}", "\xff"])
def test_a_bad_list_of_members_is_refused(tmp_path: pathlib.Path, line: str) -> None:
    """Nobody is let in or kept out by a misprint."""
    (tmp_path / "members").write_text(line, encoding="latin-1")
    with pytest.raises(UsageError, match="list of members"):
        keys.read_members(str(tmp_path / "members"))
    with pytest.raises(UsageError, match="list of members"):
        keys.read_members(str(tmp_path / "none"))

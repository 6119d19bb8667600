"""Finding the adapter that a URL names, and what the URL says beside it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from brokerkm import transport
from brokerkm.errors import TransportError, UsageError
from brokerkm.transport import Options, create, schemes


class Recorder:
    """An adapter that keeps what it was made with."""

    def __init__(self, url: str, options: Options) -> None:
        self.url = url
        self.options = options


def install(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    """Let the scheme ``test`` be served by these objects, and nothing else by anything."""
    points = [importlib.metadata.EntryPoint("test", value, transport.ENTRY_POINTS) for value in values]

    def entry_points(*, group: str, name: str = "test") -> list[importlib.metadata.EntryPoint]:
        assert group == "brokerkm.transports"
        return points if name == "test" else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


def test_url_overrides_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """User, password and parameters come from the URL, with their escapes undone."""
    install(monkeypatch, f"{__name__}:Recorder")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    options = Options(username="other", client_id="kept", parameters={"a": "1", "b": "2"})
    made = create("test://al%40ice:p%3Aw@host?b=3&c=%26", options)
    assert isinstance(made, Recorder)
    assert (made.options.username, made.options.password, made.options.client_id) == ("al@ice", "p:w", "kept")
    assert made.options.parameters == {"a": "1", "b": "3", "c": "&"}


@pytest.mark.parametrize("url", ["nosuch://host", "host:1883", "", "test://host?a"])
def test_url_of_no_adapter(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """An unknown scheme, none, or a broken query is the caller's mistake."""
    install(monkeypatch, f"{__name__}:Recorder")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    with pytest.raises(UsageError):
        create(url, Options())


def test_scheme_claimed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not left to chance who serves a scheme."""
    install(monkeypatch, "one:A", "two:B")
    with pytest.raises(UsageError, match="more than one package"):
        create("test://host", Options())


def test_adapter_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the adapter and what it lacks."""
    install(monkeypatch, "brokerkm_no_such_adapter:Transport")
    with pytest.raises(TransportError, match="brokerkm_no_such_adapter"):
        create("test://host", Options())


def test_schemes_of_this_project() -> None:
    """These are what an installation serves."""
    assert {"memory", "mqtt", "mqtts", "zmq+ipc", "zmq+tcp"} <= set(schemes())


def test_only_the_named_adapter_is_imported() -> None:
    """Who uses one broker does not load the libraries of another."""
    program = (
        "import sys; from brokerkm.transport import Options, create; create('memory://x', Options());"
        "print(sorted({'paho', 'zmq', 'brokerkm_mqtt', 'brokerkm_zmq', 'brokerkm_memory'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['brokerkm_memory']"

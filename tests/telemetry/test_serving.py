"""A real server at a real broker: what it shows and what never, what goes wrong, what SIGHUP changes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from brokers.mqtt import guarded_mosquitto
from brokers.process import require
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from brokers.mqtt import MqttBroker

_PATIENCE = 30.0  # seconds
_PASSWORD = "keyserver-hunter2-password"


class Server:
    """`brokerkm serve` in a directory of its own, with all that it writes."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.written: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "brokerkm", "serve", "--config", "brokerkm.toml", "--json"],
            cwd=home,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        line = self.wait(r'^\{"broker"')
        self.metrics: str = json.loads(line)["metrics"]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.written.append(line)
                self._news.notify_all()

    def wait(self, pattern: str, after: int = 0) -> str:
        """Return the first line that the server wrote and that `pattern` finds something in."""
        with self._news:
            found = self._news.wait_for(
                lambda: [line for line in self.written[after:] if re.search(pattern, line)], _PATIENCE
            )
        assert found, f"no {pattern} in {''.join(self.written)}"
        return str(found[0])

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a path beside the metrics."""
        url = self.metrics.removesuffix("/metrics") + path
        try:
            with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:  # noqa: S310 - our own server's
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def samples(self) -> dict[tuple[str, ...], float]:
        """Return all samples by name and label values."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}

    def run(self, *arguments: str) -> str:
        """Return what a command that administers this server printed."""
        done = subprocess.run(
            [sys.executable, "-m", "brokerkm", *arguments, "--state", "state"],
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout

    def stop(self) -> int:
        """Let it end, and return its status."""
        self.process.terminate()
        try:
            status = self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._reader.join(_PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@pytest.fixture
def broker() -> Iterator[MqttBroker]:
    """Give a guarded Mosquitto that this test may stop."""
    with guarded_mosquitto({"keyserver": _PASSWORD}) as broker:
        yield broker


def configured(home: Path, broker: MqttBroker, more: str = "") -> Path:
    """Write a configuration, and return its path."""
    (home / "password").write_text(_PASSWORD)
    (home / "password").chmod(0o600)
    path = home / "brokerkm.toml"
    path.write_text(
        f"""
        [server]
        state = "state"
        group = "plant"
        [broker]
        url = "{broker.url}"
        username = "keyserver"
        password = "file:password"
        [defaults]
        interval = 0.05
        grace = 77
        [telemetry]
        listen = "0"
        {more}
        """
    )
    return path


@pytest.fixture
def server(tmp_path: Path, broker: MqttBroker) -> Iterator[Server]:
    """Give a server with JSON logs."""
    configured(tmp_path, broker, 'log_level = "debug"\nlog_format = "json"')
    server = Server(tmp_path)
    yield server
    server.stop()


def test_a_server_shows_what_it_does_and_what_keeps_it_from_it(server: Server, broker: MqttBroker) -> None:
    """Commits are counted, latencies measured; without a broker it is alive, but not ready, and says why."""
    server.run("member", "add", "pump", "00" * 32)
    server.run("group", "rotate")
    found = server.samples()
    assert (200, 200) == (server.get("/healthz")[0], server.get("/readyz")[0])
    assert (1, 1, 1, 1, 1.0) == (
        found["brokerkm_commits_total", "plant"],
        found["brokerkm_epoch", "plant"],
        found["brokerkm_members", "plant", "listed"],
        found[("brokerkm_rekey_latency_seconds_count",)],
        found[("brokerkm_broker_connected",)],
    )
    assert 77 == json.loads(server.run("group", "show", "--json"))["policy"]["grace"]
    broker.process.stop()
    server.wait("the broker is gone")
    status, text = server.get("/readyz")
    checks = {check["name"]: check["ok"] for check in json.loads(text)["checks"]}
    assert (503, False, True, 200) == (status, checks["broker"], checks["store"], server.get("/healthz")[0])
    broker.process.start()
    server.wait("the broker is back")
    assert 200 == server.get("/readyz")[0]
    assert 0 == server.stop()


def test_no_secret_is_shown_anywhere(server: Server) -> None:
    """Not in logs at their most talkative, metrics, health, or what commands print: password, store key, token."""
    server.run("invite", "--uses", "2")
    server.run("group", "rotate")
    descriptor = json.loads((server.home / "plant.join").read_text())
    token = json.dumps(descriptor["token"])
    key = (server.home / "state/store.key").read_bytes()
    said = "".join(server.get(path)[1] for path in ("/metrics", "/healthz", "/readyz"))
    server.stop()
    said += "".join(server.written)
    assert "rotate" in said or "epoch" in said  # there was something to look through
    for secret in (_PASSWORD, token.strip('"'), key.hex(), key.decode("ascii", "replace").strip()):
        assert secret not in said


def test_sighup_changes_what_can_change_and_names_what_cannot(
    tmp_path: Path, broker: MqttBroker, server: Server
) -> None:
    """Then a broken file: all stays as it was."""
    configured(tmp_path, broker, 'log_level = "info"\nlog_format = "text"\n[limits]\nmember_rate = 5')
    server.process.send_signal(signal.SIGHUP)
    assert "limits.member_rate" in server.wait(r"WARNING .*the configuration was read again")
    configured(tmp_path, broker, "[defaults2]")
    server.process.send_signal(signal.SIGHUP)
    assert "did you mean defaults?" in server.wait(r"ERROR .*the old one stays")
    seen = len(server.written)
    path = configured(tmp_path, broker, 'log_level = "info"\nlog_format = "text"')
    path.write_text(path.read_text().replace("[telemetry]", "[telemetry]\nmax_groups = 7"))
    server.process.send_signal(signal.SIGHUP)
    assert "telemetry.max_groups" in server.wait(r"restart the server to change", seen)
    server.run("group", "rotate")
    assert 0 == server.stop()


def test_a_new_password_is_used_from_the_next_connection_on(tmp_path: Path) -> None:
    """An operator changes it at both ends, without a restart of the key server."""
    with guarded_mosquitto({"keyserver": _PASSWORD}) as first:
        configured(tmp_path, first, 'log_level = "info"')
        server = Server(tmp_path)
        try:
            users = first.process._directory / "brokerkm.passwd"
            program = require("mosquitto_passwd", "mosquitto")
            subprocess.run([program, "-b", str(users), "keyserver", "another-password"], check=True)
            shutil.chown(users, users.parent.owner())  # it writes a new file, which only root could read
            first.process.stop()
            server.wait("the broker is gone")
            (tmp_path / "password").write_text("another-password")
            server.process.send_signal(signal.SIGHUP)
            server.wait("the configuration was read again")
            first.process.start()
            server.wait("the broker is back")
            assert "published" in server.run("group", "rotate")
        finally:
            server.stop()


def test_systemd_is_told_when_it_serves_and_when_it_ends(tmp_path: Path, broker: MqttBroker) -> None:
    """As Type=notify expects it."""
    configured(tmp_path, broker)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(_PATIENCE)
        server = Server(tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert b"READY=1" == listener.recv(100)
        server.stop()
        assert b"STOPPING=1" == listener.recv(100)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[telemetry]\nlisten = 'here'", "telemetry.listen"),
        ("[brokr]", "did you mean broker?"),
        ("[broker]\nusername = 'u'\npassword = 'file:absent'", "No such file"),
        ("[store]\nurl = 'postgresql://h/d'", "store.key"),
    ],
)
def test_a_configuration_that_cannot_be_used_keeps_it_from_starting(tmp_path: Path, text: str, expected: str) -> None:
    """Exit status 2, one sentence, no traceback."""
    (tmp_path / "brokerkm.toml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "brokerkm", "serve", "--config", "brokerkm.toml", "--state", "state"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (2, True, False) == (done.returncode, expected in done.stderr, "Traceback" in done.stderr), done.stderr

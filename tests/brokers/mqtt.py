"""The MQTT brokers: Mosquitto, RabbitMQ, NATS and amqtt, configured by what `deploy/` ships."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from brokers.process import Process, free_port, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
_MOSQUITTO_READY: Final = r"mosquitto version \S+ running"


class MqttBroker:
    """A broker that speaks MQTT on a port of loopback."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    @property
    def url(self) -> str:
        """The broker's URL, for whoever needs no password."""
        return f"mqtt://127.0.0.1:{self.port}"

    def restart(self) -> None:
        """Stop and start the broker."""
        self.process.restart()


@contextlib.contextmanager
def mosquitto(configuration: str, port: int, files: Mapping[str, str] | None = None) -> Iterator[MqttBroker]:
    """Run Mosquitto with this configuration, and files beside it that it names by relative paths."""
    program = require("mosquitto", "mosquitto")
    with _directory("mosquitto") as directory:
        for name, text in {"mosquitto.conf": f"{configuration}\nlog_dest stderr\n", **(files or {})}.items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(text)
        if os.geteuid() == 0:  # Mosquitto becomes another user if root starts it
            for path in (directory, *directory.rglob("*")):
                shutil.chown(path, "mosquitto")
        yield from _running(Process([program, "-c", "mosquitto.conf"], _MOSQUITTO_READY, directory), port)


@contextlib.contextmanager
def open_mosquitto() -> Iterator[MqttBroker]:
    """Run Mosquitto as shipped, but open to everybody."""
    port = free_port()
    changes = {"listener 1883": f"listener {port} 127.0.0.1", "allow_anonymous false": "allow_anonymous true"}
    lines = shipped("mosquitto/brokerkm.conf", changes).splitlines()
    kept = [line for line in lines if not line.startswith(("password_file", "acl_file"))]
    with mosquitto("\n".join(kept), port) as broker:
        yield broker


@contextlib.contextmanager
def guarded_mosquitto(passwords: Mapping[str, str], *, persistent: bool = False) -> Iterator[MqttBroker]:
    """Run Mosquitto exactly as shipped, but for the port and the directory, with these users.

    Args:
        passwords: by user.
        persistent: keep retained messages over an orderly stop, as Debian's own configuration file says.
    """
    port = free_port()
    program = require("mosquitto_passwd", "mosquitto")
    with tempfile.NamedTemporaryFile("w+") as users:
        users.writelines(f"{user}:{password}\n" for user, password in passwords.items())
        users.flush()
        subprocess.run([program, "-U", users.name], check=True)
        files = {
            "brokerkm.acl": (DEPLOY / "mosquitto/brokerkm.acl").read_text(),
            "brokerkm.passwd": Path(users.name).read_text(),
        }
    changes = {
        "listener 1883": f"listener {port} 127.0.0.1",
        "password_file /etc/mosquitto/": "password_file ",
        "acl_file /etc/mosquitto/": "acl_file ",
    }
    configuration = shipped("mosquitto/brokerkm.conf", changes) + ("\npersistence true" if persistent else "")
    with mosquitto(configuration, port, files) as broker:
        yield broker


@contextlib.contextmanager
def rabbitmq() -> Iterator[MqttBroker]:
    """Run RabbitMQ with its MQTT plugin, its own epmd, node name and cookie."""
    program = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one in PATH insists on root and the system's directories
    require("rabbitmq-server", "rabbitmq-server")
    port, epmd_port = free_port(), free_port()
    with _directory("rabbitmq") as directory:
        text = shipped(
            "rabbitmq/rabbitmq.conf",
            {"0.0.0.0:1883": f"127.0.0.1:{port}", "allow_anonymous = false": "allow_anonymous = true"},
        )
        (directory / "rabbitmq.conf").write_text(f"{text}\nlisteners.tcp.1 = 127.0.0.1:{free_port()}\n")
        (directory / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")
        environment = rabbitmq_environment(directory, port, epmd_port)
        epmd = Process(
            [require("epmd", "erlang-base"), "-d", "-relaxed_command_check"], "running", directory, environment
        )
        epmd.start()
        try:
            yield from _running(Process([program], "Server startup complete", directory, environment), port)
        finally:
            epmd.stop()


def rabbitmq_environment(directory: Path, port: int, epmd_port: int) -> dict[str, str]:
    """Return what lets RabbitMQ run in a directory of its own, with its own epmd, node name and cookie."""
    (directory / "env.conf").touch()
    return {
        "HOME": str(directory),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"brokerkm{port}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_CONF_ENV_FILE": str(directory / "env.conf"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        "RUNNING_UNDER_SYSTEMD": "true",  # so that the script becomes the server and takes its signals
    }


@contextlib.contextmanager
def nats() -> Iterator[MqttBroker]:
    """Run nats-server with JetStream and MQTT."""
    program = require("nats-server", "nats-server")
    port = free_port()
    with _directory("nats") as directory:
        changes = {
            "0.0.0.0:1883": f"127.0.0.1:{port}",
            "0.0.0.0:4222": f"127.0.0.1:{free_port()}",
            "/var/lib/nats": str(directory / "jetstream"),
        }
        (directory / "nats.conf").write_text(shipped("nats/nats.conf", changes))
        yield from _running(Process([program, "-c", "nats.conf"], "Server is ready", directory), port)


@contextlib.contextmanager
def amqtt() -> Iterator[MqttBroker]:
    """Run amqtt, in a Python process of its own."""
    port = free_port()
    with _directory("amqtt") as directory:
        command = [sys.executable, str(Path(__file__).with_name("amqtt_server.py")), str(port)]
        yield from _running(Process(command, "ready", directory), port)


def shipped(name: str, changes: Mapping[str, str]) -> str:
    """Return a file of `deploy/` with each of these strings, which occur once outside comments, replaced."""
    lines = (DEPLOY / name).read_text().splitlines()
    for old, new in changes.items():
        (index,) = (i for i, line in enumerate(lines) if old in line and not line.startswith("#"))
        lines[index] = lines[index].replace(old, new)
    return "\n".join(lines)


def _running(process: Process, port: int) -> Iterator[MqttBroker]:
    process.start()
    try:
        yield MqttBroker(process, port)
    finally:
        process.stop()


@contextlib.contextmanager
def _directory(name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"brokerkm-{name}-") as path:
        yield Path(path)

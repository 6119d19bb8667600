"""RabbitMQ with HTTP authentication, that stops and starts in the same place, configured by what `deploy/` ships."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Final

from brokers.mqtt import DEPLOY, rabbitmq_environment, shipped
from brokers.process import Process, free_port, require

KEYSERVER: Final = {"username": "keyserver", "password": "the password of the key server"}
PROGRAM: Final = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one in PATH insists on root and the system's directories
_PLUGINS: Final = "[rabbitmq_mqtt,rabbitmq_management,rabbitmq_auth_backend_http]."
_DEFINITIONS: Final = {
    "users": [{"name": KEYSERVER["username"], "password": KEYSERVER["password"], "tags": "administrator"}],
    "vhosts": [{"name": "/"}],
    "permissions": [{"user": KEYSERVER["username"], "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
}


class GuardedRabbit:
    """RabbitMQ as `deploy/rabbitmq/guarded.conf` has it.

    Args:
        authorizer: port of the authorisation service.
    """

    def __init__(self, authorizer: int) -> None:
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}?version=3.1.1"
        self._management = free_port()
        self.management = f"http://127.0.0.1:{self._management}"
        self._temporary = tempfile.TemporaryDirectory(prefix="brokerkm-rabbitmq-")
        self._directory = Path(self._temporary.name)
        epmd_port = free_port()
        self._environment = rabbitmq_environment(self._directory, self.port, epmd_port)
        self._configure(authorizer)
        self._epmd = Process(
            [require("epmd", "erlang-base"), "-d", "-relaxed_command_check"],
            "running",
            self._directory,
            self._environment,
        )
        self._server = Process([PROGRAM], "Server startup complete", self._directory, self._environment)
        self._runs = False

    def open(self) -> None:
        """Start what it needs besides."""
        self._epmd.start()

    def start(self) -> None:
        """Start it, with what it has kept."""
        self._server.start()
        self._runs = True

    def stop(self) -> None:
        """Stop it; may be called twice."""
        if self._runs:
            self._server.stop()
        self._runs = False

    def close(self) -> None:
        """Leave nothing behind."""
        self.stop()
        self._epmd.stop()
        self._temporary.cleanup()

    def _configure(self, authorizer: int) -> None:
        changes = {
            "0.0.0.0:1883": f"127.0.0.1:{self.port}",
            **{
                f"8091/rabbitmq/{path}": f"{authorizer}/rabbitmq/{path}"
                for path in ("user", "vhost", "resource", "topic")
            },
            "management.tcp.port = 15672": f"management.tcp.port = {self._management}",
        }
        definitions = self._directory / "definitions.json"
        definitions.write_text(json.dumps(_DEFINITIONS))
        text = shipped("rabbitmq/guarded.conf", changes)
        more = f"listeners.tcp.1 = 127.0.0.1:{free_port()}\nload_definitions = {definitions}\n"
        (self._directory / "rabbitmq.conf").write_text(f"{text}\n{more}")
        (self._directory / "advanced.config").write_text((DEPLOY / "rabbitmq/advanced.config").read_text())
        (self._directory / "enabled_plugins").write_text(f"{_PLUGINS}\n")
        self._environment["RABBITMQ_ADVANCED_CONFIG_FILE"] = str(self._directory / "advanced.config")

"""Mosquitto with a guard's plugin, that stops and starts in the same place, configured by what `deploy/` ships."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import pytest

from brokerkm_mosquitto import passwd
from brokerkm_mosquitto.initial import dynamic_security
from brokers.mqtt import DEPLOY, shipped
from brokers.process import Process, free_port, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SOURCE: Final = Path(__file__).parents[2] / "adapters/brokerkm_mosquitto/plugin"
KEYSERVER: Final = {"username": "keyserver", "password": "the password of the key server"}
READY: Final = r"mosquitto version \S+ running"


@contextlib.contextmanager
def built_plugin() -> Iterator[Path]:
    """Build the plugin as an operator does, where Mosquitto, which becomes another user, may read it."""
    require("gcc", "gcc libc6-dev libssl-dev")
    if not Path("/usr/include/mosquitto_plugin.h").exists() and not os.environ.get("CI"):
        pytest.skip("mosquitto_plugin.h is not installed: apt-get install mosquitto-dev")
    with tempfile.TemporaryDirectory(prefix="brokerkm-plugin-") as directory:
        Path(directory).chmod(0o755)
        command = [require("make", "make"), "-C", str(SOURCE), f"OUT={directory}"]
        subprocess.run(command, check=True, capture_output=True)
        yield Path(directory) / "brokerkm_mosquitto.so"


class GuardedMosquitto:
    """Mosquitto at the level of the plugin, with the key server in its password file.

    Args:
        plugin: where it has been built; None: Mosquitto has not been told of it.
    """

    configuration = "plugin.conf"
    state = "brokerkm.state"

    def __init__(self, plugin: Path | None = None) -> None:
        self._plugin = plugin
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._process: Process | None = None
        self._runs = False

    @property
    def directory(self) -> Path:
        """Where it runs, and keeps its files."""
        assert self._temporary is not None
        return Path(self._temporary.name)

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Run it, and leave nothing behind."""
        self.start()
        try:
            yield self
        finally:
            self.stop()
            self.remove()

    def start(self) -> None:
        """Start it, with what it has kept."""
        if self._process is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="brokerkm-mosquitto-")
            self._configure()
            self._process = Process([require("mosquitto", "mosquitto"), "-c", "mosquitto.conf"], READY, self.directory)
        self._prepare()
        self._process.start()
        self._runs = True

    def stop(self) -> None:
        """Stop it; may be called twice."""
        if self._process is not None and self._runs:
            self._process.stop()
        self._runs = False

    def remove(self) -> None:
        """Remove all that it has kept."""
        if self._temporary is not None:
            self._temporary.cleanup()

    def lose_state(self) -> None:
        """Remove what it has kept of members."""
        (self.directory / self.state).unlink()

    def _configure(self) -> None:
        users = self.directory / "brokerkm.passwd"
        users.write_text(passwd.line(KEYSERVER["username"], KEYSERVER["password"]))
        text = shipped(f"mosquitto/{self.configuration}", self._changes())
        if self._plugin is None and self.configuration == "plugin.conf":
            text = "\n".join(line for line in text.splitlines() if not line.startswith("plugin"))
        (self.directory / "mosquitto.conf").write_text(f"{text}\nlog_dest stderr\n")

    def _prepare(self) -> None:
        """Let Mosquitto, which becomes another user if root starts it, have its files."""
        if os.geteuid() == 0:
            for path in (self.directory, *self.directory.iterdir()):
                shutil.chown(path, "mosquitto")

    def _changes(self) -> dict[str, str]:
        return {
            "listener 1883": f"listener {self.port} 127.0.0.1",
            "password_file /etc/mosquitto/": f"password_file {self.directory}/",
            "plugin /usr/local/lib/brokerkm_mosquitto.so": f"plugin {self._plugin}",
            "plugin_opt_state /var/lib/mosquitto/": f"plugin_opt_state {self.directory}/",
        }


class DynamicMosquitto(GuardedMosquitto):
    """Mosquitto at the level of dynamic security, as installed whenever its file is not there."""

    configuration = "dynsec.conf"
    state = "dynamic-security.json"

    def _prepare(self) -> None:
        file = self.directory / self.state
        if not file.exists():
            file.write_text(dynamic_security(KEYSERVER["username"], KEYSERVER["password"], "bkm/1"))
        super()._prepare()

    def _changes(self) -> dict[str, str]:
        (plugin,) = Path("/usr/lib").glob("*/mosquitto_dynamic_security.so")
        return {
            "listener 1883": f"listener {self.port} 127.0.0.1",
            "plugin /usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so": f"plugin {plugin}",
            "plugin_opt_config_file /var/lib/mosquitto/": f"plugin_opt_config_file {self.directory}/",
        }


class StaticMosquitto(GuardedMosquitto):
    """Mosquitto at the level of static rules, with these members in its password file besides."""

    configuration = "brokerkm.conf"

    def __init__(self, members: Mapping[str, str]) -> None:
        super().__init__()
        self._members = members

    def lose_state(self) -> None:
        """Do nothing: it keeps nothing."""

    def _configure(self) -> None:
        super()._configure()
        (self.directory / "brokerkm.acl").write_text((DEPLOY / "mosquitto/brokerkm.acl").read_text())
        with (self.directory / "brokerkm.passwd").open("a") as users:
            users.writelines(passwd.line(name, password) for name, password in self._members.items())

    def _changes(self) -> dict[str, str]:
        return {
            "listener 1883": f"listener {self.port} 127.0.0.1",
            "password_file /etc/mosquitto/": f"password_file {self.directory}/",
            "acl_file /etc/mosquitto/": f"acl_file {self.directory}/",
        }

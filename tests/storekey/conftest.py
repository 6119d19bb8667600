"""A PKCS#11 token made of software: SoftHSM with a directory of its own."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "4321"


@dataclass(frozen=True)
class Token:
    """A token named `label`, and the file with its PIN."""

    label: str
    pin: Path

    def uri(self, key: str, **other: str) -> str:
        """Return the spec of the store key wrapped by `key`."""
        parts = {"token": self.label, "module": str(MODULE), "pin": str(self.pin), **other}
        return (
            f"pkcs11:token={parts['token']};object={key}?module-path={parts['module']}&pin-source=file:{parts['pin']}"
        )


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    """Make a token. One for all tests: a process loads the module once."""
    home = tmp_path_factory.mktemp("softhsm")
    (home / "tokens").mkdir()
    (home / "conf").write_text(f"directories.tokendir = {home / 'tokens'}\nlog.level = ERROR\n")
    pin = home / "pin"
    pin.touch(0o600)
    pin.write_text(PIN + "\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(home / "conf")
    command = ["softhsm2-util", "--init-token", "--free", "--label", "brokerkm", "--so-pin", "123456", "--pin", PIN]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    yield Token("brokerkm", pin)
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before

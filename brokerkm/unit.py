"""The systemd unit of the key server, as far as commands need what it has been given: its credentials.

systemd gives credentials to the processes of the unit alone (systemd.exec(5)). A command that needs them, such as
`brokerkm doctor`, has to be run as the unit runs its server: by systemd-run(1), with the same properties.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Final

CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
_UNIT: Final = "brokerkm.service"
_PLACES: Final = "/etc/systemd/system:/run/systemd/system:/usr/local/lib/systemd/system:/usr/lib/systemd/system"
_TAKEN: Final = ("User", "Group", "StateDirectory", "LoadCredential", "LoadCredentialEncrypted")
_MAX_UNIT: Final = 65_536  # characters


def has_credentials() -> bool:
    """Return whether systemd has given this process any."""
    return bool(os.environ.get(CREDENTIALS))


def run_in_unit(*credentials: str) -> str:
    """Return the words before a command's own arguments that give it what the unit has.

    Args:
        credentials: names that it needs; used where no unit is installed that says where they are.
    """
    found = _unit()
    if not any(name.startswith("LoadCredential") for name, _ in found):
        found = [("User", "brokerkm"), ("StateDirectory", "brokerkm")]
        found += [("LoadCredential", f"{name}:FILE") for name in credentials]
    programs = [value.split()[0].lstrip("@-:+!") for name, value in found if name == "ExecStart" and value]
    properties = " ".join(f"-p {shlex.quote(f'{name}={value}')}" for name, value in found if name in _TAKEN)
    file = os.environ.get("BROKERKM_CONFIG", "")
    given = f" -E {shlex.quote(f'BROKERKM_CONFIG={file}')}" if file else ""
    return f"systemd-run --quiet --wait --pipe {properties}{given} {programs[0] if programs else 'brokerkm'}"


def _unit() -> list[tuple[str, str]]:
    """Return the settings of the unit that is installed, in order; nothing if none is."""
    for place in os.environ.get("SYSTEMD_UNIT_PATH", _PLACES).split(":"):
        try:
            with (Path(place) / _UNIT).open(encoding="utf-8", errors="replace") as file:
                lines = file.read(_MAX_UNIT).splitlines()
        except OSError:
            continue
        pairs = [line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith(("#", ";"))]
        return [(name.strip(), value.strip()) for name, value in pairs]
    return []

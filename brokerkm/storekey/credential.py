"""The store key as a systemd credential: ``LoadCredential=`` or ``LoadCredentialEncrypted=`` of the unit.

systemd puts it into a directory that only the service can enter (systemd.exec(5), CREDENTIALS). The file's group bits
are the mask of an access list there, so they say nothing; it must not be open to the world.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from brokerkm.errors import StoreError, UsageError
from brokerkm.storekey.file import WORLD, read_private
from brokerkm.storekey.source import MAX_TEXT, parse_key
from brokerkm.unit import CREDENTIALS, has_credentials, run_in_unit


class CredentialKey:
    """The key in the credential `name`."""

    def __init__(self, name: str) -> None:
        if "/" in name or name in (".", ".."):
            message = "a credential is named without a directory, as in credential:store-key"
            raise UsageError(message)
        self._name: Final = name

    def __repr__(self) -> str:
        return f"CredentialKey({self._name!r})"

    def read(self) -> bytes:
        """Return the key."""
        if not has_credentials():
            message = (
                f"credential {self._name}: systemd has given this process none (${CREDENTIALS} is not set), because it "
                f"gives them to the unit alone. Run this as the unit would: {run_in_unit(self._name)} …"
            )
            raise StoreError(message)
        path = Path(os.environ[CREDENTIALS]) / self._name
        if not path.exists():
            message = f"credential {self._name}: it is not among those of this service: see LoadCredential= in its unit"
            raise StoreError(message)
        return parse_key(read_private(path, MAX_TEXT, WORLD), f"credential {self._name}")

    def create(self) -> None:
        """Refuse: systemd's own tool makes credentials."""
        message = (
            f"systemd makes its credentials itself: openssl rand -hex 32 | systemd-creds encrypt --name={self._name} "
            f"- /etc/credstore.encrypted/{self._name}"
        )
        raise UsageError(message)

"""From a spec text to the source that it names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from brokerkm.errors import UsageError
from brokerkm.storekey.command import CommandKey
from brokerkm.storekey.credential import CredentialKey
from brokerkm.storekey.environment import EnvironmentKey
from brokerkm.storekey.file import FileKey
from brokerkm.storekey.token import TokenKey

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from brokerkm.storekey.source import StoreKey

SOURCES: Final[Mapping[str, Callable[[str, Path], StoreKey]]] = {
    "file": lambda rest, directory: FileKey(directory / rest),
    "credential": lambda rest, _: CredentialKey(rest),
    "env": lambda rest, _: EnvironmentKey(rest),
    "command": lambda rest, _: CommandKey(rest),
    "pkcs11": TokenKey,
}
"""The first word of a spec, and what becomes of the rest of it and the store's directory."""


def open_source(spec: str, directory: str | os.PathLike[str] = ".") -> StoreKey:
    """Return the source that `spec` names; nothing is read yet.

    Args:
        spec: as ``file:/etc/brokerkm/store.key``.
        directory: the store's; relative paths of files are taken from there.

    Raises:
        UsageError: there is no such source, or it is named in a wrong way.
    """
    kind, colon, rest = spec.partition(":")
    if kind not in SOURCES or not colon or not rest.strip():
        known = ", ".join(f"{name}:..." for name in SOURCES)
        # A key that somebody gives in place of a spec must not end in a log.
        shown = f"{kind}:" if kind in SOURCES else "this text"
        message = f"{shown} names no source of a store key: it has to be one of {known}"
        raise UsageError(message)
    return SOURCES[kind](rest, Path(directory))

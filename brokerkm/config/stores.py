"""From the configuration to the store: which engine, where, and under which key."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING, Final

from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from brokerkm.config import Configuration
    from brokerkm.config.secret import Secret
    from brokerkm.store.sql import SqlStore

_SQLITE: Final = "sqlite:///"


def is_shared(configuration: Configuration) -> bool:
    """Return whether the store is one that several servers can share."""
    return configuration.store.url.startswith("postgres")


def sqlite_path(configuration: Configuration, state: Path) -> Path:
    """Return the SQLite file; a relative path is below the state directory."""
    from brokerkm.service.local import STORE_FILE  # noqa: PLC0415 - not for --help

    return state / (urllib.parse.unquote(configuration.store.url.removeprefix(_SQLITE)) or STORE_FILE)


def open_store(configuration: Configuration, state: Path) -> SqlStore:
    """Return the store, open.

    Raises:
        UsageError: the key of a shared store is not named, or a password cannot be read.
        StoreError: it cannot be opened, or the key is another.
    """
    key = _read(configuration.store.key, state)
    if not is_shared(configuration):
        from brokerkm.store.sqlite import SqliteStore  # noqa: PLC0415 - one of the two

        return SqliteStore(sqlite_path(configuration, state), key)
    if key is None:
        message = "store.key: servers that share a database need the same store key: name where it is"
        raise UsageError(message)
    from brokerkm.store.postgres import PostgresStore  # noqa: PLC0415 - it needs psycopg

    following = _read(configuration.store.next_key, state)
    return PostgresStore(database_url(configuration), key, configuration.cluster.lease, following)


def database_url(configuration: Configuration) -> str:
    """Return PostgreSQL's URL with the password in it: not to be shown."""
    parts = urllib.parse.urlsplit(configuration.store.url)
    if configuration.store.password is None:
        return configuration.store.url
    password = urllib.parse.quote(configuration.store.password.read(), safe="")
    login, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{login}:{password}@{host}").geturl()


def _read(reference: Secret | None, state: Path) -> Callable[[], bytes] | None:
    """Return what reads a store key, whenever it is wanted."""
    from brokerkm.storekey import open_source  # noqa: PLC0415 - not for --help

    return None if reference is None else open_source(reference.spec, state).read

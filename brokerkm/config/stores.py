"""From the configuration to the store: which engine, where, and under which key."""

from __future__ import annotations

import contextlib
import urllib.parse
from typing import TYPE_CHECKING, Final

from brokerkm.errors import StoreError, UsageError
from brokerkm.store.owner import check_owner

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
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


def absent(configuration: Configuration, state: Path) -> str:
    """Return that there is no store where the configuration says, and what to do; "" if there is one.

    A shared one says so itself when it is opened. An empty file is no store.

    Raises:
        UsageError: this user cannot look.
    """
    path = sqlite_path(configuration, state)
    try:
        if is_shared(configuration) or path.stat().st_size:
            return ""
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        message = f"store {path}: {error.strerror}: run this as the user of the key server, or as root"
        raise UsageError(message) from error
    return (
        f"there is no store {path}: nothing was done. Name the key server's directory by --state or "
        "$BROKERKM_SERVER_STATE, and its configuration by $BROKERKM_CONFIG; `brokerkm serve` makes a new store"
    )


def open_store(configuration: Configuration, state: Path, *, create: bool = True) -> SqlStore:
    """Return the store, open.

    Args:
        create: make one where there is none, and its key.

    Raises:
        UsageError: there is none; or it is not for this user to make one there; or the key of a shared store is not
            named; or a password cannot be read.
        StoreError: it cannot be opened, or the key is another.
    """
    key = _read(configuration.store.key, state)
    if not is_shared(configuration):
        from brokerkm.store.sqlite import SqliteStore  # noqa: PLC0415 - one of the two

        if missing := absent(configuration, state):
            if not create:
                raise UsageError(missing)
            check_owner(sqlite_path(configuration, state).parent)
        directory = sqlite_path(configuration, state).parent if key is None else state
        with naming(key_spec(configuration), directory):
            return SqliteStore(sqlite_path(configuration, state), key, create=create)
    if key is None:
        message = "store.key: servers that share a database need the same store key: name where it is"
        raise UsageError(message)
    from brokerkm.store.postgres import PostgresStore  # noqa: PLC0415 - it needs psycopg

    following = _read(configuration.store.next_key, state)
    lease = configuration.cluster.lease
    with naming(key_spec(configuration), state):
        return PostgresStore(database_url(configuration), key, lease, following, create=create)


@contextlib.contextmanager
def naming(spec: str, directory: Path) -> Generator[None]:
    """Say of a key that turns out to be the wrong one where it came from."""
    from brokerkm.store.vault import WrongKeyError  # noqa: PLC0415 - not for --help

    try:
        yield
    except WrongKeyError as error:
        kind, _, place = spec.partition(":")
        shown = {"file": f"file:{directory / place}", "credential": spec, "env": spec}.get(kind, f"{kind}:…")
        message = f"store key {shown}: {error}"
        raise StoreError(message) from error


def key_spec(configuration: Configuration) -> str:
    """Return where the store key is; a SQLite store has its own beside it, if nothing else is said."""
    from brokerkm.store.sqlite import KEY_FILE  # noqa: PLC0415 - not for --help

    return f"file:{KEY_FILE}" if configuration.store.key is None else configuration.store.key.spec


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

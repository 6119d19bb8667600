"""The open vault of a store, and which version each page of its groups has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.errors import StoreError
from brokerkm.store import rows, statements
from brokerkm.store.pages import Place, SealedPages, Sealing
from brokerkm.store.records import KeyChange
from brokerkm.store.upgrade import merge_pages
from brokerkm.store.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from brokerkm.store.engine import Session
    from brokerkm.store.records import Page

_BATCH: Final = 256  # pages that are sealed anew at a time
_LEVEL: Final = "SELECT number, version, page FROM pages WHERE group_id = ? AND level = ? ORDER BY number"
_SOME: Final = """
SELECT level, number, version, page FROM pages
WHERE group_id = ? AND (level > ? OR (level = ? AND number > ?)) ORDER BY level, number LIMIT ?
"""
_PUT_SEALED: Final = "UPDATE pages SET page = ? WHERE group_id = ? AND level = ? AND number = ?"
_SEED: Final = "SELECT signing_seed FROM groups WHERE id = ?"
_PUT_SEED: Final = "UPDATE groups SET signing_seed = ? WHERE id = ?"
_TOKENS: Final = "SELECT id, key FROM tokens WHERE group_id = ?"
_PUT_TOKEN_KEY: Final = "UPDATE tokens SET key = ? WHERE group_id = ? AND id = ?"  # noqa: S105 - a statement
_PUT_KEYS: Final = "UPDATE groups SET epoch = ?, height = ?, header = ? WHERE id = ?"


class Seals:
    """Seals and opens what a database holds.

    Args:
        store_keys: called, one after the other until one opens it, when the data key has to be unwrapped: at the start,
            and when another server has put it under another store key.
    """

    def __init__(self, *store_keys: Callable[[], bytes]) -> None:
        self._store_keys = store_keys
        self._vault: Vault | None = None
        self._wrapped = b""
        self._trees: Final[dict[str, SealedPages]] = {}

    def open(self, session: Session) -> None:
        """Open the vault, or make it, and seal what is there: a database of version 1 had none."""
        if not statements.found(session, "SELECT 1 FROM vault"):
            vault = Vault.create()
            fresh = vault.wrap(self._store_keys[0]())
            session.change("INSERT INTO vault (id, wrapped) VALUES (1, ?) ON CONFLICT DO NOTHING", fresh)
            if statements.one(session, "SELECT wrapped FROM vault") == fresh:
                _seal_all(session, vault)
        self.vault(session)

    def vault(self, session: Session) -> Vault:
        """Return the vault as it is now."""
        wrapped = statements.one(session, "SELECT wrapped FROM vault")
        if self._vault is None or wrapped != self._wrapped:
            self._vault, self._wrapped = self._unwrap(wrapped), wrapped
            self._trees.clear()
        return self._vault

    def load(self, session: Session, group: str) -> Iterator[Page]:
        """Yield the opened pages of a group, from the root down; at the end the version of each is known."""
        number, header, place = _place(session, group)
        tree = SealedPages(self.vault(session), place)
        yield from tree.load(header, lambda level: _level(session, number, level))
        self._trees[group] = tree

    def spares(self, session: Session, group: str) -> tuple[bytes, ...]:
        """Return the root's spare keys."""
        _, header, place = _place(session, group)
        return SealedPages(self.vault(session), place).spares(header)

    def commit(self, session: Session, group: str, keys: KeyChange) -> SealedPages:
        """Write the pages of a commit; return what `keep` is to be given once the transaction has happened."""
        number, _, place = _place(session, group)
        if not (keys.epoch == place.epoch + 1 or (keys.jump and keys.epoch > place.epoch)):
            message = f"epoch {keys.epoch} does not follow epoch {place.epoch} of group {group}"
            raise StoreError(message)
        self.vault(session)
        tree = self._trees.get(group)
        if tree is None or tree.place != place:
            for _ in self.load(session, group):
                pass
            tree = self._trees[group]
        return _write_pages(session, number, tree, keys)

    def keep(self, tree: SealedPages) -> None:
        """Know the versions of a group's pages."""
        self._trees[tree.place.name] = tree

    def rewrap(self, session: Session, store_key: bytes) -> None:
        """Put the data key under another store key."""
        session.change("UPDATE vault SET wrapped = ?", self.vault(session).wrap(store_key))

    def renew(self, session: Session, store_key: bytes, progress: Callable[[int, int], None]) -> None:
        """Seal everything under a new data key, and that under `store_key`; other servers wait meanwhile."""
        statements.lock_all(session)
        old, new = self.vault(session), Vault.create()
        done, total = 0, int(statements.one(session, "SELECT count(*) FROM pages"))
        for (group,) in list(session.rows("SELECT name FROM groups ORDER BY name")):
            for _ in self.load(session, group):  # so that nothing false is sealed as if it were true
                pass
            number, _, place = _place(session, group)
            _reseal_secrets(session, number, place, old, new)
            tree = self._trees[group]
            target = tree.under(new)
            session.change("UPDATE groups SET header = ? WHERE id = ?", target.seal_header(), number)
            last = (-1, -1)
            while some := list(session.rows(_SOME, number, last[0], *last, _BATCH)):
                pages = [(level, at, version, sealed) for level, at, version, sealed in some]
                session.many(_PUT_SEALED, ((tree.reseal(target, page), number, *page[:2]) for page in pages))
                last = some[-1][:2]
                done += len(some)
                progress(done, total)
        session.change("UPDATE vault SET wrapped = ?", new.wrap(store_key))

    def again(self) -> Seals:
        """Return the same for another thread."""
        return Seals(*self._store_keys)

    def use(self, store_key: bytes) -> None:
        """Unwrap with this store key from now on."""
        self._store_keys = (lambda: store_key,)

    def _unwrap(self, wrapped: bytes) -> Vault:
        """Return the vault; raises what the first key's failure was if none is the right one."""
        failures: list[StoreError] = []
        for store_key in self._store_keys:
            try:
                return Vault.unwrap(wrapped, store_key())
            except StoreError as error:
                failures.append(error)
        raise failures[0]


def _place(session: Session, group: str) -> tuple[int, bytes, Place]:
    """Return the id, the header and the place of a group."""
    query = "SELECT id, header, uid, degree, epoch, height FROM groups WHERE name = ?"
    for number, header, *place in session.rows(query, group):
        return number, header, Place(group, *place)
    raise statements.unknown(group)


def _write_pages(session: Session, number: int, tree: SealedPages, keys: KeyChange) -> SealedPages:
    sealing = Sealing(tree, keys)
    session.many(statements.PUT_PAGE, ((number, *page) for page in sealing))
    after = sealing.after()
    session.change(_PUT_KEYS, keys.epoch, keys.height, after.seal_header(), number)
    return after


def _reseal_secrets(session: Session, number: int, place: Place, old: Vault, new: Vault) -> None:
    uid = place.uid
    seed = rows.open_seed(old, uid, place.name, statements.one(session, _SEED, number))
    session.change(_PUT_SEED, rows.seal_seed(new, uid, place.name, seed), number)
    for token_id, sealed in list(session.rows(_TOKENS, number)):
        key = rows.open_token_key(old, uid, token_id, sealed)
        session.change(_PUT_TOKEN_KEY, rows.seal_token_key(new, uid, token_id, key), number, token_id)


def _seal_all(session: Session, vault: Vault) -> None:
    """Seal the plain keys and pages that a database of version 1 has left."""
    for (group,) in list(session.rows("SELECT name FROM groups")):
        number, _, place = _place(session, group)
        seed = statements.one(session, _SEED, number)
        session.change(_PUT_SEED, rows.seal_seed(vault, place.uid, group, seed), number)
        for token_id, key in list(session.rows(_TOKENS, number)):
            session.change(_PUT_TOKEN_KEY, rows.seal_token_key(vault, place.uid, token_id, key), number, token_id)
        plain = list(_plain_pages(session, number))
        session.change("DELETE FROM pages WHERE group_id = ?", number)
        before = SealedPages(vault, place)
        _write_pages(session, number, before, KeyChange(place.epoch, place.height, merge_pages(plain)))


def _plain_pages(session: Session, number: int) -> Iterator[Page]:
    query = "SELECT level, number, page FROM pages WHERE group_id = ? ORDER BY level, number"
    return ((level, at, page) for level, at, page in session.rows(query, number))


def _level(session: Session, number: int, level: int) -> Iterator[tuple[int, int, bytes]]:
    return ((at, version, sealed) for at, version, sealed in session.rows(_LEVEL, number, level))

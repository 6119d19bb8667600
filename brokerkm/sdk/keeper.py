"""A member whose every change is saved before anything comes of it.

All calls that change the member or read its keys go through one lock. What a call brought is given out, and what it
sealed is sent, only when the state that it led to is on disk. While the disk does not take it, everybody waits:
nothing is delivered or sent, the transport slows the network down, and it goes on as soon as a save succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, TypeVar

from brokerkm.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.core.member import Member
    from brokerkm.sdk.state import StateDesk, StateDirectory

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Keeper:
    """The member, its directory and the lock.

    Args:
        member: as it was loaded, or new.
        directory, desk: where and by which thread it is saved.
        retry: seconds between two attempts to save.
        is_new: the member is not in the directory yet.
        troubled: called with the error when a save fails first, and with None when one has succeeded after that.
    """

    def __init__(
        self,
        member: Member,
        directory: StateDirectory,
        desk: StateDesk,
        retry: float,
        troubled: Callable[[StoreError | None], None],
        *,
        is_new: bool,
    ) -> None:
        self.member: Final = member
        self._directory: Final = directory
        self._desk: Final = desk
        self._retry: Final = retry
        self._troubled: Final = troubled
        self._turn: Final = asyncio.Lock()
        self._saved = -1 if is_new else member.version
        self.trouble: StoreError | None = None
        self.has_new_windows = False

    async def change(self, call: Callable[[], _T]) -> _T:
        """Return what `call` returns once the state it leads to is saved; an error of `call` has changed nothing."""
        async with self._turn:
            # A caller that was cancelled may have left a state behind that is not saved yet.
            await self._save_changes()
            result = call()
            await self._save_changes()
            return result

    @property
    def is_saved(self) -> bool:
        """Whether the directory has the member's state, but for what was received."""
        return self.member.version == self._saved

    async def save_windows(self) -> None:
        """Save what need not be saved at once: which messages were received. A disk that is full is tried again."""
        if self.has_new_windows:
            async with self._turn:
                with contextlib.suppress(StoreError):
                    await self._save()

    async def finish(self) -> None:
        """Save what is not saved yet; raises `StoreError`."""
        async with self._turn:
            if self.has_new_windows or not self.is_saved:
                await self._save()

    async def _save_changes(self) -> None:
        while not self.is_saved:
            try:
                await self._save()
            except StoreError:
                await asyncio.sleep(self._retry)

    async def _save(self) -> None:
        version, data = self.member.version, self.member.dump()
        self.has_new_windows = False
        try:
            await self._desk.call(lambda: self._directory.write(data))
        except StoreError as error:
            self.has_new_windows = True
            if self.trouble is None:
                _log.error("%s: nothing is sent or delivered until it can be", error)
                self.trouble = error
                self._troubled(error)
            raise
        self._saved = version
        if self.trouble is not None:
            _log.info("the state of %s is saved again", self.member.profile.member)
            self.trouble = None
            self._troubled(None)

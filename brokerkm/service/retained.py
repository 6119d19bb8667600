"""What the broker retained, compared with the store, which may be behind, or of which the broker may have lost some.

A retained Beacon of a later epoch than the store's means that the store was restored from a backup, or that another
server uses a copy of it: going on would use an epoch twice. No Beacon, or one of an earlier epoch, means that the
broker has lost retained messages, and all that is kept is published again; but if the store was restored, see
`brokerkm.service.restored`.
A retained Handover that leads on from the store's own key means the former, too.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.core.crypto import load_verify_key
from brokerkm.core.handover import Handover
from brokerkm.core.messages import Kind
from brokerkm.core.notice import EVERYBODY, Goodbye
from brokerkm.core.rekey import Beacon
from brokerkm.core.wire import message_type
from brokerkm.errors import BehindError, RefusedError, UnfitError
from brokerkm.service.limits import RateLimit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from brokerkm.service.live import LiveGroup
    from brokerkm.transport import Transport

_log = logging.getLogger(__name__)

LIVE_RATE: Final = (20.0, 100.0)  # Beacons looked at a second and at once, retained ones not counted; anybody may send


class Shown(NamedTuple):
    """What a message on a group's beacon topic shows of it.

    Args:
        epoch: the newest; of a group that was destroyed, one that no commit has had.
        time: of a Beacon, ms since 1970.
    """

    epoch: int
    time: int
    destroyed: bool


def read(payload: bytes, server_key: bytes, group: str) -> Shown:
    """Return what a Beacon shows, or the Goodbye in its place; raises `RefusedError`."""
    key = load_verify_key(server_key, "server_key")
    if message_type(payload) == Kind.GOODBYE:
        goodbye = Goodbye.decode(payload)
        goodbye.verify(key, group, EVERYBODY)
        return Shown(goodbye.epoch, 0, destroyed=True)
    beacon = Beacon.decode(payload)
    beacon.verify(key, group)
    return Shown(beacon.epoch, beacon.time, destroyed=False)


class RetainedBeacons:
    """Asks the broker for the groups' retained Beacons, and judges every Beacon that comes.

    Args:
        patience: seconds in which a broker that has one delivers it.
    """

    def __init__(self, transport: Transport, patience: float) -> None:
        self._transport: Final = transport
        self._patience: Final = patience
        self._asked: dict[str, asyncio.Future[int]] = {}
        self._turn: Final = asyncio.Lock()
        self._live = RateLimit(*LIVE_RATE)
        self._forged = 0

    async def epochs(self, groups: Iterable[LiveGroup]) -> dict[str, int]:
        """Return the epochs of the retained Beacons that the broker has of `groups`.

        Raises:
            UnfitError: it has a newer one than the store, or knows that the store's signing key was handed over.
            TransportError: it cannot be asked.
        """
        asked = list(groups)
        if not asked:
            return {}
        loop = asyncio.get_running_loop()
        topics = [group.topics.beacon for group in asked]
        chains = [group.topics.handover for group in asked]  # of interest at this moment only
        async with self._turn:
            await self._transport.unsubscribe(topics)  # only a new subscription is given what is retained
            self._asked = {group.name: loop.create_future() for group in asked}
            try:
                await self._transport.subscribe([*chains, *topics])
                await asyncio.wait(self._asked.values(), timeout=self._patience, return_when=asyncio.FIRST_EXCEPTION)
                answers = {name: future for name, future in self._asked.items() if future.done()}
            finally:
                self._asked = {}
            await self._transport.unsubscribe(chains)
        for error in [future.exception() for future in answers.values()]:
            if error is not None:
                raise error
        return {name: answer.result() for name, answer in answers.items()}

    def heard(self, group: LiveGroup, payload: bytes, *, retained: bool) -> None:
        """Take in what came on a group's beacon topic.

        Raises:
            UnfitError: the group's own signature shows an epoch that the store does not know of.
        """
        if not retained and not self._live.allow(group.name, asyncio.get_running_loop().time()):
            return
        try:
            shown = read(payload, group.group.server_key, group.name)
        except RefusedError as refusal:
            self._forged += 1
            if self._forged.bit_count() == 1:  # the 1st, 2nd, 4th, 8th, …: a flood does not fill the log
                said = "group %s: a Beacon that this server did not sign, the %d. by now: %s"
                _log.warning(said, group.name, self._forged, refusal)
            return
        future = self._asked.get(group.name)
        if future is not None and future.done():
            return
        if shown.epoch > group.newest_epoch:
            what = "a Goodbye, because it was destroyed," if shown.destroyed else "a Beacon"
            text = (
                f"group {group.name}: the store is at epoch {group.group.epoch}, but the broker has {what} of epoch "
                f"{shown.epoch} with this group's signature. The store was restored from a backup, or another server "
                "uses a copy of it. Going on would use epochs twice. If another server runs, stop this one; if the "
                "store was restored and no newer one is left"
            )
            error = BehindError(group.name, text)
            if future is None:
                raise error
            future.set_exception(error)
        elif retained and future is not None:
            future.set_result(shown.epoch)

    def heard_handover(self, group: LiveGroup, payload: bytes) -> None:
        """Take in a Handover: one that leads on from the store's own key shows that the store is behind."""
        future = self._asked.get(group.name)
        if future is None or future.done():
            return
        try:
            links = Handover.decode(payload).after(group.group.server_key, group.name)
        except RefusedError as error:
            _log.warning("group %s: a Handover that does not lead on from this server's key: %s", group.name, error)
            return
        if links:
            message = (
                f"group {group.name}: the store's signing key was handed over to {links[-1].key.hex()} since it was "
                "written: it was restored from a backup of before. Members believe the new key alone, and only a "
                "store that has it can go on with the group: bring the newest one"
            )
            future.set_exception(UnfitError(message))

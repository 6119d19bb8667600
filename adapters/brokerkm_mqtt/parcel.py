"""What a publisher waits for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from brokerkm.errors import TransportError

if TYPE_CHECKING:
    import asyncio

    from brokerkm.transport import Outgoing


@dataclasses.dataclass(slots=True, eq=False)
class Parcel:
    """A payload to publish, and whether the broker has accepted it."""

    message: Outgoing
    accepted: asyncio.Future[None]

    def settle(self, refusal: str | None) -> None:
        """Say what became of it, unless nobody waits any more."""
        if self.accepted.done():
            return
        if refusal is None:
            self.accepted.set_result(None)
        else:
            text = f"the broker did not take {len(self.message.payload)} bytes for {self.message.topic!r}: {refusal}"
            self.accepted.set_exception(TransportError(text))
            self.accepted.exception()  # seen: asyncio need not complain if its publisher has given up

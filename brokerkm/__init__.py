"""Group key management for message brokers: payloads that only the current members of a fleet can read.

    async with brokerkm.connect(None, "fleet.join", member="sensor-7") as fleet:
        await fleet.publish("plant/temperature", b"21.4")
        async for message in fleet.messages("plant/#"):
            print(message.topic, message.sender, message.payload)

`connect_sync` is the same for scripts without asyncio. An application that has a client of its own for its broker needs
neither: `Member` takes bytes in, gives bytes out and does no I/O.

Names are imported when they are first used, so that ``import brokerkm`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from brokerkm.core.events import MessageReceived
    from brokerkm.core.member import Member
    from brokerkm.core.memory import Profile
    from brokerkm.core.state import State
    from brokerkm.descriptor import Descriptor
    from brokerkm.sdk.fleet import Fleet, connect
    from brokerkm.sdk.home import identity
    from brokerkm.sdk.recovery import Pace
    from brokerkm.sdk.sync import SyncFleet, connect_sync
    from brokerkm.transport import Options

__all__ = [
    "Descriptor",
    "Fleet",
    "Member",
    "MessageReceived",
    "Options",
    "Pace",
    "Profile",
    "State",
    "SyncFleet",
    "connect",
    "connect_sync",
    "identity",
]

_HOMES: Final = {
    "Descriptor": "brokerkm.descriptor",
    "Fleet": "brokerkm.sdk.fleet",
    "Member": "brokerkm.core.member",
    "MessageReceived": "brokerkm.core.events",
    "Options": "brokerkm.transport",
    "Pace": "brokerkm.sdk.recovery",
    "Profile": "brokerkm.core.memory",
    "State": "brokerkm.core.state",
    "SyncFleet": "brokerkm.sdk.sync",
    "connect": "brokerkm.sdk.fleet",
    "connect_sync": "brokerkm.sdk.sync",
    "identity": "brokerkm.sdk.home",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

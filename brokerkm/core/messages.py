"""What all messages share: their types and the limits of what is in them.

Each message is a msgpack array (`schemas/*.cddl`). What the topic already says is not sent again but is signed: the
signed bytes of a message are its label, a zero byte, the msgpack array of its context (group and what the topic
names), and the message's own bytes up to the first field that proves it. The classes of `rekey`, `welcome`, `notice`
and `request` each `decode` types, lengths and ranges without looking at a key: a decoded message is to be trusted
only once it has been verified.
"""

from __future__ import annotations

import enum
from typing import Final

MAX_DEGREE: Final = 64
MAX_STEP: Final = 0xFFFF  # a node that has been ratcheted this often is drawn anew instead


class Kind(enum.IntEnum):
    """The message types, second element of every message."""

    REKEY = 1
    BEACON = 2
    WELCOME = 3
    GOODBYE = 4
    JOIN = 5
    SYNC = 6
    LEAVE = 7
    DATA = 8
    REFUSAL = 9
    SUBGROUP = 10
    HANDOVER = 11
    ACK = 12

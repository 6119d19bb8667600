"""A program that floods a key server with forged Syncs until it is killed: flooder.py PORT RATE GROUP MEMBER...

Every other one comes under the id of one of the members, the rest under ids that nobody has and that never come again.
It speaks just enough of MQTT 3.1.1 to be cheaper than any library. RATE is in requests a second.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time

from brokerkm.core.names import Topics
from brokerkm.core.request import Asked, Sync

CONNECT = b"\x10\x14\x00\x04MQTT\x04\x02\x00\x00\x00\x08flooder."
AT_ONCE = 100  # frames


def publish(topic: str, payload: bytes) -> bytes:
    """Return a PUBLISH of QoS 0 (MQTT 3.1.1, section 3.3), less than 128 * 128 bytes long."""
    body = len(topic).to_bytes(2, "big") + topic.encode() + payload
    return bytes((0x30, len(body) & 0x7F | 0x80, len(body) >> 7)) + body


def main(port: str, rate: str, group: str, *members: str) -> None:
    """Send at a rate; what has been held up is made up for."""
    numbers, topics = itertools.count(), Topics(group)
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        connection.sendall(CONNECT)
        assert b"\x20\x02\x00\x00" == connection.recv(4)
        began = time.monotonic()
        for round_ in itertools.count():
            time.sleep(max(0.0, began + round_ * AT_ONCE / float(rate) - time.monotonic()))
            now = int(time.time() * 1000)
            frames: list[bytes] = []
            for number in itertools.islice(numbers, AT_ONCE):
                name = f"nobody-{number}" if number % 2 else members[number // 2 % len(members)]
                forged = Sync.seal(bytes(32), group, name, asked=Asked(os.urandom(16), now, number), epoch=1)
                frames.append(publish(topics.request(name), forged))
            connection.sendall(b"".join(frames))


if __name__ == "__main__":
    main(*sys.argv[1:])

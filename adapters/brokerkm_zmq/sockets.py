"""Makes the sockets of one transport with the options that all of them need."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Final

import zmq

from brokerkm_zmq import wire

if TYPE_CHECKING:
    from brokerkm_zmq.settings import Settings

MAX_SOCKETS: Final = 32  # of one context; a hub has four, a member two and their monitors
RECONNECT: Final = 100  # ms until the first attempt
RECONNECT_MAX: Final = 10_000  # ms; libzmq doubles up to here
HANDSHAKE: Final = 10_000  # ms for a peer to say who it is
HEARTBEAT_MAX: Final = 6_000_000  # ms; ZMTP has 16 bits for tenths of a second
LINGER: Final = 1.0  # seconds to send what was accepted before close

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]


def context() -> Context:
    """Return a context of one transport's own, so that closing it leaves nothing behind."""
    made: Context = zmq.Context(io_threads=1)
    made.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
    return made


async def end(owner: Context) -> None:
    """End a context whose sockets are closed; takes as long as they linger.

    In a thread of its own, because `asyncio.to_thread` would leave one behind.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def work() -> None:
        owner.term()
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile; nobody waits any more
            loop.call_soon_threadsafe(ended.set)

    thread = threading.Thread(target=work, name="zmq ends")
    thread.start()
    await ended.wait()
    thread.join()


def make(owner: Context, kind: zmq.SocketType, settings: Settings, *, largest: int) -> Socket:
    """Return a socket that takes frames up to `largest` bytes and notices dead peers."""
    socket = owner.socket(kind)
    beat = min(HEARTBEAT_MAX, max(1, settings.keepalive) * 1000)
    socket.set(zmq.IPV6, int("[" in settings.down))
    socket.set(zmq.LINGER, round(LINGER * 1000))
    socket.set(zmq.MAXMSGSIZE, largest)
    socket.set(zmq.SNDHWM, settings.high_water)
    socket.set(zmq.RCVHWM, settings.high_water)
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE)
    socket.set(zmq.HEARTBEAT_IVL, beat // 2)
    socket.set(zmq.HEARTBEAT_TIMEOUT, beat)
    socket.set(zmq.HEARTBEAT_TTL, beat)
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.TCP_KEEPALIVE_IDLE, max(1, settings.keepalive))
    socket.set(zmq.RECONNECT_IVL, RECONNECT)
    socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX)
    return socket


def largest_frame(max_payload: int) -> int:
    """Return the bytes of the largest frame of a message whose payload is at most that."""
    return max(max_payload, wire.ENVELOPE)


def secure_hub(socket: Socket, settings: Settings) -> None:
    """Make a binding socket take CURVE connections only, if the settings have keys."""
    if settings.pair is not None:
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.CURVE_SECRETKEY, settings.pair.secret.encode())
        socket.set(zmq.ZAP_DOMAIN, b"brokerkm")


def secure_member(socket: Socket, settings: Settings) -> None:
    """Make a connecting socket talk to the pinned hub only, if the settings have keys."""
    if settings.pair is not None and settings.server_key is not None:
        socket.set(zmq.CURVE_SERVERKEY, settings.server_key.encode())
        socket.set(zmq.CURVE_PUBLICKEY, settings.pair.public.encode())
        socket.set(zmq.CURVE_SECRETKEY, settings.pair.secret.encode())

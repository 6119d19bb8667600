"""Who is at the other end of a connection, and what uvicorn's HTTP does for the API that it does not do by itself.

A connection that sends no whole head is closed, be it the first or a later one, so is one too many, and bytes that are
no HTTP get a problem as well.
"""

import asyncio
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, cast

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from brokerkm.api.problems import MEDIA_TYPE, make

PEER: Final = "brokerkm_peer"  # key in the state of an ASGI scope
MAX_CLIENTS: Final = 256  # connections of one listener
REQUEST_TIME: Final = 10.0  # seconds until the first request has to be there
IDLE_TIME: Final = 30.0  # seconds between an answer and the next request; up to twice as long
_UNANSWERED: Final = object()
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid; unix(7)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection.

    Args:
        name: the user on a Unix socket, the address on others.
        common_name: of its certificate, which has been verified; "" if it has none.
    """

    name: str
    is_local: bool = False
    is_trusted: bool = False
    common_name: str = ""


class PeerProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which tells the application who the peer is."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look who it is."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, PEER: _peer(transport)}
        if len(self.connections) > MAX_CLIENTS:
            transport.close()
            return
        self.loop.call_later(REQUEST_TIME, self._hang_up, None)

    def _hang_up(self, answered: object) -> None:
        """Close if nothing was asked since `answered`; uvicorn's own timer ends with the first byte that comes."""
        cycle = cast("Any", self.cycle)
        if self.transport.is_closing():
            return
        if cycle is answered:
            self.transport.close()
            return
        self.loop.call_later(IDLE_TIME, self._hang_up, cycle if cycle.response_complete else _UNANSWERED)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or has too large a head, and hang up."""
        body = msgspec.json.encode(make(HTTPStatus.BAD_REQUEST, msg))
        headers = [("content-type", MEDIA_TYPE), ("content-length", str(len(body))), ("connection", "close")]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _peer(transport: asyncio.Transport) -> Peer:
    end: socket.socket = transport.get_extra_info("socket")
    if end.family == socket.AF_UNIX:
        _, user, _ = _CREDENTIALS.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        return Peer(_user_name(user), is_local=True, is_trusted=user in (0, os.geteuid()))
    address = transport.get_extra_info("peername")
    certificate: dict[str, Any] = transport.get_extra_info("peercert") or {}
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return Peer(str(address[0]) if address else "", common_name=names[0] if len(names) == 1 else "")


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"uid-{user}"

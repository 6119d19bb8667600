"""What every request passes before its route: who asks, how often, and how much they send.

On the Unix socket the kernel says who asks (SO_PEERCRED): the server's own user and root are admins, all others are
turned away whatever they bring. On TLS it is a bearer token, or a client certificate whose common name has a role.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, cast

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPReceiveMessage, HTTPRequestEvent, HTTPScope, Receive, Scope, Send

from brokerkm.api.peer import PEER, Peer
from brokerkm.api.principal import STATE, Principal
from brokerkm.api.problems import MEDIA_TYPE, ProblemError
from brokerkm.errors import BrokerkmError
from brokerkm.service import credentials
from brokerkm.service.credentials import Role
from brokerkm.service.limits import RateLimit
from brokerkm.service.server import KeyServer

_log = logging.getLogger(__name__)

MAX_BODY: Final = 1 << 20  # bytes; ten thousand member ids take 0.7 MB
MAX_UNLOCKED: Final = 1 << 16  # bytes of a body from whoever has not shown yet who it is
BODY_TIME: Final = 30.0  # seconds in which a body has to arrive
BODY: Final = "brokerkm_body"  # key of the whole body in the state of an ASGI scope
STREAMED: Final = "/import"  # what the paths of routes end with that read their body as it arrives


@dataclass(frozen=True, slots=True)
class Limits:
    """How often one may ask: requests a second, and at once.

    Args:
        credential: of each credential.
        peer: of each address, before it is known who asks.
    """

    credential: tuple[float, float] = (100.0, 500.0)
    peer: tuple[float, float] = (200.0, 1000.0)


@dataclass(frozen=True, slots=True)
class Gate:
    """The outermost ASGI application.

    Args:
        roles: role of each client certificate, by its subject's common name.
        unlocked: applications that authenticate by themselves, by what their paths begin with.
    """

    app: ASGIApp
    server: KeyServer
    limits: Limits = Limits()
    roles: Mapping[str, Role] = field(default_factory=dict[str, Role])
    unlocked: Mapping[str, ASGIApp] = field(default_factory=dict[str, ASGIApp])
    _peers: RateLimit = field(init=False)
    _credentials: RateLimit = field(init=False)

    def __post_init__(self) -> None:
        self.limit(self.limits)

    def limit(self, limits: Limits) -> None:
        """Let callers ask so often from now on; what each has asked is forgotten."""
        object.__setattr__(self, "_peers", RateLimit(*limits.peer))
        object.__setattr__(self, "_credentials", RateLimit(*limits.credential))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or turn it away."""
        if scope["type"] != ScopeType.HTTP:
            return
        try:
            state: dict[str, Any] = scope["state"]
            for start, app in self.unlocked.items():
                if scope["path"].startswith(start):
                    self._count(self._peers, state[PEER].name)
                    body = await _read(receive, MAX_UNLOCKED)
                    await app(scope, replay(body, receive), send)
                    return
            principal = await self._authenticate(scope, state[PEER])
            self._count(self._credentials, f"{principal.name}/{principal.secret_digest}")
            state[STATE] = principal
            if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not scope["path"].endswith(STREAMED):
                state[BODY] = await _read(receive, MAX_BODY)
                receive = replay(state[BODY], receive)
        except ProblemError as error:
            await send_problem(send, error)
            return
        try:
            await self.app(scope, receive, send)
        except Exception:  # noqa: BLE001 - the client is told, the server goes on
            _log.exception("a request failed outside of its route")
            message = "the server failed unexpectedly; its log says why"
            await send_problem(send, ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", message))

    async def _authenticate(self, scope: HTTPScope, peer: Peer) -> Principal:
        if peer.is_local and not peer.is_trusted:
            message = "this socket is for the key server's own user and root"
            raise ProblemError(HTTPStatus.FORBIDDEN, "forbidden", message)
        self._count(self._peers, peer.name)
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if given:
            return await self._by_token(given)
        if peer.is_local:
            return Principal(peer.name, Role.ADMIN)
        if peer.common_name in self.roles:
            _check_no_browser(scope)
            return Principal(f"certificate:{peer.common_name}", self.roles[peer.common_name])
        message = "a bearer token is needed: `Authorization: Bearer bka1_...`"
        raise _unauthenticated(message)

    async def _by_token(self, given: list[bytes]) -> Principal:
        scheme, _, token = given[0].decode("latin-1").partition(" ")
        if len(given) == 1 and scheme.lower() == "bearer":
            now = int(self.server.clock() * 1000)
            try:
                found = await self.server.desk.call(credentials.find, self.server.store, token.strip(), now)
            except BrokerkmError as error:
                raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "store", str(error)) from error
            if found is not None:
                return Principal(f"token:{found.name}", found.role, found.digest.hex())
        message = "the bearer token is not valid: it may have expired, or been revoked"
        raise _unauthenticated(message)

    def _count(self, limit: RateLimit, name: str) -> None:
        if not limit.allow(name, asyncio.get_running_loop().time()):
            message = "too many requests: ask again in a second, and less often"
            raise ProblemError(HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests", message, {"retry-after": "1"})


def _check_no_browser(scope: HTTPScope) -> None:
    """Refuse what a web page has a browser send: a browser shows its certificate for any page, a token for none."""
    if any(name == b"origin" or name.startswith(b"sec-fetch-") for name, _ in scope["headers"]):
        message = "a browser sent this: a certificate counts from other programs alone; show a bearer token"
        raise ProblemError(HTTPStatus.FORBIDDEN, "forbidden", message)


def _unauthenticated(detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.UNAUTHORIZED, "unauthenticated", detail, {"www-authenticate": "Bearer"})


async def _read(receive: Receive, most: int) -> bytes:
    """Return the whole body; raises `ProblemError` if it is too large, or does not come."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIME):
            more = True
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise ProblemError(HTTPStatus.BAD_REQUEST, "malformed", "the body ended too soon")
                body += message["body"]
                more = message["more_body"]
                if len(body) > most:
                    detail = f"a body has up to {most} bytes"
                    raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", detail)
    except TimeoutError:
        message_ = f"the body did not arrive within {BODY_TIME:.0f} s"
        raise ProblemError(HTTPStatus.BAD_REQUEST, "malformed", message_) from None
    return bytes(body)


def replay(body: bytes, receive: Receive) -> Receive:
    """Return what gives `body` once, and then whatever follows."""
    waiting: list[HTTPRequestEvent] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> HTTPReceiveMessage:
        return waiting.pop() if waiting else cast("HTTPReceiveMessage", await receive())

    return again


async def send_problem(send: Send, error: ProblemError) -> None:
    """Answer with a problem, outside of all routes."""
    body = msgspec.json.encode(error.problem)
    headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **error.headers}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.problem.status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})

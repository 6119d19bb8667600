"""Requests about a group that another server leads: handed to that server, which answers as if it had been asked.

It is done once for all routes: what is handed on is the request itself. Who asks was found out here and is named
there; what they may do is looked at there, by the same rules. Nothing is handed on twice.
"""

import re
from http import HTTPStatus
from typing import Any, Final, cast

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from brokerkm.api.gate import BODY, replay, send_problem
from brokerkm.api.idempotency import SECRET
from brokerkm.api.principal import STATE, Principal
from brokerkm.api.problems import ProblemError
from brokerkm.errors import BrokerkmError, OutcomeUnknownError, StoreError
from brokerkm.service.credentials import Role
from brokerkm.service.server import KeyServer

MAX_FORWARDED: Final = 1 << 20  # bytes of a body; 1,000 rows of an import have a fifth
_OF_GROUP: Final = re.compile(r"/v1/(?:groups|hooks)/([A-Za-z0-9._-]{1,64})(?:/.*)?")
_MOVE: Final = re.compile(r"/v1/groups/[^/]+/move")  # any server can ask for that
_DROPPED: Final = frozenset({b"authorization", b"connection", b"cookie", b"idempotency-key", b"transfer-encoding"})


class Forwarding:
    """The way to the servers that lead other groups, and the answers to what they ask for the groups led here."""

    def __init__(self, server: KeyServer) -> None:
        self._server: Final = server
        self._apps: Final[dict[str, ASGIApp]] = {}
        server.leadership.answer_calls(self.answer)

    def cover(self, name: str, app: ASGIApp) -> ASGIApp:
        """Return `app`, with what is about groups of other servers handed to the app that has the same name there."""
        self._apps[name] = app

        async def covered(scope: Scope, receive: Receive, send: Send) -> None:
            group = await self._elsewhere(scope, send)
            if group is None:
                await app(scope, receive, send)
            elif group:
                await self._hand_on(name, group, cast("HTTPScope", scope), receive, send)

        return covered

    async def answer(self, group: str, name: str, arguments: object) -> object:
        """Answer what another server was asked about a group that is led here; raises `StoreError` if it is not."""
        app = self._apps.get(name)
        if app is None or not isinstance(arguments, dict):
            message = f"the server that leads group {group} does not know such calls: is its version another?"
            raise StoreError(message)
        if group not in self._server.groups:
            message = f"group {group} is just being handed over: nothing was done, try again"
            raise StoreError(message)
        request = cast("dict[str, Any]", arguments)
        scope, caught = _scope(app, request), _Caught()
        await app(scope, replay(request["body"].encode("latin-1"), _gone), caught.send)
        return {
            "status": caught.status,
            "headers": caught.headers,
            "body": caught.body.decode("latin-1"),
            "secret": bool(scope["state"].get(SECRET)),
        }

    async def _elsewhere(self, scope: Scope, send: Send) -> str | None:
        """Return the group of another server that a request is about; None: it is for here, "": it is answered."""
        if scope["type"] != ScopeType.HTTP or _MOVE.fullmatch(scope["path"]):
            return None
        found = _OF_GROUP.fullmatch(scope["path"])
        if found is None or found[1] in self._server.groups:
            return None
        try:
            known = await self._server.desk.call(self._server.store.group, found[1])
        except StoreError as error:
            await send_problem(send, ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "store", str(error)))
            return ""
        return None if known is None else found[1]

    async def _hand_on(self, name: str, group: str, scope: HTTPScope, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = scope["state"]
        try:
            body = state[BODY] if BODY in state else await _read(receive, group)
            answer = await self._ask(group, name, _request(scope, state.get(STATE), body))
        except ProblemError as error:
            await send_problem(send, error)
            return
        state[SECRET] = answer["secret"]
        headers = [(one.encode("latin-1"), value.encode("latin-1")) for one, value in answer["headers"]]
        await send({"type": "http.response.start", "status": answer["status"], "headers": headers})
        await send({"type": "http.response.body", "body": answer["body"].encode("latin-1"), "more_body": False})

    async def _ask(self, group: str, name: str, request: dict[str, object]) -> Any:  # noqa: ANN401 - JSON
        try:
            return await self._server.leadership.call(group, name, request)
        except OutcomeUnknownError as error:  # not 503, after which the same may be tried again
            raise ProblemError(HTTPStatus.GATEWAY_TIMEOUT, "unanswered", str(error)) from error
        except BrokerkmError as error:
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "store", str(error)) from error


class _Caught:
    """A response that is not sent, but kept."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [
                (bytes(one).decode("latin-1"), bytes(two).decode("latin-1")) for one, two in message["headers"]
            ]
        elif message["type"] == "http.response.body":
            self.body += message["body"]


def _request(scope: HTTPScope, principal: Principal | None, body: bytes) -> dict[str, object]:
    """Return a request as JSON can say it."""
    kept = [(one, value) for one, value in scope["headers"] if one not in _DROPPED]
    return {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode("latin-1"),
        "headers": [(one.decode("latin-1"), value.decode("latin-1")) for one, value in kept],
        "body": body.decode("latin-1"),
        "principal": None if principal is None else [principal.name, principal.role.value, principal.secret_digest],
    }


def _scope(app: ASGIApp, request: dict[str, Any]) -> HTTPScope:
    """Return the request of another server as an ASGI server has it."""
    state: dict[str, Any] = {BODY: request["body"].encode("latin-1")}
    if request["principal"] is not None:
        name, role, digest = request["principal"]
        state[STATE] = Principal(name, Role(role), digest)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request["method"],
        "scheme": "http",
        "path": request["path"],
        "raw_path": request["path"].encode(),
        "query_string": request["query"].encode("latin-1"),
        "headers": [(one.encode("latin-1"), value.encode("latin-1")) for one, value in request["headers"]],
        "root_path": "",
        "client": None,
        "server": None,
        "extensions": {},
        "state": state,
        "app": app,
    }
    return cast("HTTPScope", scope)


async def _read(receive: Receive, group: str) -> bytes:
    """Return a body that the gate has left to its route; raises `ProblemError` for one too large to hand on."""
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ProblemError(HTTPStatus.BAD_REQUEST, "malformed", "the body ended too soon")
        body += message["body"]
        more = message["more_body"]
        if len(body) > MAX_FORWARDED:
            detail = (
                f"group {group} is led by another server, to which bodies of up to {MAX_FORWARDED} bytes are handed: "
                "send parts, or ask that server itself (GET /v1/servers)"
            )
            raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", detail)
    return bytes(body)


async def _gone() -> Any:  # noqa: ANN401 - an ASGI message
    """Say that nothing follows a body."""
    return {"type": "http.disconnect"}

"""`Idempotency-Key`: a change that is asked for again is not made again, but answered as it was the first time.

Before a change is begun, that is stored; when it is done, so is its answer. A server that dies between the two
leaves a mark, and whoever asks again is told that nobody knows the outcome, rather than that the change is made twice.
Answers with a secret are not kept. Nor are those of 503: what could not be stored may be tried again.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from brokerkm.api.gate import BODY, send_problem
from brokerkm.api.principal import STATE, Principal
from brokerkm.api.problems import ProblemError
from brokerkm.errors import BrokerkmError, StoreError
from brokerkm.service.credentials import Role
from brokerkm.service.server import KeyServer
from brokerkm.store.records import Change, Document

_log = logging.getLogger(__name__)

KIND: Final = "answer"
LIFETIME: Final = 24 * 3600 * 1000  # ms that an answer is kept
MAX_KEPT: Final = 20_000  # answers; beyond it the oldest are forgotten
MAX_ANSWER: Final = 64 * 1024  # bytes; of a longer one it is kept only that it was given
PATIENCE: Final = 60.0  # seconds that a request waits for another with its key
SECRET: Final = "brokerkm_secret"  # noqa: S105 - key in the state of an ASGI scope: the answer must not be kept
_SWEEP: Final = 500  # answers after which old ones are looked for
_KEY: Final = re.compile(rb"[\x21-\x7e]{1,255}")


@dataclass(slots=True)
class _Answer:
    """A response as it was given; `status` 0 while it is not known, `body` None if it is not kept."""

    digest: str
    status: int = 0
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes | None = None

    def encode(self) -> bytes:
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in self.headers]
        body = None if self.body is None else base64.b64encode(self.body).decode()
        return json.dumps([self.digest, self.status, headers, body]).encode()

    @classmethod
    def decode(cls, data: bytes) -> "_Answer":
        digest, status, headers, body = json.loads(data)
        pairs = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
        return cls(digest, status, pairs, None if body is None else base64.b64decode(body))


class Idempotency:
    """ASGI middleware between the gate and the routes."""

    def __init__(self, app: ASGIApp, server: KeyServer) -> None:
        self._app: Final = app
        self._server: Final = server
        self._locks: Final[dict[str, tuple[asyncio.Lock, int]]] = {}
        self._since_sweep = _SWEEP  # the first one sweeps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, perhaps as before."""
        keys = [value for name, value in scope["headers"] if name == b"idempotency-key"]
        state = scope["state"]
        if scope["type"] != ScopeType.HTTP or not keys or BODY not in state or _changes_nothing(state):
            await self._app(scope, receive, send)
            return
        try:
            name, digest = _name(scope["state"][STATE], keys), _digest(scope)
            async with self._alone(name):
                known = await self._begin(name, digest)
                answer = known or await self._answer(scope, receive, _Answer(digest))
                if known is None:
                    await self._keep(name, answer, secret=bool(scope["state"].get(SECRET)))
        except ProblemError as error:
            await send_problem(send, error)
            return
        except StoreError as error:
            await send_problem(send, ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "store", str(error)))
            return
        replayed = [(b"idempotency-replayed", b"true")] if known else []
        headers = [*answer.headers, *replayed]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body or b"", "more_body": False})

    @contextlib.asynccontextmanager
    async def _alone(self, name: str) -> AsyncGenerator[None]:
        """Wait until no other request with this key is under way."""
        lock, waiting = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = lock, waiting + 1
        try:
            try:
                async with asyncio.timeout(PATIENCE):
                    await lock.acquire()
            except TimeoutError:
                message = "a request with this Idempotency-Key is under way: ask again later"
                raise ProblemError(HTTPStatus.CONFLICT, "under-way", message) from None
            try:
                yield
            finally:
                lock.release()
        finally:
            lock, waiting = self._locks.pop(name)
            if waiting > 1:
                self._locks[name] = lock, waiting - 1

    async def _begin(self, name: str, digest: str) -> _Answer | None:
        """Return the answer that was given to this key; or None, after it is stored that a change is begun."""
        desk, store, now = self._server.desk, self._server.store, self._now()
        found = await desk.call(store.document, "", KIND, name)
        if found is not None and found.time + LIFETIME > now:
            known = _Answer.decode(found.body)
            if known.digest != digest:
                message = "this Idempotency-Key was used for another request: take a new one for each"
                raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "key-reused", message)
            if not known.status:
                message = "the server was stopped during this request: look whether it was done, and take a new key"
                raise ProblemError(HTTPStatus.CONFLICT, "interrupted", message)
            if known.body is None:
                message = "this was done already, and its answer is not kept: if it is lost, revoke what it made"
                raise ProblemError(HTTPStatus.CONFLICT, "answered-once", message)
            return known
        dropped = await self._old()
        begun = Document(KIND, name, _Answer(digest).encode(), now)
        await desk.call(store.write, "", Change(documents=[begun], dropped=[one for one in dropped if one[1] != name]))
        return None

    async def _answer(self, scope: HTTPScope, receive: Receive, answer: _Answer) -> _Answer:
        """Have the request answered, and return what is to be sent."""
        body = bytearray()

        async def catch(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = tuple((bytes(name), bytes(value)) for name, value in message["headers"])
            elif message["type"] == "http.response.body":
                body.extend(message["body"])

        await self._app(scope, receive, catch)
        answer.body = bytes(body)
        return answer

    async def _keep(self, name: str, answer: _Answer, *, secret: bool) -> None:
        """Store an answer; if that fails, the request is done all the same."""
        body = answer.body
        if (secret and answer.status < HTTPStatus.BAD_REQUEST) or len(body or b"") > MAX_ANSWER:
            body = None
        kept = _Answer(answer.digest, answer.status, answer.headers, body)
        change = Change(documents=[Document(KIND, name, kept.encode(), self._now())])
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
            change = Change(dropped=[(KIND, name)])
        try:
            await self._server.desk.call(self._server.store.write, "", change)
        except BrokerkmError as error:
            _log.warning("an answer was given, but not kept: %s", error)

    async def _old(self) -> list[tuple[str, str]]:
        """Return answers to forget, now and then."""
        self._since_sweep += 1
        if self._since_sweep <= _SWEEP:
            return []
        self._since_sweep = 0
        documents = await self._server.desk.call(self._server.store.documents, "", KIND)
        times = sorted((document.time, document.name) for document in documents)
        newest = {name for time, name in times[-MAX_KEPT:] if time + LIFETIME > self._now()}
        return [(KIND, name) for _, name in times if name not in newest]

    def _now(self) -> int:
        return int(self._server.clock() * 1000)


def _changes_nothing(state: dict[str, Any]) -> bool:
    """Return whether who asks may change nothing: not the store either, nor crowd out the answers to others."""
    principal: Principal = state[STATE]
    return not principal.role.covers(Role.OPERATOR)


def _name(principal: Principal, keys: list[bytes]) -> str:
    """Return the name under which an answer is kept: no two credentials share any; raises `ProblemError`."""
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        message = "Idempotency-Key: one of 1 to 255 visible ASCII characters"
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", message)
    who = f"{principal.name}\0{principal.secret_digest}\0".encode()
    return hashlib.sha256(who + keys[0]).hexdigest()


def _digest(scope: HTTPScope) -> str:
    head = json.dumps([scope["method"], scope["path"], scope["query_string"].decode("latin-1")]).encode()
    state: dict[str, Any] = scope["state"]
    return hashlib.sha256(head + b"\0" + state[BODY]).hexdigest()

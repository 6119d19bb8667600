"""Between servers: what reached one that does not lead the group goes to the one that does, and answers come back.

Requests of members are handed on without an answer: a member that hears nothing asks again. A call of an operator
has an answer or, after a while, none, and then nobody knows whether it has happened. All that waits is bounded.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from brokerkm.core.wire import binary as as_bytes
from brokerkm.core.wire import pack, text, unpack_array
from brokerkm.errors import BrokerkmError, OutcomeUnknownError, RefusedError, StoreError, TransportError, UsageError
from brokerkm.store.mailbox import Letter, to_leader, to_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from brokerkm.service.desk import StoreDesk

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000  # requests that wait to be handed on
MAX_CALLS: Final = 100  # calls under way
CALL_PATIENCE: Final = 20.0  # seconds; a take-over is done by then
_MAX_LETTER: Final = 1 << 20  # bytes
_AT_ONCE: Final = 256
_ERRORS: Final = {"usage": UsageError, "store": StoreError, "transport": TransportError}


class Mailbox(Protocol):
    """`brokerkm.store.mailbox.PostgresMailbox`, as the courier uses it."""

    def post(self, letters: Sequence[Letter]) -> int:
        """Send letters."""
        ...

    def take(self, receivers: Collection[str]) -> list[Letter]:
        """Take letters."""
        ...


class Courier:
    """Carries requests and calls for one server.

    Args:
        me: the server's id.
        desk: of a thread other than the store's, which may be busy.
        request: called with group, member and payload of a request for a group that this server leads.

    Attributes:
        answer: performs a call (group, name, arguments) and returns the result, both as JSON has them; set by the API.
    """

    def __init__(
        self, me: str, mailbox: Mailbox, desk: StoreDesk, request: Callable[[str, str, bytes], Awaitable[None]]
    ) -> None:
        self._me: Final = me
        self._mailbox: Final = mailbox
        self._desk: Final = desk
        self._request: Final = request
        self._out: Final[deque[Letter]] = deque()
        self._sending = asyncio.Lock()
        self._numbers: Final = itertools.count(1)
        self._calls: Final[dict[int, asyncio.Future[object]]] = {}
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self.answer: Callable[[str, str, object], Awaitable[object]] | None = None
        self.dropped = 0

    def forward(self, group: str, member: str, payload: bytes) -> None:
        """Hand a member's request on to whoever leads the group."""
        if len(self._out) >= MAX_WAITING:
            self.dropped += 1
            return
        self._out.append(Letter(to_leader(group), "request", pack((member, payload)), self._me))
        self._spawn(self._send())

    async def call(self, group: str, name: str, arguments: object) -> object:
        """Have whoever leads `group` perform a call; return its result.

        Raises:
            UsageError, StoreError, TransportError: as there.
            OutcomeUnknownError: no answer came; the call may or may not have happened.
        """
        if len(self._calls) >= MAX_CALLS:
            message = "too many calls wait for other servers: try again"
            raise StoreError(message)
        number = next(self._numbers)
        body = json.dumps({"group": group, "call": name, "with": arguments}).encode()
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        try:
            await self._desk.call(self._mailbox.post, [Letter(to_leader(group), "call", body, self._me, number)])
            async with asyncio.timeout(CALL_PATIENCE):
                return await future
        except TimeoutError:
            message = f"the server that leads group {group} did not answer: see what has happened before trying again"
            raise OutcomeUnknownError(message) from None
        finally:
            del self._calls[number]

    async def collect(self, groups: Collection[str]) -> None:
        """Take and handle what is there for this server and for the `groups` that it leads; raises `StoreError`."""
        receivers = [to_server(self._me), *map(to_leader, groups)]
        while letters := await self._desk.call(self._mailbox.take, receivers):
            for letter in letters:
                await self._handle(letter)

    async def close(self) -> None:
        """Forget what is under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _handle(self, letter: Letter) -> None:
        group = letter.receiver.partition(" ")[2]
        try:
            match letter.kind:
                case "request":
                    member, payload = unpack_array(letter.body, _MAX_LETTER)
                    await self._request(group, text(member, "member"), as_bytes(payload, "payload"))
                case "call":
                    self._spawn(self._perform(group, letter))
                case "answer":
                    self._answered(letter)
                case kind:
                    _log.warning("a letter of a kind that this version does not know: %s", kind)
        except (RefusedError, ValueError) as error:
            _log.warning("a letter of server %s is damaged: %s", letter.sender, error)

    async def _perform(self, group: str, letter: Letter) -> None:
        """Do what another server's operator has asked for, and answer."""
        request = json.loads(letter.body)
        try:
            if self.answer is None:
                message = "this server takes no calls from others"
                raise StoreError(message)
            outcome: dict[str, object] = {"ok": await self.answer(group, str(request["call"]), request["with"])}
        except BrokerkmError as error:
            kind = next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), "store")
            outcome = {"error": kind, "message": str(error)}
        answer = Letter(to_server(letter.sender), "answer", json.dumps(outcome).encode(), self._me, letter.reference)
        try:
            await self._desk.call(self._mailbox.post, [answer])
        except StoreError as error:
            _log.warning("an answer for server %s is lost: %s", letter.sender, error)

    def _answered(self, letter: Letter) -> None:
        future = self._calls.get(letter.reference)
        if future is None or future.done():
            return
        outcome = json.loads(letter.body)
        if "ok" in outcome:
            future.set_result(outcome["ok"])
        else:
            future.set_exception(_ERRORS.get(outcome.get("error"), StoreError)(str(outcome.get("message"))))

    async def _send(self) -> None:
        """Post what waits, in batches."""
        async with self._sending:
            batch = [self._out.popleft() for _ in range(min(_AT_ONCE, len(self._out)))]
            if not batch:
                return
            try:
                sent = await self._desk.call(self._mailbox.post, batch)
            except StoreError as error:
                _log.warning("%d requests could not be handed on: %s", len(batch), error)
                sent = 0
            self.dropped += len(batch) - sent

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

"""The hub: subscribers on XPUB, submissions on ROUTER, last values between them.

How nothing is lost silently. libzmq holds `high_water` messages for each subscriber. XPUB runs with
XPUB_NODROP, so a send fails as long as one matching subscriber is full. The hub waits `patience` seconds for
it, then sends a *beat*: a numbered message to every subscriber, the only kind that is sent in
spite of a full one. libzmq then counts the full subscriber as passive and skips it until it has read half of
what waits; every passive subscriber has therefore missed a beat, and sees it by the jump in numbers at the
next. Beats go out every second once there has been a first. So a slow subscriber alone loses, learns of
it, and reads the last values again; the others wait for it at most `patience`.

How XPUB_MANUAL is used. Receiving a command makes its pipe the one that SUBSCRIBE applies to. The hub
subscribes that pipe to what the command may have, and to ``D`` while it writes the answer (no other
coroutine runs meanwhile), so that last values go to that subscriber alone. libzmq 4.3.5 goes out of step
if a peer sends XPUB a message that is no subscription: the commands behind it are attributed to the
wrong pipe, which would give one subscriber's topics to another. So after such a message every command is
dropped until XPUB's queue has been empty once, when it is in step again; honest subscribers repeat theirs.

What is for one member goes out under a prefix that holds its id; only commands of a key with that id are
subscribed to it. That needs a list of keys; without one, everybody may read everything, encrypted as it is.

A removed key keeps the connection that it has: libzmq cannot close one. It gets no new subscription and its
submissions are refused.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import zmq

from brokerkm import topics
from brokerkm.errors import TransportError, UsageError
from brokerkm_zmq import keys, rules, sockets, wire
from brokerkm_zmq.port import Port
from brokerkm_zmq.values import LastValues, Page, Value
from brokerkm_zmq.zap import Gatekeeper

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from brokerkm_zmq.settings import Settings

    Reply = Callable[[str | None], None]
    Accept = Callable[[wire.Submission, Reply], Awaitable[None]]
    Authorize = Callable[[str | None, str], bool]

_log = logging.getLogger(__name__)

BEAT_INTERVAL: Final = 1.0  # seconds
BURST: Final = 100  # messages handled before other coroutines have their turn
_TRIES: Final = 1000  # beats for one message; each makes a full subscriber passive, so it never comes to this
_MINIMUM_LIBZMQ: Final = (4, 3, 5)  # before, XPUB_MANUAL used pipes that were gone


class Hub:
    """Both sockets of a hub, bound by `open`.

    Args:
        settings: of the server's role.
        accept: called for each submission that the rules allow, with what takes its answer, now or later: why it
            is refused, or None. While it runs, no other submission is read.
        authorize: called with member id (None if unknown) and filter for each subscription.
    """

    def __init__(self, settings: Settings, accept: Accept, authorize: Authorize | None = None) -> None:
        if zmq.zmq_version_info() < _MINIMUM_LIBZMQ:
            message = f"libzmq {zmq.zmq_version()} is too old for a hub: 4.3.5 or later is in pyzmq's own wheels"
            raise UsageError(message)
        self._settings = settings
        self._accept = accept
        self._authorize = authorize
        self._members = dict(settings.members) if settings.members is not None else None
        self.values = LastValues(settings.cache_topics, settings.cache_bytes)
        self._warner = rules.Warner(_log)
        self._slow = asyncio.Lock()
        self._beat = 0
        self._tainted = False
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Bind; raises `TransportError` if an address is taken."""
        self._context = sockets.context()
        self._gatekeeper: Gatekeeper | None = None
        if self._members is not None:
            self._gatekeeper = Gatekeeper(self._context, self._member_of)
        down = sockets.make(self._context, zmq.XPUB, self._settings, largest=wire.MAX_COMMAND)
        down.set(zmq.XPUB_MANUAL, 1)
        down.set(zmq.XPUB_NODROP, 1)
        largest = sockets.largest_frame(self._settings.max_payload)
        up = sockets.make(self._context, zmq.ROUTER, self._settings, largest=largest)
        for socket, endpoint in ((down, self._settings.down), (up, self._settings.up)):
            sockets.secure_hub(socket, self._settings)
            try:
                socket.bind(endpoint)
            except zmq.ZMQError as error:
                down.close(linger=0)
                up.close(linger=0)
                await self._end_context()
                message = f"cannot bind {endpoint}: {error.strerror}"
                raise TransportError(message) from error
        self._down, self._up = Port(down), Port(up)
        loop = asyncio.get_running_loop()
        for work in (self._read_commands, self._read_submissions, self._keep_beating):
            self._tasks.append(loop.create_task(work(), name=f"zmq hub {work.__name__}"))

    async def close(self) -> None:
        """Send what was accepted for at most a second and close."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._down.close(sockets.LINGER)
        self._up.close(sockets.LINGER)
        await self._end_context()

    async def _end_context(self) -> None:
        if self._gatekeeper is not None:
            await self._gatekeeper.close()
        await sockets.end(self._context)

    def set_members(self, members: Mapping[str, str]) -> None:
        """Replace the list of keys (Z85 public key to member id), from the next connection or message on."""
        if self._members is None:
            message = "this hub was opened without a list of keys, and its connections are not known by name"
            raise UsageError(message)
        self._members = keys.check_members(members)

    def _member_of(self, key: str) -> str | None:
        return None if self._members is None else self._members.get(key)

    # Downwards

    async def publish(self, topic: str, audience: str | None, payload: bytes, *, retain: bool) -> None:
        """Keep a last value if asked to, and send to the subscribers.

        What members may publish leaves a quarter of the cache free, or one of them could fill it and keep the key
        server from retaining a rekey.

        Raises:
            TransportError: the last-value cache is full; nothing was sent.
        """
        if self._members is None:
            audience = None
        frames = [wire.head(topic, audience, retain=retain), payload]
        is_members = not rules.is_below(self._settings.prefix, topic)
        if retain and not self.values.fits(topic, payload, is_members=is_members):
            message = f"{topic}: the hub's last-value cache is full (cache_topics, cache_bytes)"
            raise TransportError(message)
        if self._slow.locked() or not self._down.try_send(frames):
            async with self._slow:
                await self._send_slowly(frames)
        if retain:  # kept when sent, not before: a new subscriber must not get a later value first
            self.values.put(topic, frames[0], payload, audience)

    async def _send_slowly(self, frames: list[bytes]) -> None:
        if await self._send_patiently(frames):
            return
        for _ in range(_TRIES):
            self._send_beat()
            if self._down.try_send(frames):
                return
        self._beat += 1  # nobody got that one: everybody looks for what it missed
        self._send_lossy(frames)

    async def _send_patiently(self, frames: list[bytes]) -> bool:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.patience
        while not self._down.try_send(frames):
            left = end - loop.time()
            if left <= 0:
                return False
            await self._down.stirred(left)
        return True

    def _send_lossy(self, frames: list[bytes]) -> None:
        self._down.socket.set(zmq.XPUB_NODROP, 0)
        self._down.try_send(frames)
        self._down.socket.set(zmq.XPUB_NODROP, 1)

    def _send_beat(self) -> None:
        self._beat += 1
        self._warner.warn("a subscriber is too slow and loses messages", self._beat)
        self._send_lossy([wire.BEAT + wire.number(self._beat)])

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(BEAT_INTERVAL)
            if self._beat:
                self._beat += 1
                self._send_lossy([wire.BEAT + wire.number(self._beat)])

    def skip(self) -> None:
        """Tell all subscribers that they may have missed something."""
        self._beat += 2
        self._send_lossy([wire.BEAT + wire.number(self._beat)])

    # Commands of subscribers

    async def _read_commands(self) -> None:
        while True:
            for _ in range(BURST):
                frames = self._down.try_receive()
                if frames is None:
                    self._tainted = False
                    break
                self._on_command(frames)
            else:
                await asyncio.sleep(0)
                continue
            await self._down.readable()

    def _on_command(self, frames: list[zmq.Frame]) -> None:
        data = frames[0].bytes
        if len(frames) > 1 or data[:1] not in (b"\x00", b"\x01"):
            self._tainted = True
            self._warner.warn("dropped a message that is no command, from", self._who(frames[0]))
            return
        if self._tainted or data[:1] == b"\x00":
            return  # the end of a subscription only tidies libzmq's books; commands say what is meant
        try:
            command = wire.read_command(data[1:])
        except ValueError as error:
            self._warner.warn(f"dropped a bad command ({error}), from", self._who(frames[0]))
            return
        self._obey(command, self._user(frames[0]))

    def _user(self, frame: zmq.Frame) -> str | None:
        """Return the member id of a frame's sender, None if this hub knows nobody."""
        return None if self._members is None else self._who(frame)

    def _is_listed(self, user: str | None) -> bool:
        return self._members is None or user in self._members.values()

    @staticmethod
    def _who(frame: zmq.Frame) -> str:
        try:
            return str(frame.get("User-Id"))
        except zmq.ZMQError:
            return "a peer without key"

    def _obey(self, command: wire.Command, user: str | None) -> None:
        socket = self._down.socket
        socket.set(zmq.SUBSCRIBE, wire.BEAT)
        socket.set(zmq.SUBSCRIBE, wire.DIRECT)
        try:
            self._answer(command, user)
        finally:
            socket.set(zmq.UNSUBSCRIBE, wire.DIRECT)

    def _answer(self, command: wire.Command, user: str | None) -> None:
        error = ""
        page = Page([], None)
        serial = self.values.serial
        if command.op is wire.Op.UNSUBSCRIBE:
            self._set(zmq.UNSUBSCRIBE, command.filters, user)
        elif refused := [pattern for pattern in command.filters if not self._may_subscribe(user, pattern)]:
            error = f"not allowed: {', '.join(refused)}"
        elif len(command.filters) > self._settings.burst:
            error = "too many filters at a time"
        elif command.op is wire.Op.SUBSCRIBE:
            for pattern in command.filters:
                self._set(zmq.SUBSCRIBE, wire.prefixes(pattern), user)
            page = self._page(command, user, (0, 0), serial)
        else:
            page = self._page(command, user, command.cursor, command.before)
        text = error.encode()[: wire.MAX_TEXT]
        cursor = b"" if page.cursor is None else b"".join(wire.number(part) for part in page.cursor)
        told = (
            self._tell(wire.Direct.ACK, command, wire.number(self._beat), wire.number(serial), text)
            and all(self._tell(wire.Direct.VALUE, command, value.head, value.payload) for value in page.values)
            and self._tell(wire.Direct.END, command, cursor)
        )
        if not told:
            self._send_beat()  # the subscriber is full: it learns that it missed something, and asks again

    def _page(self, command: wire.Command, user: str | None, cursor: tuple[int, int], before: int) -> Page:
        def may_read(value: Value) -> bool:
            return value.serial <= before and (value.audience is None or user in (value.audience, keys.FORWARDER))

        wild = [pattern for pattern in command.filters if not topics.is_exact(pattern)]
        if wild:
            limit = min(max(1, command.limit), self._settings.burst)
            return self.values.page(wild[0], cursor, limit, may_read)
        found = [self.values.get(topic) for topic in command.filters]
        return Page([value for value in found if value is not None and may_read(value)], None)

    def _tell(self, kind: wire.Direct, command: wire.Command, *frames: bytes) -> bool:
        return self._down.try_send([wire.direct(kind, command.id), *frames])

    def _set(self, option: int, starts: tuple[str, ...] | list[str], user: str | None) -> None:
        for start in starts:
            self._down.socket.setsockopt(option, wire.ALL + start.encode())
            if user == keys.FORWARDER:
                self._down.socket.setsockopt(zmq.SUBSCRIBE, wire.ONE)
            elif user is not None:
                self._down.socket.setsockopt(option, wire.ONE + user.encode() + b"\x00" + start.encode())

    def _may_subscribe(self, user: str | None, pattern: str) -> bool:
        if not self._is_listed(user) or not rules.may_subscribe(self._settings.prefix, pattern, user):
            return False
        value = self.values.get(pattern)
        if value is not None and value.audience is not None and user not in (value.audience, keys.FORWARDER):
            return False
        return self._authorize is None or self._authorize(user, pattern)

    # Upwards

    async def _read_submissions(self) -> None:
        while True:
            for _ in range(BURST):
                frames = self._up.try_receive()
                if frames is None:
                    break
                await self._on_submission(frames)
            else:
                await asyncio.sleep(0)
                continue
            await self._up.readable()

    async def _on_submission(self, frames: list[zmq.Frame]) -> None:
        try:
            submission = wire.read_submission([frame.bytes for frame in frames[1:]])
        except ValueError as error:
            self._warner.warn(f"dropped a bad submission ({error}), from", self._who(frames[0]))
            return
        sender = frames[0].bytes

        def reply(error: str | None, detail: bytes = b"") -> None:
            # A peer that does not read its answers loses them: ROUTER drops what does not fit.
            text = (error or "").encode(errors="replace")[: wire.MAX_TEXT]
            if not self._up.socket.closed:
                self._up.try_send([sender, submission.id, text, detail])

        refusal = self._why_not(submission, self._user(frames[0]))
        if submission.op is wire.Submit.HELLO:
            reply(None, wire.number(self._settings.max_payload) + wire.number(self._settings.burst))
        elif refusal is not None:
            reply(refusal)
        else:
            await self._accept(submission, reply)

    def _why_not(self, submission: wire.Submission, user: str | None) -> str | None:
        if not self._is_listed(user):
            return "this key is no longer listed"
        if len(submission.payload) > self._settings.max_payload:
            return f"payload is longer than {self._settings.max_payload} bytes"
        return rules.why_not_submit(self._settings.prefix, submission.topic, user)

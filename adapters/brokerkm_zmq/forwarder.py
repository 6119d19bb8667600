"""A forwarder: a hub for members further down that is itself connected to a hub; for fan-out trees.

It mirrors what its filters match: every message goes on to its own subscribers, last values are kept here,
so that late joiners are served at once and also while the upstream hub is away. Submissions are handed on
and their answers handed back, so that "accepted" still means: by the hub at the root. It needs no key of any
group; what it sees is what any broker sees. A forwarder may stand behind another.

If the hub upstream checks keys, list the forwarder's there under the id ``*``: it then gets what is for
single members too, and its word counts for who sent a request. So give such a forwarder a list of its
members' keys as well.

After a break upstream it reads the last values again, sends on those that changed, clears those that are
gone, and lets its own subscribers know that they may have missed something.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from brokerkm import topics
from brokerkm.errors import TransportError, UsageError
from brokerkm.transport import Connected, Disconnected, Role
from brokerkm_zmq import rules, settings, wire
from brokerkm_zmq.hub import Hub
from brokerkm_zmq.member import Member
from brokerkm_zmq.submitter import WINDOW, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from brokerkm.transport import Options
    from brokerkm_zmq.hub import Reply
    from brokerkm_zmq.subscriber import Received

_log = logging.getLogger(__name__)


class Forwarder:
    """A hub at `listen` that mirrors the one at `upstream`.

    Args:
        upstream: URL of a hub or forwarder, with `upstream_options` of the member's role.
        listen: URL to bind, with `listen_options` of the server's role.
        filters: what is mirrored; others cannot be received downstream.
    """

    def __init__(
        self,
        upstream: str,
        upstream_options: Options,
        listen: str,
        listen_options: Options,
        filters: Collection[str] = ("#",),
    ) -> None:
        if upstream_options.role is not Role.MEMBER or listen_options.role is not Role.SERVER:
            message = "a forwarder is a member upstream and a server downstream"
            raise UsageError(message)
        for pattern in filters:
            wire.check_size(topics.check_filter(pattern))
        self._filters = list(filters)
        self._member = Member(settings.read(upstream, upstream_options), self._mirror, self._note)
        self._hub = Hub(settings.read(listen, listen_options), self._relay_soon)
        self._window = asyncio.Semaphore(WINDOW)
        self._seen: set[str] = set()
        self._up = False
        self._broken = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._warner = rules.Warner(_log)

    async def open(self) -> None:
        """Bind and connect; returns when the last values of the hub upstream are here.

        Raises:
            TransportError: the address is taken, or the hub upstream is not there or refuses.
        """
        await self._hub.open()
        try:
            await self._member.open()
        except BaseException:
            await self._hub.close()
            raise
        try:
            await self._member.subscribe(self._filters)
            await self._member.subscriber.settled()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Send what was accepted for at most a second and close."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._member.close()
        await self._hub.close()

    def set_members(self, members: Mapping[str, str]) -> None:
        """Replace the list of keys of those who connect here; see `Hub.set_members`."""
        self._hub.set_members(members)

    def _start(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Down

    async def _mirror(self, received: Received) -> None:
        head = received.head
        self._seen.add(head.topic)
        if received.replayed:
            value = self._hub.values.get(head.topic)
            if value is not None and value.payload == received.payload and value.audience == head.audience:
                return
        try:
            await self._hub.publish(head.topic, head.audience, received.payload, retain=head.retain)
        except TransportError as error:
            self._warner.warn("not forwarded", str(error))

    def _note(self, event: Connected | Disconnected) -> None:
        if isinstance(event, Disconnected):
            _log.warning("upstream: %s", event.reason)
            self._up = False
            self._seen.clear()
            self._broken = True
        else:
            self._up = True
            if self._broken:
                self._start(asyncio.get_running_loop().create_task(self._heal(), name="zmq forwarder heals"))

    async def _heal(self) -> None:
        """Clear the last values that the hub upstream no longer has, and report the break downstream."""
        await self._member.subscriber.settled()
        if not self._up:
            return  # broken again; the next time does it
        for topic in self._hub.values:
            value = self._hub.values.get(topic)
            if value is not None and topic not in self._seen:
                await self._hub.publish(topic, value.audience, b"", retain=True)
        self._hub.skip()

    # Up

    async def _relay_soon(self, submission: wire.Submission, reply: Reply) -> None:
        if not self._up:
            reply("the hub upstream of this forwarder is not connected")
            return
        await self._window.acquire()
        self._start(asyncio.get_running_loop().create_task(self._relay(submission, reply), name="zmq relay"))

    async def _relay(self, submission: wire.Submission, reply: Reply) -> None:
        error: str | None = None
        try:
            await self._member.submit(Message(submission.op, submission.topic, submission.payload, submission.audience))
        except TransportError as refused:
            error = str(refused)
        finally:
            self._window.release()
        reply(error)


async def forward(forwarder: Forwarder, stop: asyncio.Event, ready: Callable[[], None] | None = None) -> None:
    """Run a forwarder until `stop` is set; calls `ready` when it is open, raises as `Forwarder.open` does."""
    await forwarder.open()
    try:
        if ready is not None:
            ready()
        await stop.wait()
    finally:
        await forwarder.close()

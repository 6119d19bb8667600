"""What an application holds: a group that it is a member of."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from brokerkm.core.names import Topics
from brokerkm.core.notice import RefusalReason
from brokerkm.core.request import TokenKey
from brokerkm.core.state import State
from brokerkm.errors import (
    BrokerkmError,
    EvictedError,
    LoginRefusedError,
    NotJoinedError,
    SilentError,
    StaleError,
    StoreError,
    TransportError,
    UsageError,
)
from brokerkm.sdk.certificate import CertificateFile
from brokerkm.sdk.clock import Clock
from brokerkm.sdk.dial import dial
from brokerkm.sdk.events import Broadcast, Events, Saved, SaveFailed
from brokerkm.sdk.home import Home, read_descriptor
from brokerkm.sdk.keeper import Keeper
from brokerkm.sdk.recovery import Pace
from brokerkm.sdk.session import Session
from brokerkm.sdk.state import StateDesk
from brokerkm.sdk.subscriptions import Messages
from brokerkm.topics import check_filter, check_topic
from brokerkm.transport import Options, Outgoing

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from brokerkm.core.member import Member
    from brokerkm.core.request import Credential
    from brokerkm.descriptor import Descriptor
    from brokerkm.errors import Reason
    from brokerkm.sdk.dial import Line

_log = logging.getLogger(__name__)


def connect(
    url: str | None,
    descriptor: str | os.PathLike[str] | Descriptor,
    *,
    member: str,
    state_dir: str | os.PathLike[str] | None = None,
    timeout: float = 30.0,
    rejoin: bool = False,
    certificate: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    options: Options | None = None,
    queue_size: int = 1000,
    pace: Pace | None = None,
) -> Fleet:
    """Return the fleet to enter by ``async with``.

    Args:
        url: the broker's, or None for the one that the descriptor names; with ``login=identity`` among its
            parameters, the device logs in with its identity key.
        descriptor: the group's, as a file (``fleet.join``) or read already.
        member: this member's id, unique in the group.
        state_dir: where the keys are kept between two starts, a directory of this member's own; by default
            ``$XDG_STATE_HOME/brokerkm/GROUP/MEMBER``. If a state is there, the member goes on without asking the
            server; if not, it joins, with the descriptor's token or by an identity key that the server has listed
            (`brokerkm.identity`).
        timeout: seconds that entering may take, and that `Fleet.publish` waits while the member cannot send.
        rejoin: ask for a place again if the member is out of the group.
        certificate, key: PEM files with the device's X.509 certificate, those that lead on to its authority behind it,
            and with its private key; to join by them rather than by a token.
        options: how to connect: user name, password, TLS; see `brokerkm.transport.Options`.
        queue_size: messages that wait for one iterator before the network has to wait.
        pace: how patient recovery is.

    Raises:
        UsageError: the descriptor, the certificate or its key cannot be read, or an id or the URL cannot be.
        TransportError: the URL's adapter cannot be imported.
    """
    group = read_descriptor(descriptor)
    home = Home(group, member, state_dir)
    if (certificate is None) != (key is None):
        message = "a certificate and its key go together: give both or neither"
        raise UsageError(message)
    credential: Credential | None = group.token.key if group.token else None
    if certificate is not None and key is not None:
        credential = CertificateFile.read(certificate, key)
    return Fleet(
        group,
        home,
        dial(url or group.broker, options or Options()),
        credential=credential,
        timeout=timeout,
        rejoin=rejoin,
        queue_size=queue_size,
        pace=pace or Pace(),
    )


class Fleet:
    """One member's connection to its group; made by `connect`, entered once.

    Entering raises:
        NotJoinedError: the server has not admitted the member, or has not answered.
        EvictedError: the saved state says that the member is out, and `rejoin` was not asked for.
        StaleError: the member has missed a rekey and could not catch up in time.
        TransportError: the broker cannot be reached.
        StoreError: the state directory cannot be used, or another process has it.

    Leaving the block saves what was received, disconnects, and raises what ended the connection, if anything
    unforeseen did.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        home: Home,
        line: Line,
        *,
        credential: Credential | None,
        timeout: float,
        rejoin: bool,
        queue_size: int,
        pace: Pace,
    ) -> None:
        self._descriptor: Final = descriptor
        self._home: Final = home
        self._line: Final = line
        self._credential: Final = credential
        self._timeout: Final = timeout
        self._rejoin: Final = rejoin
        self._queue_size: Final = queue_size
        self._pace: Final = pace
        self._broadcast: Final = Broadcast()
        self._topics: Final = Topics(descriptor.group, descriptor.prefix)
        self._desk: Final = StateDesk()
        self._session: Session | None = None
        self._entered = self._closed = False

    def __repr__(self) -> str:
        session = self._session
        return f"Fleet({self.group!r}, {self.member!r}, {session.member.state if session else 'not entered'})"

    async def __aenter__(self) -> Self:
        if self._entered:
            message = "a fleet is entered once: connect again"
            raise UsageError(message)
        self._entered = True
        clock = Clock()
        try:
            member, is_new = await self._desk.call(lambda: self._home.load(clock))
            session = self._session = self._make_session(member, clock, is_new=is_new)
            await self._open(session)
        except BaseException:
            try:
                await self._close()
            except BrokerkmError as error:  # the first error is the one to tell
                _log.warning("%s", error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._close()
        except BrokerkmError as trouble:
            if error is None:
                raise
            _log.warning("%s", trouble)
        failure = self._entered_session().error
        if failure is not None and error is None:
            raise failure

    async def _open(self, session: Session) -> None:
        if session.member.state is State.EVICTED and not self._rejoin:
            raise self._evicted()
        try:
            await session.open()
        except LoginRefusedError as error:
            message = f"{error}{self._line.advice(session.member)}"
            raise LoginRefusedError(message) from error
        await self._become_current(session)

    def _make_session(self, member: Member, clock: Clock, *, is_new: bool) -> Session:
        keeper = Keeper(member, self._home.directory, self._desk, self._pace.save, self._troubled, is_new=is_new)
        return Session(
            keeper,
            self._line.transport(member),
            clock,
            credential=self._credential,
            pace=self._pace,
            queue_size=self._queue_size,
            broadcast=self._broadcast,
            rejoin=self._rejoin,
        )

    def _troubled(self, error: StoreError | None) -> None:
        self._broadcast.put(Saved() if error is None else SaveFailed(error))

    async def _close(self) -> None:
        self._closed = True
        try:
            if self._session is not None:
                await self._session.close()
        finally:
            self._broadcast.end()
            await self._desk.call(self._home.directory.close)
            self._desk.close()

    # What applications do.

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, timeout: float | None = None) -> None:  # noqa: ASYNC109 - for this call alone
        """Send `payload` to the members of the group; returns when the broker has accepted it.

        While the member cannot send, because it is catching up, offline, or cannot save its state, this waits.

        Args:
            topic: of the application, without wildcards; it is not secret, but protected against changes.
            payload: any bytes; the broker's limit, less about 100 bytes, is the largest size.
            retain: let the broker keep it for later subscribers; they can read it until the group's next rekey is
                `grace` seconds old, so publish it again when an event says `Rekeyed`.
            timeout: seconds to wait, 0 for not at all; by default `connect`'s.

        Raises:
            EvictedError: the member is out of the group; at once.
            StaleError: it has missed a rekey and has not caught up in time.
            SilentError: the server has not been heard for too long, and the group's policy is not to send then.
            StoreError: its state could not be saved in time.
            TransportError: the broker is not connected, or has not accepted the message.
            UsageError: the topic cannot be published on.
        """
        check_topic(topic)
        session = self._opened()
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout):
                sealed = await self._seal(session, topic, payload)
        except TimeoutError:
            raise self._why_not(session) from None
        await session.transport.publish(Outgoing(topic, sealed, retain))

    async def _seal(self, session: Session, topic: str, payload: bytes) -> bytes:
        while True:
            self._check(session)
            if session.is_current:
                try:
                    return await session.keeper.change(lambda: session.member.seal(topic, payload, session.clock()))
                except (StaleError, SilentError):
                    pass  # until a Rekey or a Beacon comes
            await session.moved.wait()

    def messages(self, pattern: str) -> Messages:
        """Return an iterator over the messages on the topics that `pattern` takes in.

        Several may run at once, each with a queue of its own. A message that nobody takes holds up the ones behind it,
        also the group's rekeys: read on, or break off. It ends when the fleet is left; when the member is evicted,
        it raises `EvictedError` after the last message.

        Args:
            pattern: a topic, or a filter with MQTT's wildcards ``+`` and ``#``.

        Raises:
            UsageError: the filter is malformed, or a topic of the protocol's own.
        """
        session = self._opened()
        if self._topics.owns(check_filter(pattern)):
            message = f"{pattern!r} is the protocol's own: applications' messages are elsewhere"
            raise UsageError(message)
        return Messages(session.subscriptions, pattern)

    def events(self) -> Events:
        """Return an iterator over what happens from now on, but for messages; can be had before entering."""
        return self._broadcast.listen()

    async def leave(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - for this call alone
        """Leave the group for good: the server takes the member out and rekeys.

        Raises:
            EvictedError: the member is out already.
            TransportError: the server has not answered in time; the member may be out or not.
        """
        session = self._opened()
        self._check(session)
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout):
                await self._leave(session)
        except TimeoutError:
            message = f"the key server has not answered the Leave of {self.member}: is it running?"
            raise TransportError(message) from None

    async def _leave(self, session: Session) -> None:
        member = session.member
        while not session.is_out:
            with contextlib.suppress(EvictedError):  # the answer to an earlier one has just come
                await session.send(await session.keeper.change(lambda: member.leave(session.clock())))
            try:
                async with asyncio.timeout(self._pace.repeat):
                    await session.moved.until(lambda: session.is_out or session.error is not None)
            except TimeoutError:
                continue
            if session.error is not None:
                raise session.error

    # What applications see.

    @property
    def group(self) -> str:
        """Group id."""
        return self._descriptor.group

    @property
    def member(self) -> str:
        """Member id."""
        return self._home.profile.member

    @property
    def state_dir(self) -> Path:
        """Where the state is kept."""
        return self._home.directory.path

    @property
    def state(self) -> State:
        """Where the member stands."""
        return self._entered_session().member.state

    @property
    def epoch(self) -> int:
        """The newest epoch whose keys the member has."""
        return self._entered_session().member.epoch

    @property
    def slot(self) -> int | None:
        """The member's leaf in the tree, if it has one."""
        return self._entered_session().member.slot

    @property
    def silent(self) -> bool:
        """Whether the server has not been heard for longer than the group's policy allows."""
        return self._entered_session().member.silent

    @property
    def connected(self) -> bool:
        """Whether the broker is connected."""
        return self._entered_session().connected

    @property
    def identity(self) -> bytes:
        """The device's Ed25519 public key, 32 bytes."""
        return self._entered_session().member.identity

    @property
    def refused(self) -> Mapping[Reason, int]:
        """How many messages were refused or given up since entering, by reason."""
        return MappingProxyType(self._entered_session().refused)

    # Why not.

    def _entered_session(self) -> Session:
        if self._session is None:
            message = "enter the fleet first: async with brokerkm.connect(...) as fleet"
            raise UsageError(message)
        return self._session

    def _opened(self) -> Session:
        session = self._entered_session()
        if self._closed:
            message = "the fleet has been left: connect again"
            raise UsageError(message)
        return session

    def _check(self, session: Session) -> None:
        """Raise what makes waiting useless."""
        if self._closed:
            self._opened()
        if session.error is not None:
            raise session.error
        if session.is_out:
            raise self._evicted()

    async def _become_current(self, session: Session) -> None:
        member = session.member

        def is_decided() -> bool:
            refused = member.state is State.JOINING and session.refusal is RefusalReason.NOT_ADMITTED
            known = session.is_ready or session.reads_on
            return known or refused or session.is_out or session.error is not None

        try:
            async with asyncio.timeout(self._timeout):
                await session.moved.until(is_decided)
        except TimeoutError:
            raise self._why_not(session) from None
        self._check(session)
        if not (session.is_ready or session.reads_on):
            raise self._not_admitted()
        session.rejoin = False

    def _evicted(self) -> EvictedError:
        message = (
            f"{self.member} is out of group {self.group}: it was evicted or has left. To come back, have the group's "
            "owner admit it again, and connect with rejoin=True"
        )
        return EvictedError(message)

    def _not_admitted(self) -> NotJoinedError:
        match self._credential:
            case None:
                means = "the descriptor has no token"
            case TokenKey():
                means = "its token is unknown, used up or expired"
            case _:
                means = "its certificate is expired, revoked, of an unknown authority or for another id"
        message = (
            f"the key server of group {self.group} does not admit {self.member}: {means} and its identity key is not "
            "listed, or it was evicted, or the id is another device's. Have the group's owner invite or readmit it"
        )
        return NotJoinedError(message)

    def _why_not(self, session: Session) -> BrokerkmError:
        """Return why the member still cannot send."""
        group, member = self.group, session.member
        if session.keeper.trouble is not None:
            return StoreError(f"{session.keeper.trouble}: {self.member} sends nothing under keys that are not saved")
        if not session.connected:
            return TransportError(f"the broker is not connected: {self.member} cannot reach group {group}")
        if member.state is State.JOINING:
            return NotJoinedError(
                f"the key server of group {group} has not answered {self.member}: see that it runs and is connected to "
                f"the same broker, that the broker lets this client publish on {member.request_topic} and read "
                f"{self._topics.member(self.member)}, and that the descriptor is of this server"
            )
        if member.silent:
            return SilentError(
                f"the key server of group {group} has not been heard for too long, and the group's policy is not to "
                "send then: see that it runs, and that nothing keeps its beacons from this client"
            )
        return StaleError(
            f"{self.member} has missed a rekey of group {group} and is still catching up: the rekey was not retained "
            "and the key server has not answered"
        )

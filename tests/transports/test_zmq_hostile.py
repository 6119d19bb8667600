"""ZeroMQ: peers that do not keep to the protocol harm nobody but themselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgpack
import pytest
import zmq
from brokers import hub

from brokerkm.errors import TransportError
from brokerkm.transport import Connected, Delivery, Disconnected, Options, Outgoing, Role
from brokerkm_zmq import ZmqTransport, settings, wire

if TYPE_CHECKING:
    import pathlib


@pytest.fixture
def url() -> Iterator[str]:
    """Address of a hub that does not run yet."""
    with hub.ipc_url() as address:
        yield address


Connect = Callable[..., zmq.Socket[bytes]]


@pytest.fixture
def raw() -> Iterator[Connect]:
    """Give what connects, or binds, a socket that may send anything."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made: list[zmq.Socket[bytes]] = []

    def connect(kind: int, url: str, *, bind: bool = False) -> zmq.Socket[bytes]:
        down, up = settings.endpoints(url, Role.MEMBER)
        socket = context.socket(kind)
        made.append(socket)
        (socket.bind if bind else socket.connect)(up if kind in (zmq.DEALER, zmq.ROUTER) else down)
        return socket

    yield connect
    for socket in made:
        socket.disable_monitor()
        socket.close(linger=0)
    context.term()


async def works(server: hub.Watched, url: str) -> None:
    """See that the hub serves a newcomer in every way."""
    await server.transport.subscribe(["bkm/1/g/r/+"])
    async with hub.opened(url) as member:
        await server.transport.publish(Outgoing("check", b"kept", retain=True))
        await member.transport.subscribe(["check"])
        await member.transport.publish(Outgoing("check", b"live"))
        await member.transport.request("bkm/1/g/r/x", b"asked")
        assert [item.payload for item in await member.deliveries(2)] == [b"kept", b"live"]
        assert Delivery("bkm/1/g/r/x", b"asked") == (await server.deliveries(1))[-1]


NUMBER = bytes(8)
GOOD = [1, 1, "s", ["a"], 0, 0, 0, 0]

SUBMISSIONS = [
    [],
    [b""],
    [b""] * 40,
    [NUMBER, b"p", b"t", b""],
    [NUMBER, b"p", b"t", b"", b"x", b"more"],
    [b"short", b"p", b"t", b"", b"x"],
    [NUMBER, b"?", b"t", b"", b"x"],
    [NUMBER, b"", b"t", b"", b"x"],
    [NUMBER, b"p", b"", b"", b"x"],
    [NUMBER, b"p", b"a/+", b"", b"x"],
    [NUMBER, b"p", b"a\x00b", b"", b"x"],
    [NUMBER, b"p", b"\xff\xfe", b"", b"x"],
    [NUMBER, b"p", b"t" * 1025, b"", b"x"],
    [NUMBER, b"p", b"t", b"no id/", b"x"],
    [NUMBER, b"p", b"t", b"i" * 65, b"x"],
    [NUMBER, b"p", b"t", b"\xff", b"x"],
]

COMMANDS = [
    b"",
    b"\xc1",
    b"T",
    b"\x93",
    b"\x91" * 3000,
    b"\xdd\xff\xff\xff\xff",
    msgpack.packb({"a": 1}),
    *[msgpack.packb(GOOD[:end]) for end in range(8)],
    msgpack.packb([*GOOD, 0]),
    msgpack.packb(GOOD) + b"\x00",
    *[
        msgpack.packb([*GOOD[:place], bad, *GOOD[place + 1 :]])
        for place, bad in [
            (0, 2),
            (0, "1"),
            (1, -1),
            (1, "1"),
            (1, None),
            (2, "x"),
            (2, 5),
            (2, ["s"]),
            (3, "a"),
            (3, None),
            (3, [1]),
            (3, [b"a"]),
            (3, [""]),
            (3, ["a/#/b"]),
            (3, ["a\x00"]),
            (3, ["a" * 1025]),
            (3, ["a"] * 129),
            (4, -1),
            (5, 1.5),
            (6, "9"),
            (7, []),
        ]
    ],
]


@pytest.mark.parametrize("body", COMMANDS)
def test_a_malformed_command_is_refused(body: bytes) -> None:
    """By the decoder, with its own error."""
    with pytest.raises(wire.MalformedError):
        wire.read_command(body)


@pytest.mark.parametrize("frames", SUBMISSIONS)
def test_a_malformed_submission_is_refused(frames: list[bytes]) -> None:
    """By the decoder, with its own error."""
    with pytest.raises(wire.MalformedError):
        wire.read_submission(frames)


def test_a_good_command_is_read() -> None:
    """So that the refusals above are for their own reasons."""
    assert wire.Command(1, wire.Op.SUBSCRIBE, ("a",)) == wire.read_command(msgpack.packb(GOOD))
    page = wire.Command(7, wire.Op.PAGE, ("a/#",), (3, 4), 5, 6)
    assert page == wire.read_command(wire.command(page))


async def test_malformed_frames_are_dropped_with_one_warning(
    url: str, raw: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """The hub goes on, and its log is not flooded."""
    async with hub.opened(url, Role.SERVER) as server:
        dealer, xsub = raw(zmq.DEALER, url), raw(zmq.XSUB, url)
        for frames in SUBMISSIONS[1:] * 20:
            await asyncio.to_thread(dealer.send_multipart, frames)
        for body in COMMANDS * 20:
            await asyncio.to_thread(xsub.send, b"\x01" + body)
        await works(server, url)
    assert "dropped a bad submission" in caplog.text
    assert "dropped a bad command" in caplog.text
    assert len(caplog.records) < 60  # of more than 1,000


async def test_a_subscriber_beside_the_protocol_gets_nothing(url: str, raw: Connect) -> None:
    """Plain SUB subscriptions, even to everything, are no commands."""
    async with hub.opened(url, Role.SERVER) as server:
        sub = raw(zmq.SUB, url)
        for prefix in (b"", b"T", b"A", b"D", b"B"):
            sub.subscribe(prefix)
        await works(server, url)
        assert not sub.poll(200)


async def test_a_message_to_xpub_does_not_give_a_subscription_to_another(url: str, raw: Connect) -> None:
    """Libzmq would attribute the victim's command to the intruder's pipe, which sends one right behind."""
    transport = ZmqTransport(url, Options(role=Role.SERVER))
    await transport.open()
    try:
        intruder, victim = raw(zmq.XSUB, url), raw(zmq.XSUB, url)
        for number, socket in enumerate((intruder, victim)):  # both are connected when these are answered
            socket.send(b"\x01" + wire.command(wire.Command(number, wire.Op.SUBSCRIBE, ())))
            await asyncio.to_thread(socket.recv_multipart)
            await asyncio.to_thread(socket.recv_multipart)
        # All three wait in XPUB's queue, in this order, before the hub reads the first: nothing is awaited here.
        xpub = transport._end.hub._down.socket  # type: ignore[union-attr]
        orders = [(intruder, b"\x07not a subscription")]
        orders += [
            (socket, b"\x01" + wire.command(wire.Command(9, wire.Op.SUBSCRIBE, (topic,))))
            for socket, topic in ((victim, "victims"), (intruder, "intruders"))
        ]
        for socket, data in orders:
            socket.send(data)
            _settle(xpub)
        await asyncio.sleep(0)
        async with hub.opened(url) as member:  # its command is answered after theirs
            await member.transport.subscribe(["end"])
            await transport.publish(Outgoing("victims", b"secret"))
            await transport.publish(Outgoing("end", b""))
            await member.deliveries(1)
        assert not intruder.poll(200)
    finally:
        await transport.close()


def _settle(xpub: zmq.Socket[bytes]) -> None:
    """Let libzmq take over what peers have sent, without reading it."""
    for _ in range(20):
        zmq.Poller().poll(5)
        xpub.getsockopt(zmq.EVENTS)


async def test_a_flooding_member_does_not_keep_others_out(url: str, raw: Connect) -> None:
    """One that sends without end and reads no answers gets its turn, and so does everybody else."""
    async with hub.opened(url + "?high_water=100", Role.SERVER) as server:
        dealer, xsub = raw(zmq.DEALER, url), raw(zmq.XSUB, url)
        stop = asyncio.Event()
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while not stop.is_set():
                for _ in range(50):
                    with contextlib.suppress(zmq.Again):
                        dealer.send_multipart([NUMBER, b"p", b"t", b"", bytes(1000)], zmq.DONTWAIT)
                        xsub.send(b"\x01nonsense", zmq.DONTWAIT)
                        sent += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(flood())
        try:
            await works(server, url)
        finally:
            stop.set()
            await task
        assert sent > 100


async def test_an_oversized_frame_ends_the_connection_that_sent_it(url: str, raw: Connect) -> None:
    """Libzmq refuses it before it is in memory; others notice nothing."""
    async with hub.opened(url, Role.SERVER, max_payload=5000) as server:
        dealer, xsub = raw(zmq.DEALER, url), raw(zmq.XSUB, url)
        monitors = [socket.get_monitor_socket(zmq.EVENT_DISCONNECTED) for socket in (dealer, xsub)]
        dealer.send_multipart([NUMBER, b"p", b"t", b"", bytes(5001)])
        xsub.send(b"\x01" + bytes(wire.MAX_COMMAND))
        ended = [await asyncio.to_thread(monitor.poll, 5000) for monitor in monitors]
        for monitor in monitors:
            monitor.close()
        assert all(ended)
        await works(server, url)


FROM_HUB = [
    [b""],
    [b"?"],
    [b"T"],
    [b"T", b""],
    [b"Ta\x00l"],
    [b"Ta\x00l", b"x", b"more"],
    [b"Ta\x00z", b"x"],
    [b"T\x00l", b"x"],
    [b"T\xff\x00l", b"x"],
    [b"Ta/+\x00l", b"x"],
    [b"Tt\x00t\x00l", b"x"],
    [b"T" + b"t" * 5000 + b"\x00l", b"x"],
    [b"At\x00l", b"x"],
    [b"A\x00t\x00l", b"x"],
    [b"Ano id\x00t\x00l", b"x"],
    [b"B"],
    [b"B123"],
    [b"D"],
    [b"Dz" + NUMBER],
    [b"Da"],
    [b"Da" + NUMBER + b"x"],
    [b"Tt\x00l", bytes(2000)],
    [b"x"] * 50,
]


async def test_a_hub_that_sends_nonsense_does_not_break_its_member(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is dropped, and what is right still arrives."""
    async with hub.opened(url, Role.SERVER) as server, hub.opened(url, max_payload=1000) as member:
        await member.transport.subscribe(["#"])
        xpub = server.transport._end.hub._down.socket  # type: ignore[union-attr]
        for start in (b"", b"?", b"x", b"D"):
            xpub.setsockopt(zmq.SUBSCRIBE, start)  # for the pipe of the member's last command
        for frames in FROM_HUB:
            xpub.send_multipart(frames)
        await server.transport.publish(Outgoing("end", b"right"))
        assert [Delivery("end", b"right")] == await member.deliveries(1)
        assert [Connected()] == [item for item in member.seen if not isinstance(item, Delivery)]
    assert "malformed message of the hub" in caplog.text


async def test_a_beat_out_of_turn_makes_the_member_read_again(url: str) -> None:
    """As if it had been too slow."""
    async with hub.opened(url, Role.SERVER) as server, hub.opened(url) as member:
        await server.transport.publish(Outgoing("t", b"kept", retain=True))
        await member.transport.subscribe(["t"])
        await member.deliveries(1)
        server.transport._end.hub.skip()  # type: ignore[union-attr]
        await member.reconnected()
        assert [Delivery("t", b"kept", retained=True)] * 2 == await member.deliveries(2)
        (gap,) = [item for item in member.seen if isinstance(item, Disconnected)]
        assert "gap" in gap.reason


async def test_something_else_at_the_address_is_no_hub(url: str, raw: Connect) -> None:
    """A ROUTER that answers nonsense is told apart from a hub."""
    router = raw(zmq.ROUTER, url, bind=True)
    raw(zmq.XPUB, url, bind=True)

    def answer() -> None:
        frames = router.recv_multipart()
        router.send_multipart([frames[0], b"nonsense"])
        router.send_multipart([*frames[:2], b"", b"nonsense"])

    transport = ZmqTransport(url, Options(timeout=5.0))
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(answer))
        with pytest.raises(TransportError, match="not a hub"):
            await transport.open()
    await transport.close()


async def test_a_hub_that_takes_no_commands_is_given_up(url: str, raw: Connect) -> None:
    """It answers submissions, but no subscription: opening fails in time."""
    router = raw(zmq.ROUTER, url, bind=True)
    raw(zmq.XPUB, url, bind=True)

    def answer() -> None:
        frames = router.recv_multipart()
        router.send_multipart([*frames[:2], b"", wire.number(1000) + wire.number(10)])

    transport = ZmqTransport(url, Options(timeout=1.5))
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(answer))
        with pytest.raises(TransportError, match="subscribe: the hub did not answer within"):
            await transport.open()
    await transport.close()


async def test_nonsense_to_the_gatekeeper_lets_nobody_in(tmp_path: pathlib.Path, url: str) -> None:
    """It answers what can be answered, with a refusal."""
    (tmp_path / "members").write_text("")
    async with hub.opened(f"{url}?curve=new&members={tmp_path}/members", Role.SERVER) as server:
        context = server.transport._end.hub._context  # type: ignore[union-attr]
        with context.socket(zmq.DEALER) as asker:
            asker.connect("inproc://zeromq.zap.01")
            asker.send_multipart([b"", b"1.0"])
            for request in ([b"1.0", b"7"], [b"1.0", b"7", b"", b"", b"", b"CURVE", b"short"]):
                asker.send_multipart([b"", *request])
                assert await asyncio.to_thread(asker.poll, 5000)
                assert asker.recv_multipart()[1:4] == [b"1.0", b"7", b"400"]

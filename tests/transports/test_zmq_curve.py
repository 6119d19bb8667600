"""ZeroMQ with CURVE: who may connect, subscribe and submit what."""

from __future__ import annotations

import logging
import urllib.parse
from typing import TYPE_CHECKING

import pytest
from brokers import hub

from brokerkm.errors import TransportError, UsageError
from brokerkm.transport import Delivery, Options, Outgoing, Role
from brokerkm_zmq import ZmqTransport, keys

if TYPE_CHECKING:
    import contextlib
    import pathlib
    from collections.abc import Callable, Iterator


class Place:
    """Keys in files, and a hub's address."""

    def __init__(self, directory: pathlib.Path, url: str) -> None:
        self.directory = directory
        self.url = url
        self.server = keys.make_key_file(self.path("server"))
        self.pairs = {name: keys.make_key_file(self.path(name)) for name in ("alice", "bob", "eve", "forwarder")}
        self.list({"alice": "alice", "bob": "bob", "forwarder": "*"})

    def path(self, name: str) -> str:
        """Return a file's path."""
        return str(self.directory / name)

    def list(self, who: dict[str, str]) -> None:
        """Write the list of members."""
        lines = [f"{self.pairs[name].public} {identity}\n" for name, identity in who.items()]
        (self.directory / "members").write_text("# who may connect\n\n" + "".join(lines))

    def hub(self, authorize: Callable[[str | None, str], bool] | None = None) -> contextlib.AbstractAsyncContextManager:
        """Run a hub with the list."""
        url = f"{self.url}?members={urllib.parse.quote(self.path('members'))}"
        return hub.opened(url, Role.SERVER, key_file=self.path("server"), authorize=authorize)

    def member(self, name: str, **options: object) -> contextlib.AbstractAsyncContextManager:
        """Connect with a name's key."""
        url = f"{self.url}?server_key={urllib.parse.quote(self.server.public)}"
        return hub.opened(url, key_file=self.path(name), **options)


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Iterator[Place]:
    """Keys and an address of its own."""
    with hub.ipc_url() as url:
        yield Place(tmp_path, url)


async def refused(place: Place, name: str) -> str:
    """Try to connect with a key that must not get in; return the error."""
    with pytest.raises(TransportError) as caught:
        async with place.member(name, timeout=1.0):
            pass
    return str(caught.value)


async def test_an_unknown_key_is_refused(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """It is told why, the operator too, and no secret is shown."""
    async with place.hub():
        assert "does not accept this key" in await refused(place, "eve")
    assert "refused an unknown key" in caplog.text
    assert place.pairs["eve"].public in caplog.text
    assert place.pairs["eve"].secret not in caplog.text


async def test_the_wrong_hub_is_refused(place: Place) -> None:
    """A hub without the pinned key's secret cannot pose as ours."""
    with pytest.raises(TransportError, match="hub's public key"):
        async with hub.opened(f"{place.url}?curve=new", Role.SERVER), place.member("alice", timeout=1.0):
            pass


async def test_plain_and_curve_do_not_mix(place: Place) -> None:
    """Neither a member without key nor a hub without one is accepted by the other."""
    async with place.hub():
        with pytest.raises(TransportError):
            async with hub.opened(place.url, timeout=1.0):
                pass
    async with hub.opened(place.url, Role.SERVER):
        with pytest.raises(TransportError):
            async with place.member("alice", timeout=1.0):
                pass


async def test_curve_without_a_list_takes_any_key(place: Place) -> None:
    """The server's key is made for the process, and any member that pins it is served."""
    async with hub.opened(f"{place.url}?curve=new", Role.SERVER) as server:
        assert server.transport.public_key is not None
        (place.directory / "pin").write_text(server.transport.public_key + "\n")
        async with hub.opened(place.url, ca_file=place.path("pin")) as member:
            await member.transport.subscribe(["t", "m"])
            await server.transport.publish(Outgoing("t", b"x"))
            await server.transport.publish(Outgoing("m", b"not controlled", audience="alice"))
            assert [Delivery("t", b"x"), Delivery("m", b"not controlled")] == await member.deliveries(2)
            with pytest.raises(UsageError, match="without a list"):
                server.transport.set_members({})


@pytest.mark.parametrize("topic", ["bkm/1/g/m/alice", "private/alice"])
async def test_what_is_for_one_member_reaches_it_alone(place: Place, topic: str) -> None:
    """Neither a wildcard nor the exact name gives it to another, live or as last value."""
    async with place.hub() as server, place.member("alice") as alice, place.member("bob") as bob:
        await bob.transport.subscribe(["#", "private/+", "bkm/1/+/m/+", "bkm/1/g/m/#"])
        await alice.transport.subscribe([topic])
        await server.transport.publish(Outgoing(topic, b"for alice", retain=True, audience="alice"))
        assert [Delivery(topic, b"for alice")] == await alice.deliveries(1)
        with pytest.raises(TransportError, match="not allowed"):
            await bob.transport.subscribe([topic])
        await bob.transport.subscribe(["#"])
        await server.transport.publish(Outgoing("end", b""))
        assert [Delivery("end", b"")] == await bob.deliveries(1)
    # a new hub has no last value, and still does not let bob at alice's part of the key management
    if topic.startswith("bkm/1"):
        async with place.hub(), place.member("bob") as bob:
            with pytest.raises(TransportError, match="not allowed: bkm/1/g/m/alice"):
                await bob.transport.subscribe([topic])


async def test_the_last_value_for_one_member_is_for_it_alone(place: Place) -> None:
    """A late wildcard gets only what it may."""
    async with place.hub() as server, place.member("alice") as alice, place.member("bob") as bob:
        for name in ("alice", "bob"):
            await server.transport.publish(Outgoing(f"m/{name}", name.encode(), retain=True, audience=name))
        for name, member in (("alice", alice), ("bob", bob)):
            await member.transport.subscribe(["m/+"])
            assert [Delivery(f"m/{name}", name.encode(), retained=True)] == await member.deliveries(1)
        await server.transport.publish(Outgoing("m/all", b"end"))
        for member in (alice, bob):
            assert Delivery("m/all", b"end") == (await member.deliveries(2))[1]


async def test_a_request_is_sent_under_ones_own_name(place: Place) -> None:
    """The key says who asks; another's request topic is refused."""
    async with place.hub() as server, place.member("alice") as alice, place.member("forwarder") as forwarder:
        await server.transport.subscribe(["bkm/1/g/r/+"])
        with pytest.raises(TransportError, match="requests of bob are bob's alone"):
            await alice.transport.request("bkm/1/g/r/bob", b"forged")
        await alice.transport.request("bkm/1/g/r/alice", b"true")
        await forwarder.transport.request("bkm/1/g/r/bob", b"handed on")
        assert [item.payload for item in await server.deliveries(2)] == [b"true", b"handed on"]


async def test_the_hook_decides_who_subscribes(place: Place) -> None:
    """It is asked with the id and the filter, after the adapter's own rules."""
    asked = []

    def authorize(user: str | None, pattern: str) -> bool:
        asked.append((user, pattern))
        return not pattern.startswith("secret")

    async with place.hub(authorize) as server, place.member("alice") as alice:
        await alice.transport.subscribe(["open"])
        with pytest.raises(TransportError, match="not allowed: secret/#"):
            await alice.transport.subscribe(["secret/#"])
        await server.transport.publish(Outgoing("secret/1", b"no"))
        await server.transport.publish(Outgoing("open", b"yes"))
        assert [Delivery("open", b"yes")] == await alice.deliveries(1)
    assert ("alice", "secret/#") in asked


async def test_the_list_is_replaced_while_the_hub_runs(place: Place) -> None:
    """A new key gets in; a removed one can neither come back, nor subscribe, nor submit."""
    async with place.hub() as server, place.member("alice", timeout=1.0) as alice:
        assert "does not accept" in await refused(place, "eve")
        place.list({"eve": "eve"})
        server.transport.set_members(keys.read_members(place.path("members")))
        async with place.member("eve") as eve:
            await eve.transport.publish(Outgoing("t", b"x"))
        with pytest.raises(TransportError, match="not allowed"):
            await alice.transport.subscribe(["t"])
        with pytest.raises(TransportError, match="no longer listed"):
            await alice.transport.publish(Outgoing("t", b"x"))
        assert "does not accept" in await refused(place, "alice")


async def test_secret_keys_are_not_shown(place: Place) -> None:
    """Neither a pair's representation nor an error has one."""
    assert place.server.secret not in repr(place.server)
    (place.directory / "open").write_text(place.server.secret)
    (place.directory / "open").chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600") as caught:
        keys.read_key_pair(place.path("open"))
    assert place.server.secret not in str(caught.value)
    (place.directory / "broken").write_text(place.server.secret[:-1])
    (place.directory / "broken").chmod(0o600)
    with pytest.raises(UsageError, match="not a CURVE secret key") as caught:
        keys.read_key_pair(place.path("broken"))
    assert place.server.secret[:-1] not in str(caught.value)


async def test_a_servers_key_file_is_made_and_kept(place: Place) -> None:
    """The first start makes it, readable by its owner alone; the next has the same key."""
    options = Options(role=Role.SERVER, key_file=place.path("made"))
    first = ZmqTransport(place.url, options).public_key
    assert (place.directory / "made").stat().st_mode & 0o777 == 0o600
    assert first == ZmqTransport(place.url, options).public_key
    with pytest.raises(UsageError, match="cannot be made"):
        keys.make_key_file(place.path("made"))
    with pytest.raises(UsageError, match="No such file"):
        ZmqTransport(f"{place.url}?server_key={urllib.parse.quote(first or '')}", Options(key_file=place.path("none")))


async def test_binding_in_the_clear_to_the_world_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    """Loopback, sockets in the file system and CURVE are quiet."""
    caplog.set_level(logging.WARNING)
    for quiet in ("zmq+tcp://127.0.0.1:5000", "zmq+tcp://localhost:5000", "zmq+tcp://[::1]:5000", "zmq+ipc:///tmp/x"):
        ZmqTransport(quiet, Options(role=Role.SERVER))
    ZmqTransport("zmq+tcp://0.0.0.0:5000?curve=new", Options(role=Role.SERVER))
    assert not caplog.text
    ZmqTransport("zmq+tcp://0.0.0.0:5000", Options(role=Role.SERVER))
    assert "encrypts nothing" in caplog.text

"""ZeroMQ: a forwarder between a hub and members further down."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import urllib.parse
from typing import TYPE_CHECKING

import pytest
from brokers import hub

from brokerkm.errors import TransportError, UsageError
from brokerkm.transport import Delivery, Options, Outgoing, Role
from brokerkm_zmq import keys
from brokerkm_zmq.forwarder import Forwarder

if TYPE_CHECKING:
    import pathlib
    from collections.abc import AsyncIterator, Iterator

SERVER = Options(role=Role.SERVER)


@pytest.fixture
def urls() -> Iterator[tuple[str, str]]:
    """Addresses of a hub and of a forwarder, neither of which runs yet."""
    with hub.ipc_url() as root, hub.ipc_url() as branch:
        yield root, branch


@contextlib.asynccontextmanager
async def forwarding(
    upstream: str, listen: str, *filters: str, up: Options | None = None, down: Options = SERVER
) -> AsyncIterator[Forwarder]:
    """Run a forwarder."""
    forwarder = Forwarder(upstream, up or Options(), listen, down, filters or ("#",))
    await forwarder.open()
    try:
        yield forwarder
    finally:
        await forwarder.close()


async def test_late_joiners_are_served_while_the_hub_is_away(urls: tuple[str, str]) -> None:
    """The forwarder has the last values of before it came and of after."""
    root, branch = urls
    async with hub.opened(root, Role.SERVER) as server:
        await server.transport.publish(Outgoing("a", b"before", retain=True))
        async with forwarding(root, branch), hub.opened(branch) as early:
            await early.transport.subscribe(["b"])
            await server.transport.publish(Outgoing("b", b"after", retain=True))
            await early.deliveries(1)
            await server.close()
            async with hub.opened(branch) as late:
                await late.transport.subscribe(["#"])
                found = {(item.topic, item.payload, item.retained) for item in await late.deliveries(2)}
                assert found == {("a", b"before", True), ("b", b"after", True)}
                with pytest.raises(TransportError, match=r"upstream .* is not connected"):
                    await late.transport.publish(Outgoing("c", b"x"))


async def test_after_a_new_hub_downstream_has_what_it_has(urls: tuple[str, str]) -> None:
    """Changed values arrive, those that are gone are cleared, and the break is shown."""
    root, branch = urls
    async with hub.opened(root, Role.SERVER) as server, hub.opened(root) as direct:
        for topic in ("same", "changed", "gone"):
            await server.transport.publish(Outgoing(topic, b"old", retain=True))
        async with forwarding(root, branch), hub.opened(branch) as member:
            await member.transport.subscribe(["#"])
            await member.deliveries(3)
            await server.close()
            async with hub.opened(root, Role.SERVER) as again:
                await again.transport.publish(Outgoing("same", b"old", retain=True))
                await again.transport.publish(Outgoing("changed", b"new", retain=True))
                await direct.reconnected()
                await member.reconnected()
                async with hub.opened(branch) as late:
                    await late.transport.subscribe(["#"])
                    found = {(item.topic, item.payload) for item in await late.deliveries(2)}
                    assert found == {("same", b"old"), ("changed", b"new")}
                assert Delivery("gone", b"") in member.delivered


async def test_only_what_its_filters_match_is_forwarded(urls: tuple[str, str]) -> None:
    """The rest cannot be received downstream."""
    root, branch = urls
    async with (
        hub.opened(root, Role.SERVER) as server,
        forwarding(root, branch, "a/+", "b"),
        hub.opened(branch) as member,
    ):
        await member.transport.subscribe(["#"])
        for topic in ("a/1", "c", "a", "b"):
            await server.transport.publish(Outgoing(topic, topic.encode()))
        assert [item.topic for item in await member.deliveries(2)] == ["a/1", "b"]


async def test_answers_come_from_the_root(urls: tuple[str, str]) -> None:
    """What the root accepts or refuses is what the member is told, two forwarders away."""
    root, branch = urls
    with hub.ipc_url() as twig:
        async with (
            hub.opened(root + "?cache_topics=1", Role.SERVER) as server,
            forwarding(root, branch),
            forwarding(branch, twig),
            hub.opened(twig) as member,
        ):
            await server.transport.subscribe(["bkm/1/g/r/+"])
            await member.transport.subscribe(["news"])
            await member.transport.request("bkm/1/g/r/m", b"join")
            await member.transport.publish(Outgoing("news", b"kept", retain=True))
            with pytest.raises(TransportError, match="cache is full"):
                await member.transport.publish(Outgoing("other", b"kept", retain=True))
            with pytest.raises(TransportError, match="only the key server"):
                await member.transport.publish(Outgoing("bkm/1/g/b", b"forged"))
            await member.transport.publish_batch([Outgoing("news", b"%d" % index) for index in range(1000)])
            assert Delivery("bkm/1/g/r/m", b"join") == (await server.deliveries(1))[0]
            found = await member.deliveries(1001)
            assert [b"kept", *(b"%d" % index for index in range(1000))] == [item.payload for item in found]


async def test_what_is_for_one_member_stays_so(urls: tuple[str, str], tmp_path: pathlib.Path) -> None:
    """With keys at both levels the forwarder keeps members apart as the hub does."""
    root, branch = urls
    pairs = {name: keys.make_key_file(str(tmp_path / name)) for name in ("hub", "forwarder", "alice", "bob")}
    (tmp_path / "up").write_text(f"{pairs['forwarder'].public} *\n")
    (tmp_path / "down").write_text(f"{pairs['alice'].public} alice\n{pairs['bob'].public} bob\n")
    pins = {name: {"server_key": pairs[name].public} for name in ("hub", "forwarder")}
    down = Options(
        role=Role.SERVER, key_file=str(tmp_path / "forwarder"), parameters={"members": str(tmp_path / "down")}
    )
    up = Options(key_file=str(tmp_path / "forwarder"), parameters=pins["hub"])
    async with (
        hub.opened(
            root, Role.SERVER, key_file=str(tmp_path / "hub"), parameters={"members": str(tmp_path / "up")}
        ) as server,
        forwarding(root, branch, up=up, down=down) as forwarder,
        hub.opened(branch, key_file=str(tmp_path / "alice"), parameters=pins["forwarder"]) as alice,
        hub.opened(branch, key_file=str(tmp_path / "bob"), parameters=pins["forwarder"]) as bob,
    ):
        await server.transport.subscribe(["bkm/1/g/r/+"])
        await alice.transport.subscribe(["#"])
        await bob.transport.subscribe(["#"])
        await server.transport.publish(Outgoing("private", b"alice's", retain=True, audience="alice"))
        await server.transport.publish(Outgoing("end", b""))
        assert [item.topic for item in await alice.deliveries(2)] == ["private", "end"]
        assert [item.topic for item in await bob.deliveries(1)] == ["end"]
        await alice.transport.request("bkm/1/g/r/alice", b"true")
        with pytest.raises(TransportError, match="bob's alone"):
            await alice.transport.request("bkm/1/g/r/bob", b"forged")
        assert Delivery("bkm/1/g/r/alice", b"true") == (await server.deliveries(1))[0]
        forwarder.set_members({pairs["bob"].public: "bob"})
        with pytest.raises(TransportError, match="no longer listed"):
            await alice.transport.request("bkm/1/g/r/alice", b"late")


async def test_what_a_forwarder_cannot_keep_is_said(urls: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """Its cache is smaller than the hub's: it goes on with what fits, and its log says so."""
    root, branch = urls
    async with (
        hub.opened(root, Role.SERVER) as server,
        forwarding(root, branch + "?cache_topics=1"),
        hub.opened(branch) as member,
    ):
        await member.transport.subscribe(["#"])
        for topic in ("a", "b"):
            await server.transport.publish(Outgoing(topic, b"kept", retain=True))
        await server.transport.publish(Outgoing("end", b""))
        assert [item.topic for item in await member.deliveries(2)] == ["a", "end"]
    assert "not forwarded" in caplog.text


async def test_a_forwarder_without_a_hub_does_not_start(urls: tuple[str, str]) -> None:
    """It fails like a member, and leaves its own address free."""
    root, branch = urls
    before = hub.possessions()
    with pytest.raises(TransportError, match="did not answer"):
        await Forwarder(root, Options(timeout=0.3), branch, SERVER).open()
    assert before == hub.possessions()
    async with hub.opened(branch, Role.SERVER):
        pass
    with pytest.raises(UsageError, match="member upstream"):
        Forwarder(root, SERVER, branch, SERVER)


COMMAND = [sys.executable, "-c", "from brokerkm_zmq.command import zmq_forwarder; zmq_forwarder()"]


async def line(stream: asyncio.StreamReader | None) -> str:
    """Return the next line of a process."""
    assert stream is not None
    async with asyncio.timeout(hub.PATIENCE):
        return (await stream.readline()).decode()


async def test_the_command_forwards_until_it_is_told_to_stop(urls: tuple[str, str], tmp_path: pathlib.Path) -> None:
    """A real process; SIGHUP reads the list of members again, SIGTERM ends it in order."""
    root, branch = urls
    member_key = keys.make_key_file(str(tmp_path / "member"))
    own_key = keys.make_key_file(str(tmp_path / "listen"))
    members = tmp_path / "members"
    members.write_text("")
    async with hub.opened(root, Role.SERVER) as server:
        await server.transport.publish(Outgoing("a/1", b"kept", retain=True))
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *("--listen-key", str(tmp_path / "listen"), "--members", str(members), "--filter", "a/#", root, branch),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert "forwarding" in await line(process.stderr)
            url = f"{branch}?server_key={urllib.parse.quote(own_key.public)}"
            with pytest.raises(TransportError, match="does not accept this key"):
                async with hub.opened(url, key_file=str(tmp_path / "member"), timeout=2.0):
                    pass
            members.write_text("misprint\n")
            process.send_signal(signal.SIGHUP)
            while "not reloaded" not in await line(process.stderr):
                pass
            members.write_text(f"{member_key.public} m1\n")
            process.send_signal(signal.SIGHUP)
            while f"reloaded {members}" not in await line(process.stderr):
                pass
            async with hub.opened(url, key_file=str(tmp_path / "member")) as member:
                await member.transport.subscribe(["#"])
                assert [Delivery("a/1", b"kept", retained=True)] == await member.deliveries(1)
        finally:
            process.terminate()
            async with asyncio.timeout(hub.PATIENCE):
                _, rest = await process.communicate()
        assert process.returncode == 0
        assert b"Traceback" not in rest


async def test_the_command_says_what_is_wrong(urls: tuple[str, str]) -> None:
    """In one line, with exit status 1."""
    root, _ = urls
    process = await asyncio.create_subprocess_exec(*COMMAND, root, "tcp://x:1", stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == 1
    assert b"Error: tcp://x:1: want zmq+tcp://HOST:PORT" in said

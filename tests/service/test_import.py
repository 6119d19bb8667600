"""Members that come by the file: listed, or seated at once; what is wrong costs its own row only."""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING

import pytest

from brokerkm.cli.importing import import_file
from brokerkm.core.crypto import Suite
from brokerkm.core.member import Member
from brokerkm.core.memory import Profile
from brokerkm.core.names import Topics
from brokerkm.core.request import Join, first_nonce
from brokerkm.core.state import State
from brokerkm.errors import UsageError
from brokerkm.offline import OfflineRequest
from brokerkm.service import KeyServer
from brokerkm.service.api import IMPORT_ROWS, ImportRow
from brokerkm.store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW = 1_800_000_000.0
KEY = b"i" * 32


@pytest.fixture(params=Suite)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[KeyServer]:
    """Give a server with the group plant, of each suite."""
    async with KeyServer(MemoryStore(), interval=0, clock=lambda: NOW) as made:
        await made.admin.create_group("plant", suite=request.param)
        yield made


def device(server: KeyServer, name: str) -> tuple[Member, bytes]:
    """Return a device that has never been online, and the Join that it has made."""
    group = server.groups["plant"].group
    member = Member.create(Profile("plant", name, group.server_key, group.suite), os.urandom)
    return member, member.join(NOW)


def row(server: KeyServer, name: str) -> ImportRow:
    """Return a row that has a new device seated."""
    suite = server.groups["plant"].record.suite
    return ImportRow(name, KEY, suite.public_key(os.urandom(suite.seed_size)))


async def results(server: KeyServer, *rows: ImportRow) -> list[tuple[str, str]]:
    """Import rows; return what became of each, and which field was wrong."""
    return [(one.result, one.field) for one in await server.admin.import_members("plant", rows)]


async def test_devices_start_without_a_round_trip(server: KeyServer) -> None:
    """Whether its key or its request was in the file, the Welcome that waits is all that a device needs."""
    (one, first), (two, second) = device(server, "one"), device(server, "two")
    join = Join.decode(first, server.groups["plant"].record.suite)
    rows = (ImportRow("one", one.identity, join.kem_public), ImportRow("two", b"", join=second))
    assert [("seated", ""), ("seated", "")] == await results(server, *rows)
    waiting = {message.topic: message.payload for message in server.store.unpublished("plant", 100)}
    for name, member in (("one", one), ("two", two)):
        topic = Topics("plant").member(name)
        member.receive(topic, waiting[topic], NOW)
        assert (State.ACTIVE, 1) == (member.state, member.epoch)
    known = server.store.member("plant", "one")
    assert known is not None
    assert (first_nonce(join.kem_public), 0) == (known.nonce, known.seen)


async def test_an_import_may_be_repeated(server: KeyServer) -> None:
    """The same rows change nothing, not even the epoch; another KEM key is refused."""
    rows = [row(server, "a"), row(server, "b"), ImportRow("c", KEY)]
    assert [("seated", ""), ("seated", ""), ("added", "")] == await results(server, *rows)
    epoch = server.groups["plant"].group.epoch
    assert [("unchanged", "")] * 3 == await results(server, *rows)
    assert [("refused", "kem_public")] == await results(server, row(server, "a"))
    assert epoch == server.groups["plant"].group.epoch
    assert [("seated", "")] == await results(server, row(server, "c"))


async def test_a_bad_row_costs_nobody_else_a_place(server: KeyServer) -> None:
    """Each is refused by what is wrong with it."""
    good = row(server, "good")
    unusable = good.kem_public[:-32] + bytes(32)
    _, foreign = device(server, "other")
    rows = (
        ImportRow("a b", KEY, good.kem_public),
        ImportRow("short", KEY[1:], good.kem_public),
        ImportRow("length", KEY, good.kem_public[1:]),
        ImportRow("unusable", KEY, unusable),
        ImportRow("thief", b"", join=foreign),
        good,
        good,
        ImportRow("good", bytes(32), good.kem_public),
    )
    assert [
        ("refused", "member"),
        ("refused", "identity"),
        ("refused", "kem_public"),
        ("refused", "kem_public"),
        ("refused", "join"),
        ("seated", ""),
        ("unchanged", ""),
        ("refused", "member"),
    ] == await results(server, *rows)
    assert ["good"] == [one.member for one in await server.admin.list_members("plant")]


async def test_a_key_that_fails_only_at_the_seal_costs_its_own_row(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is made again without it."""
    monkeypatch.setattr(Suite, "check_public", lambda _suite, _public: None)
    good = row(server, "good")
    bad = ImportRow("bad", KEY, good.kem_public[:-32] + bytes(32))
    assert [("refused", ""), ("seated", "")] == await results(server, bad, good)
    assert 1 == len(server.groups["plant"].group.directory)


async def test_who_was_evicted_stays_out(server: KeyServer) -> None:
    """A file from before an eviction brings nobody back."""
    rows = [row(server, "a"), ImportRow("b", KEY)]
    await results(server, *rows)
    await server.admin.evict_many("plant", ["a", "b"])
    assert [("refused", "member")] * 2 == await results(server, *rows)
    assert [("refused", "identity")] == await results(server, ImportRow("x", b""))


async def test_a_frozen_group_seats_nobody(server: KeyServer) -> None:
    """It may still list; and no call takes in more than its share."""
    await server.admin.freeze("plant")
    with pytest.raises(UsageError, match="thaw it first"):
        await results(server, row(server, "a"))
    assert [("added", "")] == await results(server, ImportRow("a", KEY))
    with pytest.raises(UsageError, match="is the most"):
        await results(server, *[ImportRow("a", KEY)] * (IMPORT_ROWS + 1))


async def test_a_file_says_which_lines_are_wrong(server: KeyServer, capsys: pytest.CaptureFixture[str]) -> None:
    """CSV with a third column, and lines of requests, each with its number, field and reason."""
    public = row(server, "a").kem_public.hex()
    text = f"member,identity,kem_public\na,{KEY.hex()},{public}\nb,{KEY.hex()},xyz\nc,{KEY.hex()},\nd,{KEY.hex()},00\n"
    count = await import_file(server.admin, "plant", io.BytesIO(text.encode()), as_json=True)
    assert {"seated": 1, "added": 1, "refused": 2} == count
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(2, ""), (3, "kem_public"), (4, ""), (5, "kem_public")] == [(one["line"], one["field"]) for one in told]
    _, join = device(server, "e")
    request = json.dumps(json.loads(OfflineRequest("plant", "e", join).to_json()))
    broken = json.dumps({"brokerkm_request": 1, "group": "plant", "member": "f", "join": "zz"})
    lines = f"{request}\n{broken}\n".encode()
    assert {"seated": 1, "refused": 1} == await import_file(server.admin, "plant", io.BytesIO(lines), as_json=True)

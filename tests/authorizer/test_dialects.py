"""The authorisation service in each dialect, asked over HTTP as the brokers' documentation has it."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import pytest_asyncio

from brokerkm.core.crypto import load_signing_key
from brokerkm.core.login import Principal, password
from brokerkm.core.names import Topics
from brokerkm.errors import StoreError
from brokerkm.guard.authority import Authority
from brokerkm.guard.authorizer.app import make_app
from brokerkm.guard.authorizer.judge import Judge
from brokerkm.guard.authorizer.listener import Listener
from brokerkm.guard.fleet import GuardedGroup
from brokerkm.store.records import MemberRecord, Status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

TOPICS = Topics("plant")
KEY = load_signing_key(b"k" * 32)
IDENTITY = KEY.public_key().public_bytes_raw()
USER = "plant:pump"
SECRET = password(Principal("plant", "pump"), IDENTITY, KEY.sign)
REQUEST, WELCOME, OWN, OTHER = (
    TOPICS.request("pump"),
    TOPICS.member("pump"),
    TOPICS.node(0, 0),
    TOPICS.node(0, 1),
)


class Shelf:
    """A fleet with one member, that may be away."""

    def __init__(self) -> None:
        self.record = MemberRecord("pump", Status.SEATED, IDENTITY, 0)
        self.is_away = False

    async def groups(self) -> dict[str, GuardedGroup]:
        """Return the group."""
        if self.is_away:
            message = "the key server is away"
            raise StoreError(message)
        return {"plant": GuardedGroup("plant", "bkm/1", 4)}

    async def member(self, group: str, member: str) -> MemberRecord | None:
        """Return the member."""
        return self.record if (group, member) == ("plant", "pump") else None

    async def members(self, group: str) -> AsyncIterator[MemberRecord]:
        """Yield it."""
        assert group == "plant"
        yield self.record


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: str
    kept: str


class Desk:
    """The service, and who asks it."""

    def __init__(self, url: str, shelf: Shelf, judge: Judge) -> None:
        self.url, self.shelf, self.judge = url, shelf, judge

    async def ask(self, path: str, body: bytes, **headers: str) -> Answer:
        """Return the answer to a POST."""
        request = urllib.request.Request(f"{self.url}{path}", body, headers)  # noqa: S310 - loopback

        def run() -> Answer:
            with urllib.request.urlopen(request) as answer:  # noqa: S310 - loopback
                return Answer(answer.status, answer.read().decode(), answer.headers["cache-control"])

        return await asyncio.to_thread(run)

    async def rabbit(self, path: str, **fields: str) -> str:
        """Return what RabbitMQ is told."""
        answer = await self.ask(f"/rabbitmq/{path}", urllib.parse.urlencode(fields).encode())
        assert answer.status == 200
        return answer.body

    async def json(self, path: str, fields: object, **headers: str) -> dict[str, Any]:
        """Return what a broker is told that speaks JSON."""
        answer = await self.ask(path, json.dumps(fields).encode(), **headers)
        assert answer.status == 200
        found: dict[str, Any] = json.loads(answer.body)
        return found


@pytest_asyncio.fixture
async def desk() -> AsyncGenerator[Desk]:
    """Serve."""
    shelf = Shelf()
    judge = Judge(Authority(shelf, applicants=False))
    async with Listener(make_app(judge), "127.0.0.1", 0) as listener:
        yield Desk(listener.url, shelf, judge)


TOPIC = {"username": USER, "vhost": "/", "resource": "topic", "name": "amq.topic", "client_id": "c"}
QUEUE = {"username": USER, "vhost": "/", "resource": "queue", "permission": "read", "client_id": "c"}


@pytest.mark.parametrize(
    ("path", "fields", "verdict"),
    [
        ("user", {"username": USER, "password": SECRET, "vhost": "/", "client_id": "c"}, "allow"),
        ("user", {"username": USER, "password": SECRET, "vhost": "/"}, "deny"),  # AMQP
        ("user", {"username": USER, "password": SECRET[:-1], "client_id": "c"}, "deny"),
        ("user", {"username": "plant:valve", "password": SECRET, "client_id": "c"}, "deny"),
        ("user", {"username": USER}, "deny"),
        ("vhost", {"username": USER, "vhost": "/", "ip": "127.0.0.1"}, "allow"),
        ("vhost", {"username": USER, "vhost": "other", "ip": "127.0.0.1"}, "deny"),
        ("resource", QUEUE | {"name": "mqtt-subscription-cqos1"}, "allow"),
        ("resource", QUEUE | {"name": "mqtt-subscription-otherqos1"}, "deny"),
        ("resource", QUEUE | {"name": "amq.topic", "resource": "exchange"}, "allow"),
        ("resource", QUEUE | {"name": "amq.direct", "resource": "exchange"}, "deny"),
        ("resource", QUEUE | {"name": "amq.topic", "resource": "exchange", "permission": "configure"}, "deny"),
        ("resource", QUEUE | {"name": "amq.topic", "resource": "what"}, "deny"),
        ("topic", TOPIC | {"permission": "read", "routing_key": OWN.replace("/", ".")}, "allow"),
        ("topic", TOPIC | {"permission": "read", "routing_key": OTHER.replace("/", ".")}, "deny"),
        ("topic", TOPIC | {"permission": "read", "routing_key": "app.*.x"}, "allow"),
        ("topic", TOPIC | {"permission": "read", "routing_key": "bkm.*.plant.m.*"}, "deny"),
        ("topic", TOPIC | {"permission": "read", "routing_key": "#"}, "deny"),
        ("topic", TOPIC | {"permission": "write", "routing_key": REQUEST.replace("/", ".")}, "allow"),
        ("topic", TOPIC | {"permission": "write", "routing_key": WELCOME.replace("/", ".")}, "deny"),
        ("topic", TOPIC | {"permission": "configure", "routing_key": "app.x"}, "deny"),
        ("topic", TOPIC | {"permission": "write", "routing_key": "app.x", "name": "other"}, "deny"),
    ],
)
async def test_rabbitmq(desk: Desk, path: str, fields: dict[str, str], verdict: str) -> None:
    """Forms, answered by a word (rabbitmq_auth_backend_http of 3.10)."""
    assert verdict == await desk.rabbit(path, **fields)


@pytest.mark.parametrize(
    ("path", "fields", "verdict"),
    [
        ("authenticate", {"username": USER, "password": SECRET, "clientid": "c"}, "allow"),
        ("authenticate", {"username": USER, "password": "undefined", "clientid": "c"}, "deny"),
        ("authenticate", {"username": None, "password": None}, "deny"),
        ("authorize", {"username": USER, "action": "subscribe", "topic": OWN}, "allow"),
        ("authorize", {"username": USER, "action": "subscribe", "topic": OTHER}, "deny"),
        ("authorize", {"username": USER, "action": "subscribe", "topic": "#"}, "deny"),
        ("authorize", {"username": USER, "action": "publish", "topic": REQUEST, "retain": "false"}, "allow"),
        ("authorize", {"username": USER, "action": "publish", "topic": REQUEST, "retain": True}, "deny"),
        ("authorize", {"username": USER, "action": "publish", "topic": REQUEST}, "deny"),
        ("authorize", {"username": USER, "action": "publish", "topic": WELCOME, "retain": False}, "deny"),
        ("authorize", {"username": USER, "action": "all", "topic": "app"}, "deny"),
        ("authorize", ["no object"], "deny"),
    ],
)
async def test_emqx(desk: Desk, path: str, fields: object, verdict: str) -> None:
    """JSON both ways; as documented, not tried with EMQX itself."""
    answer = await desk.json(f"/emqx/{path}", fields)
    assert verdict == answer["result"]
    assert answer.get("is_superuser", False) is False


async def test_vernemq(desk: Desk) -> None:
    """The hook is named by a header, an answer may say less than was asked; as documented, not tried with VerneMQ."""
    register = {"username": USER, "password": SECRET, "client_id": "c", "mountpoint": "", "peer_addr": "127.0.0.1"}
    ok, no = {"result": "ok"}, {"result": {"error": "not_allowed"}}
    for hook in ("auth_on_register", "auth_on_register_m5"):
        assert ok == await desk.json("/vernemq/hook", register, **{"vernemq-hook": hook})
        wrong = register | {"password": "x"}
        assert no == await desk.json("/vernemq/hook", wrong, **{"vernemq-hook": hook})
    publish = {"username": USER, "topic": REQUEST, "retain": False, "qos": 1, "payload": "..."}
    publishing = {"vernemq-hook": "auth_on_publish"}
    assert ok == await desk.json("/vernemq/hook", publish, **publishing)
    assert no == await desk.json("/vernemq/hook", publish | {"topic": WELCOME}, **publishing)
    assert no == await desk.json("/vernemq/hook", publish | {"retain": True}, **publishing)
    own, other = {"topic": OWN, "qos": 1}, {"topic": OTHER, "qos": 1}
    subscribing = {"vernemq-hook": "auth_on_subscribe"}
    assert ok == await desk.json("/vernemq/hook", {"username": USER, "topics": [own]}, **subscribing)
    both = await desk.json("/vernemq/hook", {"username": USER, "topics": [own, other]}, **subscribing)
    assert {"result": "ok", "topics": [own, other | {"qos": 128}]} == both
    newer = await desk.json(
        "/vernemq/hook", {"username": USER, "topics": [other]}, **{"vernemq-hook": "auth_on_subscribe_m5"}
    )
    assert {"result": "ok", "modifiers": {"topics": [other | {"qos": 135}]}} == newer
    for topics in ([], None, "x", ["x"], [own] * 257):
        assert no == await desk.json("/vernemq/hook", {"username": USER, "topics": topics}, **subscribing)
    assert no == await desk.json("/vernemq/hook", publish, **{"vernemq-hook": "on_deliver"})
    assert no == await desk.json("/vernemq/hook", publish)


async def test_what_may_be_remembered(desk: Desk) -> None:
    """A topic that was allowed, for a while; never a login, and never a no."""
    headers = {"vernemq-hook": "auth_on_publish"}
    publish = {"username": USER, "topic": REQUEST, "retain": False}
    assert "max-age=30" == (await desk.ask("/vernemq/hook", json.dumps(publish).encode(), **headers)).kept
    denied = await desk.ask("/vernemq/hook", json.dumps(publish | {"topic": WELCOME}).encode(), **headers)
    assert "no-store" == denied.kept
    login = json.dumps({"username": USER, "password": SECRET}).encode()
    assert "no-store" == (await desk.ask("/emqx/authenticate", login)).kept


async def test_it_fails_closed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key server that is away, a question that is none, a fault of the service: all are a no, said in the dialect."""
    fields = {"username": USER, "password": SECRET, "client_id": "c"}
    desk.shelf.is_away = True
    assert "deny" == await desk.rabbit("user", **fields)
    assert "deny" == await desk.rabbit("vhost", username=USER, vhost="/")
    desk.shelf.is_away = False
    assert "allow" == await desk.rabbit("user", **fields)
    twice = b"username=a&username=b"
    for body in (b"", b"\xff", twice, b"&".join([b"a=b"] * 40), b"username=" + b"x" * 70_000):
        assert "deny" == (await desk.ask("/rabbitmq/user", body)).body
    for body in (
        b"",
        b"\xff",
        b"[" * 60_000,
        b'{"username": "a", "username": "b"}',
        b'{"x": "' + b"x" * 70_000 + b'"}',
    ):
        assert '{"result": "deny"}' == (await desk.ask("/emqx/authenticate", body)).body
    desk.shelf.record = MemberRecord("pump", Status.EVICTED, IDENTITY)
    assert "deny" == await desk.rabbit("user", **fields)
    assert "deny" == await desk.rabbit("vhost", username=USER, vhost="/")

    async def faulty(*_: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(desk.judge, "connects", faulty)
    assert "deny" == await desk.rabbit("user", **fields)

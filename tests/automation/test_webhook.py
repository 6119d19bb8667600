"""Incoming webhooks, through a real Litestar application."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
from litestar import Litestar

from brokerkm.automation.signature import SIGNATURE, TIMESTAMP, sign
from brokerkm.automation.webhook import Hooks, router
from brokerkm.errors import StoreError
from brokerkm.storekey import open_source

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from automation.conftest import Site


class Caller:
    """Calls the webhooks of a site; signs with the rule's secret, at the server's time."""

    def __init__(self, site: Site, secret: bytes, client: httpx.AsyncClient) -> None:
        self.site = site
        self.secret = secret
        self._client = client

    def headers(self, body: bytes, late: float = 0.0) -> dict[str, str]:
        """Return the headers that sign `body`."""
        return sign(self.secret, int(self.site.now + late), body)

    async def call(self, rule: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Send a request; a signed one unless `headers` are given."""
        signed = self.headers(body) if headers is None else headers
        return await self._client.post(f"/v1/hooks/{rule}", content=body, headers=signed)


def connected(site: Site) -> httpx.AsyncClient:
    """Return a client of an application with the webhooks, in this event loop."""
    app = Litestar([router(Hooks(site.server, site.automation))], openapi_config=None)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
async def caller(site: Site, tmp_path: Path) -> AsyncGenerator[Caller]:
    """Start an application with two rules: `renew` rotates, `out` evicts."""
    secret = open_source(f"file:{tmp_path / 'key'}")
    secret.create()
    await site.seat("a", "b", "c", "d")
    hook = {"on": "webhook", "secret": f"file:{tmp_path / 'key'}"}
    await site.add("renew", hook, {"do": "rotate"})
    await site.add("out", hook, {"do": "evict", "share": 50})
    async with connected(site) as client:
        yield Caller(site, secret.read(), client)


async def test_signed_request_runs_its_rule(caller: Caller) -> None:
    """The answer says what was done, and the audit log when it was signed."""
    before = caller.site.epoch
    answer = await caller.call("plant/renew", b"anything")
    assert (200, {"done": "new keys: root", "members": []}) == (answer.status_code, answer.json())
    assert before + 1 == caller.site.epoch
    (run,) = await caller.site.audited()
    assert ("rule:renew", int(caller.site.now)) == (run.actor, run.details["signed"])


async def test_repeated_request_does_nothing_even_after_a_restart(caller: Caller) -> None:
    """Whoever recorded one cannot have it done again, and a sender that missed the answer may ask again."""
    before, headers = caller.site.epoch, caller.headers(b"x")
    for _ in range(3):
        answer = await caller.call("plant/renew", b"x", headers)
    assert ("this request was taken before", before + 1) == (answer.json()["done"], caller.site.epoch)
    await caller.site.restart()
    async with connected(caller.site) as client:
        answer = await Caller(caller.site, caller.secret, client).call("plant/renew", b"x", headers)
    assert ("this request was taken before", before + 1) == (answer.json()["done"], caller.site.epoch)


async def test_what_is_not_signed_learns_nothing(caller: Caller) -> None:
    """A wrong signature, an old one, one of another body and an unknown rule get the same answer."""
    good = caller.headers(b"x")
    answers = [
        await caller.call("plant/renew", b"x", {}),
        await caller.call("plant/renew", b"y", good),
        await caller.call("plant/renew", b"x", good | {TIMESTAMP: str(int(good[TIMESTAMP]) + 1)}),
        await caller.call("plant/renew", b"x", good | {TIMESTAMP: "9" * 40}),
        await caller.call("plant/renew", b"x", good | {SIGNATURE: "v1=" + "0" * 64}),
        await caller.call("plant/renew", b"x", good | {SIGNATURE: "v1=zz"}),
        await caller.call("plant/renew", b"x", caller.headers(b"x", -301)),
        await caller.call("plant/renew", b"x", caller.headers(b"x", 301)),
        await caller.call("plant/absent", b"x", good),
        await caller.call("absent/renew", b"x", good),
        await caller.call("plant/%2e%2e", b"x", good),
    ]
    assert {401} == {answer.status_code for answer in answers}
    assert 1 == len({answer.text for answer in answers})
    assert [] == await caller.site.audited()


async def test_rule_of_another_kind_is_no_webhook(caller: Caller) -> None:
    """It cannot be called, and nobody is told that it is there."""
    await caller.site.add("hourly", {"on": "time", "cron": "0 * * * *"}, {"do": "rotate"})
    assert 401 == (await caller.call("plant/hourly")).status_code


async def test_members_are_evicted_up_to_the_share(caller: Caller) -> None:
    """Half of the group may go in a day, whatever is signed."""
    answer = await caller.call("plant/out", json.dumps({"members": ["a", "b", "a"]}).encode())
    assert (200, ["a", "b"], ["c", "d"]) == (answer.status_code, answer.json()["members"], await caller.site.seated())
    answer = await caller.call("plant/out", json.dumps({"members": ["c"]}).encode())
    assert (422, True) == (answer.status_code, "more than the 0 members" in answer.json()["detail"])
    assert ["c", "d"] == await caller.site.seated()


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body has to be"),
        (b"\xff", "the body has to be"),
        (b"[" * 60_000, "the body has to be"),
        (b'{"members": []}', "the body has to be"),
        (b'{"members": "a"}', "the body has to be"),
        (json.dumps({"members": ["a"] * 1001}).encode(), "the body has to be"),
        (b'{"members": [1]}', "a member id is text"),
        (b'{"members": ["../a"]}', "is not 1 to 64 characters"),
        (b'{"members": ["a", "absent"]}', "'absent' has no place in group plant"),
    ],
)
async def test_wrong_body_evicts_nobody(caller: Caller, body: bytes, detail: str) -> None:
    """Signed or not, it has to be right; and one wrong id spares all."""
    answer = await caller.call("plant/out", body)
    assert (422, True) == (answer.status_code, detail in answer.json()["detail"]), answer.text
    assert ["a", "b", "c", "d"] == await caller.site.seated()


async def test_secret_that_cannot_be_read_is_the_servers_trouble(caller: Caller, tmp_path: Path) -> None:
    """The caller is asked to come again; the path is nobody's business."""
    (tmp_path / "key").unlink()
    answer = await caller.call("plant/renew")
    assert (503, False) == (answer.status_code, str(tmp_path) in answer.text)


async def test_store_that_fails_leaves_no_mark(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not done may be asked for again by the same request."""
    headers = caller.headers(b"x")

    async def fail(*arguments: object, **options: object) -> None:
        message = "the disk is full"
        raise StoreError(message)

    with monkeypatch.context() as patched:
        patched.setattr(caller.site.automation, "hook", fail)
        assert 503 == (await caller.call("plant/renew", b"x", headers)).status_code
    assert "new keys: root" == (await caller.call("plant/renew", b"x", headers)).json()["done"]


async def test_large_body_is_refused(caller: Caller) -> None:
    """More than a thousand ids can need is not read."""
    assert 413 == (await caller.call("plant/renew", b"x" * 65_537)).status_code


async def test_a_thousand_requests_in_ten_minutes_are_enough(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks take room; once they are too old to be repeated, they are forgotten."""
    monkeypatch.setattr("brokerkm.automation.webhook._MAX_MARKS", 3)
    answers = [(await caller.call("plant/renew", bytes([number]))).status_code for number in range(4)]
    assert [200, 200, 200, 429] == answers
    caller.site.now += 301
    assert 200 == (await caller.call("plant/renew", b"later")).status_code

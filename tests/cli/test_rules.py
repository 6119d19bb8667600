"""`brokerkm rule`, and rules at work in a real server process."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from typing import TYPE_CHECKING

import pytest

from brokerkm.api import RemoteAdmin
from brokerkm.automation.signature import sign
from brokerkm.storekey import open_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Machine
    from click.testing import Result

    Call = Callable[..., Result]


class LocalConnection(http.client.HTTPConnection):
    """HTTP to the server's own socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


def control(site: Machine) -> str:
    """Return the path of the server's socket."""
    return str(site.home / "s" / "brokerkm-server" / "control.sock")


def test_rule_fires_in_a_running_server(site: Machine) -> None:
    """The server looks by itself, does it once, and the command shows what became of it."""
    before = int(str(site.ask("group", "show")["epoch"]))

    async def fired() -> str:
        admin = await RemoteAdmin.connect(site.home / "s" / "brokerkm-server" / "control.sock")
        try:
            events = admin.events()
            following = asyncio.ensure_future(anext(events))
            await asyncio.to_thread(site.run, "rule", "add", "crowd", "--above", "1", "--rotate", "root")
            async with asyncio.timeout(30):
                event = await following
                while event.kind != "rule-run":
                    event = await anext(events)
            await events.aclose()
            return str(event.details["rule"])
        finally:
            await admin.close()

    assert "crowd" == asyncio.run(fired())
    shown = site.ask("rule", "show", "crowd")
    assert ("new keys: root", before + 1) == (shown["outcome"], site.ask("group", "show")["epoch"])
    site.run("rule", "remove", "crowd")
    assert "has no rule 'crowd'" in site.run("rule", "show", "crowd", status=2)


def test_webhook_reaches_a_running_server(site: Machine) -> None:
    """Through the gate of the API without a token, once; unsigned it is refused."""
    key = site.home / "hook.key"
    site.run("store", "key", "new", f"file:{key}")
    site.run("rule", "add", "renew", "--webhook", f"file:{key}", "--rotate", "all")
    before = int(str(site.ask("group", "show")["epoch"]))
    headers = sign(open_source(f"file:{key}").read(), int(time.time()), b"{}")
    answers: list[tuple[int, str]] = []
    connection = LocalConnection(control(site))
    for given in (headers, headers, {}):
        connection.request("POST", "/v1/hooks/fleet/renew", b"{}", given)
        response = connection.getresponse()
        fields = json.loads(response.read())
        answers.append((response.status, fields.get("done") or fields["title"]))
    connection.close()
    assert [(200, "new keys: all"), (200, "this request was taken before"), (401, "not signed")] == answers
    assert before + 1 == site.ask("group", "show")["epoch"]
    site.run("rule", "remove", "renew")


def test_rules_are_written_down_listed_and_tried_offline(call: Call) -> None:
    """Without a server the store is changed; times are shown as people read them."""
    call("group", "create", "plant")
    assert "no rule yet" in call("rule", "list").output
    assert (
        0
        == call("rule", "add", "nightly", "--cron", "0 3 * * *", "--zone", "Europe/Berlin", "--rotate", "all").exit_code
    )
    added = call("rule", "add", "absent", "--unseen", "30d", "--every", "2h", "--evict", "--share", "3", "--json")
    assert {"on": "silence", "unseen": 2592000, "every": 7200} == json.loads(added.output)["trigger"]
    listed = call("rule", "list")
    assert ("evict 3" in listed.output, ":00:00 UTC" in listed.output) == (True, True)
    assert "rule absent cannot work: members do not confirm epochs" in listed.stderr
    assert ["absent", "nightly"] == [
        json.loads(line)["name"] for line in call("rule", "list", "--json").output.splitlines()
    ]
    assert "it cannot work" in call("rule", "show", "absent").stderr
    assert "rule absent: would evict 0" in call("rule", "run", "absent", "--dry-run").output
    assert "rule nightly: new keys: all" in call("rule", "run", "nightly").output
    assert {"rule": "nightly"} == json.loads(call("rule", "remove", "nightly", "--json").output)
    assert "there is no rule absent any more" in call("rule", "remove", "absent").output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["x"], "say one thing when"),
        (["x", "--cron", "* * * * *"], "say one thing what to do"),
        (["x", "--cron", "* * * * *", "--above", "1", "--evict"], "say one thing when"),
        (["x", "--unseen", "30", "--evict"], "as in 30d"),
        (["x", "--unseen", "30d", "--rotate", "root", "--evict"], "say one thing what to do"),
        (["x", "--cron", "a b c d e", "--rotate", "root"], "bad minute"),
        (["x", "--cron", "* * * * *", "--notify", "https://h.example"], "secret: it names where the key is"),
    ],
)
def test_nonsense_is_refused(call: Call, arguments: list[str], text: str) -> None:
    """The error says what is missing, and nothing is added."""
    call("group", "create", "plant")
    result = call("rule", "add", *arguments)
    assert (2, True) == (result.exit_code, text in result.stderr), result.output
    assert "no rule yet" in call("rule", "list").output

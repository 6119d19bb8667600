"""Rules at work on a started server, with a clock that the test moves."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from brokerkm.automation.signature import verify
from brokerkm.errors import StoreError, UsageError
from brokerkm.service.feed import Kind
from brokerkm.store.records import Change, Document, Settings
from brokerkm.storekey import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from automation.conftest import Site

HOUR = 3600
DAY = 24 * HOUR
HOURLY = {"on": "time", "cron": "0 * * * *"}
SILENT = {"on": "silence", "unseen": 30 * DAY, "every": HOUR}


async def test_rotation_runs_once_at_its_time(site: Site) -> None:
    """Not before, not twice; the audit log and the feed name the rule."""
    await site.add("hourly", HOURLY, {"do": "rotate"})
    heard: list[str] = []
    site.server.feed.listen(
        lambda one: heard.append(str(one.details.get("rule"))) if one.kind is Kind.RULE_RUN else None
    )
    await site.step(HOUR - 1)
    assert 0 == site.epoch
    await site.step(2)
    await site.step(1)
    assert 1 == site.epoch
    (run,) = await site.audited()
    assert ("rule:hourly", "hourly", "new keys: root") == (run.actor, run.subject, run.details["done"])
    assert ["rule:hourly"] == [entry.actor for entry in await site.audited("rotate")]
    assert ["hourly"] == heard


async def test_missed_runs_are_made_up_for_once_after_a_restart(site: Site) -> None:
    """A server that was off for hours runs the rule once, and says how many times went by."""
    await site.add("hourly", HOURLY, {"do": "rotate", "what": "all"})
    site.now += 5 * HOUR + 60
    await site.restart()
    await site.step()
    await site.restart()
    await site.step(60)
    assert 1 == site.epoch
    (run,) = await site.audited()
    assert 4 == run.details["missed"]


async def test_clock_back_by_a_day_repeats_nothing(site: Site) -> None:
    """The day that comes twice has had its runs; the day after goes on as usual."""
    await site.add("hourly", HOURLY, {"do": "rotate"})
    await site.step(DAY)
    await site.step(-DAY)
    for _ in range(24):
        await site.step(HOUR)
    assert 1 == site.epoch
    await site.step(HOUR)
    assert 2 == site.epoch


async def test_store_that_fails_leaves_the_rule_due(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be stored goes on waiting, is not begun again meanwhile, and happens once."""
    await site.add("hourly", HOURLY, {"do": "rotate"})
    writing = type(site.store).write

    def fail(*arguments: object, **options: object) -> int:
        message = "the disk is full"
        raise StoreError(message)

    monkeypatch.setattr(type(site.store), "write", fail)
    await site.step(HOUR)
    await site.step(1)
    monkeypatch.setattr(type(site.store), "write", writing)
    await site.live.rotate(everything=False)  # waits for the next try, which takes what waits along
    await site.step(1)
    assert (1, 1) == (site.epoch, len(await site.audited()))


async def test_frozen_group_has_no_runs(site: Site) -> None:
    """No change is to be committed, so no rule makes one."""
    await site.add("hourly", HOURLY, {"do": "rotate"})
    record = replace(site.live.record, frozen=True)
    await site.server.desk.call(site.store.write, "plant", Change(record=record))
    await site.restart()
    await site.step(HOUR)
    assert 0 == site.epoch


async def test_leaves_are_renewed_page_by_page_and_a_restart_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every member gets one new leaf key, though the server was stopped in the middle."""
    monkeypatch.setattr("brokerkm.automation.deeds.LEAVES", 4)
    await site.seat(*(f"m{number}" for number in range(10)))
    before = {record.member: site.live.group.leaf_key(record.member) for record in site.store.members("plant")}
    await site.add("yearly", {"on": "time", "cron": "0 0 1 1 *"}, {"do": "rotate", "what": "leaves"})
    site.now += 365 * DAY
    refreshing, pages = site.live.refresh, list[int]()

    def stop_at_second(records: object, actor: str) -> object:
        pages.append(1)
        if len(pages) == 2:
            message = "here the power goes"
            raise StoreError(message)
        return refreshing(records, actor)  # type: ignore[arg-type]

    monkeypatch.setattr(site.live, "refresh", stop_at_second)
    await site.step()
    site.live.changes.documents.clear()  # what a process that ends takes along
    await site.restart()
    half = {member for member, key in before.items() if site.live.group.leaf_key(member) != key}
    assert {"m0", "m1", "m2", "m3"} == half
    await site.step()
    await site.step()
    assert all(site.live.group.leaf_key(member) != key for member, key in before.items())
    assert ["m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9"] == [
        one.subject for one in await site.audited("refresh")
    ]
    assert [4, 4, 2] == [entry.details["members"] for entry in await site.audited()]


async def test_settings_renew_the_root_and_the_leaves(site: Site) -> None:
    """root_period and leaf_period need no rule; leaves come round a few at a time."""
    await site.seat(*(f"m{number}" for number in range(10)))
    await site.set(Settings(root_period=HOUR, leaf_period=DAY))
    before = {record.member: site.live.group.leaf_key(record.member) for record in site.store.members("plant")}
    await site.step()
    assert 1 == site.epoch
    await site.step(HOUR)
    assert 2 == site.epoch
    for _ in range(24):
        await site.step(HOUR)
    assert all(site.live.group.leaf_key(member) != key for member, key in before.items())
    assert 10 == len(await site.audited("refresh"))
    assert {"rule:root-period", "rule:leaf-period"} == {entry.actor for entry in await site.audited()}


async def test_count_fires_once_at_the_edge(site: Site) -> None:
    """The rule fires when the group grows beyond the number, not as long as it is beyond."""
    await site.add("crowd", {"on": "count", "above": 2}, {"do": "rotate"})
    await site.seat("a", "b")
    await site.step(1)
    assert [] == await site.audited()
    await site.seat("c")
    for _ in range(3):
        await site.step(1)
    await site.server.admin.evict("plant", "c")
    await site.server.admin.evict("plant", "b")
    await site.step(1)
    await site.restart()
    await site.seat("d", "e")
    await site.step(1)
    assert [3, 3] == [entry.details["members"] for entry in await site.audited()]


async def test_silent_members_are_evicted_after_their_first_ack_only(site: Site) -> None:
    """Whoever has confirmed once and is then silent goes; who never has, or was heard, stays."""
    members = [f"m{number:02}" for number in range(40)]
    await site.seat(*members)
    await site.set(Settings(root_period=DAY))
    await site.add("absent", SILENT, {"do": "evict", "share": 5})
    await site.heard(*members[1:])
    await site.heard("m00", acked=0)
    for _ in range(31):
        await site.heard(*members[3:])
        for _ in range(24):
            await site.step(HOUR)
    assert ["m00", *members[3:]] == await site.seated()
    assert {"m01", "m02"} == {entry.subject for entry in await site.audited("evict")}
    assert {"rule:absent"} == {entry.actor for entry in await site.audited("evict")}


async def test_brake_holds_when_too_many_are_silent_at_once(site: Site) -> None:
    """A fleet behind a broken uplink is not evicted; the log says so once, and an operator may insist."""
    members = [f"m{number:02}" for number in range(40)]
    await site.seat(*members)
    await site.set(Settings(root_period=DAY))
    await site.add("absent", SILENT, {"do": "evict", "share": 5})
    await site.heard(*members)
    for _ in range(32 * 24):
        await site.step(HOUR)
    assert members == await site.seated()
    runs = [entry for entry in await site.audited() if entry.actor == "rule:absent"]
    assert ["evicted nobody: 40 are silent, more than the 2"] == [str(run.details["done"])[:46] for run in runs]
    info = await site.book.rule("plant", "absent")
    assert info.outcome.startswith("evicted nobody")
    dry = await site.book.run_rule("plant", "absent", dry=True, unbraked=True)
    assert (("would evict 40", True), 40) == ((dry.done, dry.dry), len(dry.members))
    assert members == await site.seated()
    await site.book.run_rule("plant", "absent", unbraked=True)
    assert [] == await site.seated()


async def test_server_that_was_off_takes_nobody_for_silent(site: Site) -> None:
    """After forty days without a server everybody looks silent, and nobody is."""
    await site.seat("a", "b")
    await site.set(Settings(root_period=DAY))
    await site.add("absent", SILENT, {"do": "evict", "share": 100})
    await site.heard("a", "b")
    await site.step()
    site.now += 40 * DAY
    await site.restart()
    for _ in range(24):
        await site.step(HOUR)
    assert ["a", "b"] == await site.seated()


async def test_broker_that_is_gone_makes_nobody_silent(site: Site) -> None:
    """While the broker is gone nobody can be heard, so nobody is looked for."""
    await site.seat("a", "b")
    await site.set(Settings(root_period=DAY))
    await site.add("absent", SILENT, {"do": "evict", "share": 100})
    await site.heard("a", "b")
    await site.step()
    site.server.feed.emit(Kind.BROKER_LOST)
    for _ in range(40):
        await site.step(DAY)
    site.server.feed.emit(Kind.BROKER_BACK)
    await site.step()
    assert ["a", "b"] == await site.seated()


async def test_silence_rule_says_why_it_cannot_work(site: Site) -> None:
    """Without acknowledgements, or without epochs to confirm, quiet members are no absent ones."""
    await site.seat("a")
    await site.add("absent", SILENT, {"do": "evict", "share": 100})
    await site.heard("a")
    for _ in range(31 * 24):
        await site.step(HOUR)
    (info,) = await site.book.rules("plant")
    assert (True, True, ["a"]) == (
        "set the policy's acknowledge" in info.warning,
        info.outcome == info.warning,
        await site.seated(),
    )
    await site.set(Settings(root_period=20 * DAY))
    (info,) = await site.book.rules("plant")
    assert "set root_period to at most half of the silence" in info.warning


class Receiver(BaseHTTPRequestHandler):
    """Keeps what was posted; answers with the next of `answers`."""

    posted: list[tuple[Mapping[str, str], bytes]]
    answers: list[int]

    def do_POST(self) -> None:
        """Take a request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.posted.append((dict(self.headers.items()), body))
        self.send_response(self.answers.pop(0) if self.answers else 204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[HTTPServer]:
    """Start an HTTP server for notices."""
    Receiver.posted, Receiver.answers = [], []
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_notice_is_signed_and_sent_once(site: Site, receiver: HTTPServer, tmp_path: Path) -> None:
    """The receiver can check who says so, and that it is about this run."""
    secret = open_source(f"file:{tmp_path / 'key'}")
    secret.create()
    url = f"http://127.0.0.1:{receiver.server_port}/x?y=1"
    await site.add("tell", HOURLY, {"do": "notify", "url": url, "secret": f"file:{tmp_path / 'key'}"})
    await site.step(HOUR)
    await site.step(1)
    ((headers, body),) = Receiver.posted
    verify(secret.read(), headers, body, site.now)
    told = json.loads(body)
    assert ("plant", "tell", f"plant/tell/{int(site.now - 1) * 1000}") == (told["group"], told["rule"], told["id"])
    assert secret.read().hex() not in json.dumps([headers, told])


async def test_notice_is_tried_again_and_given_up(site: Site, receiver: HTTPServer, tmp_path: Path) -> None:
    """After a pause that grows; with the same id; and in the end the audit log says that it failed."""
    open_source(f"file:{tmp_path / 'key'}").create()
    url = f"http://127.0.0.1:{receiver.server_port}"
    await site.add(
        "tell", {"on": "time", "cron": "0 0 * * *"}, {"do": "notify", "url": url, "secret": f"file:{tmp_path / 'key'}"}
    )
    Receiver.answers += [500, 302, 404]
    await site.step(DAY)
    for _ in range(30):
        await site.step(5)
    assert (4, 1) == (len(Receiver.posted), len({json.loads(body)["id"] for _, body in Receiver.posted}))
    Receiver.answers += [500] * 100
    await site.step(DAY)
    for _ in range(200):
        await site.step(60)
    assert 4 + 6 == len(Receiver.posted)
    assert ["told", "failed"] == [str(entry.details["done"]).partition(" ")[0] for entry in await site.audited()]
    assert "answered 500" in (await site.book.rule("plant", "tell")).outcome


async def test_silence_is_told_until_it_is_heard(site: Site, receiver: HTTPServer, tmp_path: Path) -> None:
    """A notice that was not taken is sent again; one that was is not, until the number of silent members changes."""
    open_source(f"file:{tmp_path / 'key'}").create()
    url = f"http://127.0.0.1:{receiver.server_port}"
    await site.seat("a", "b", "c")
    await site.set(Settings(root_period=DAY))
    await site.add("tell", SILENT, {"do": "notify", "url": url, "secret": f"file:{tmp_path / 'key'}"})
    await site.heard("a", "b")
    Receiver.answers += [500]
    for _ in range(31 * 24):
        await site.step(HOUR)
    told = [json.loads(body)["details"] for _, body in Receiver.posted]
    assert [{"first": "a b", "silent": 2}] * 2 == told


async def test_notice_without_a_listener_or_a_secret_is_a_failure(site: Site, tmp_path: Path) -> None:
    """A run on demand says at once what is wrong."""
    await site.add("tell", HOURLY, {"do": "notify", "url": "http://127.0.0.1:9", "secret": f"file:{tmp_path / 'key'}"})
    with pytest.raises(StoreError, match="No such file"):
        await site.book.run_rule("plant", "tell")
    open_source(f"file:{tmp_path / 'key'}").create()
    with pytest.raises(Exception, match="Connection refused"):
        await site.book.run_rule("plant", "tell")
    assert "would tell http://127.0.0.1:9" == (await site.book.run_rule("plant", "tell", dry=True)).done


async def test_book_keeps_names_apart(site: Site) -> None:
    """One rule of a name, none of a name that settings stand for, a hundred at most, and each removal is audited."""
    await site.add("hourly", HOURLY, {"do": "rotate"})
    for name in ("hourly", "root-period"):
        with pytest.raises(UsageError, match="already"):
            await site.add(name, HOURLY, {"do": "rotate"})
    info = await site.book.rule("plant", "hourly")
    assert (int(site.now + HOUR) * 1000, "") == (info.next, info.outcome)
    assert "new keys: root" == (await site.book.run_rule("plant", "hourly", dry=True)).done
    assert 0 == site.epoch
    await site.book.run_rule("plant", "hourly")
    assert ("operator:eve", 1) == ((await site.audited())[0].details["by"], site.epoch)
    await site.book.remove_rule("plant", "hourly")
    assert [] == await site.book.rules("plant")
    for call in (site.book.rule("plant", "hourly"), site.book.remove_rule("plant", "hourly")):
        with pytest.raises(UsageError, match="has no rule 'hourly'"):
            await call
    with pytest.raises(UsageError, match="has no rule 'hourly'"):
        await site.book.run_rule("plant", "hourly")
    with pytest.raises(UsageError, match="no group 'absent'"):
        await site.book.rules("absent")
    assert ["operator:eve"] == [entry.actor for entry in await site.audited("rule-add")]
    assert ["operator:eve"] == [entry.actor for entry in await site.audited("rule-remove")]
    many = [Document("rule", f"r{number}", b"{}") for number in range(100)]
    await site.server.desk.call(site.store.write, "plant", Change(documents=many))
    with pytest.raises(UsageError, match="100 rules"):
        await site.add("one-more", HOURLY, {"do": "rotate"})
    assert {"a stored rule is damaged"} == {info.warning[:24] for info in await site.book.rules("plant")}


async def test_damaged_rule_stops_no_other(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """It is named in the log, once; the others run."""
    await site.add("hourly", HOURLY, {"do": "rotate"})
    await site.server.desk.call(site.store.write, "plant", Change(documents=[Document("rule", "bad", b"{}")]))
    await site.step(HOUR)
    await site.step(HOUR)
    assert (2, 1) == (site.epoch, caplog.text.count("a stored rule is damaged"))


async def test_context_runs_by_itself(site: Site) -> None:
    """Between entering and leaving, rules are looked at without being asked."""
    await site.add("hourly", HOURLY, {"do": "rotate"})
    site.now += HOUR
    with site.server.feed.follow() as follower:
        async with site.automation:
            async for happening in follower:
                if happening.kind is Kind.RULE_RUN:
                    break
    assert 1 == site.epoch

"""The feed: who listens hears at once, who follows reads at leisure, and nobody holds the server up."""

from __future__ import annotations

import asyncio
import logging

import pytest

from brokerkm.service.feed import MAX_TEXT, Feed, Follower, Happening, Kind


async def test_a_follower_gets_what_happens_from_then_on() -> None:
    """What was before is not repeated."""
    feed = Feed(lambda: 7.0)
    feed.emit(Kind.LEAD, "plant")
    with feed.follow() as follower:
        feed.emit(Kind.COMMIT, "plant", epoch=4)
        assert Happening(7.0, Kind.COMMIT, "plant", "", {"epoch": 4}) == await anext(follower)


async def test_a_follower_waits_for_what_has_not_happened_yet() -> None:
    """The iterator is woken by the next happening."""
    feed = Feed()
    with feed.follow() as follower:
        waiting = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        assert not waiting.done()
        feed.emit(Kind.SYNC, "plant", "pump")
        assert "pump" == (await asyncio.wait_for(waiting, 5)).member


async def test_a_slow_follower_loses_the_oldest_and_is_told_how_many() -> None:
    """Its memory is bounded; after the loss it goes on with the newest."""
    feed = Feed(lambda: 7.0)
    with feed.follow(limit=2) as follower:
        for epoch in range(5):
            feed.emit(Kind.COMMIT, epoch=epoch)
        found = [await anext(follower) for _ in range(3)]
    assert [(Kind.MISSED, {"count": 3}), (Kind.COMMIT, {"epoch": 3}), (Kind.COMMIT, {"epoch": 4})] == [
        (one.kind, one.details) for one in found
    ]


async def test_the_end_of_following_ends_the_iteration() -> None:
    """What was queued is still given."""
    feed = Feed()
    with feed.follow() as follower:
        feed.emit(Kind.YIELD, "plant")

    async def rest(follower: Follower) -> list[Kind]:
        return [one.kind async for one in follower]

    assert [Kind.YIELD] == await asyncio.wait_for(rest(follower), 5)


def test_a_listener_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The next one hears all the same, and the log has the failure."""
    feed = Feed()
    heard: list[Kind] = []

    def fail(happening: Happening) -> None:
        raise RuntimeError(happening.kind)

    feed.listen(fail)
    feed.listen(lambda happening: heard.append(happening.kind))
    with caplog.at_level(logging.ERROR):
        feed.emit(Kind.ROTATE, "plant")
    assert ([Kind.ROTATE], 1) == (heard, len(caplog.records))


def test_a_listener_can_stop_listening_at_any_time() -> None:
    """Even while it is being told, and twice."""
    feed = Feed()
    heard: list[Kind] = []

    def once(happening: Happening) -> None:
        heard.append(happening.kind)
        end()

    end = feed.listen(once)
    feed.emit(Kind.LEAD)
    feed.emit(Kind.YIELD)
    end()
    assert [Kind.LEAD] == heard


def test_bytes_are_refused_because_they_might_be_a_key() -> None:
    """A mistake of ours shows at its first use."""
    feed = Feed()
    feed.listen(lambda _: None)
    with pytest.raises(TypeError, match="detail seed of rotate: bytes is neither"):
        feed.emit(Kind.ROTATE, seed=bytes(32))  # type: ignore[arg-type]


def test_texts_are_cut() -> None:
    """A peer's words fill no memory."""
    feed = Feed()
    heard: list[Happening] = []
    feed.listen(heard.append)
    feed.emit(Kind.BROKER_LOST, reason="x" * 10_000)
    assert {"reason": "x" * MAX_TEXT} == heard[0].details

"""The whole system at once: 200 real members, real brokers, and nothing that stays up.

Members come, go, sleep and speak at random while the key server is killed again and again and the broker loses what it
retained. In the end all have the same key, and nobody has read what it should not.
"""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest
from system import sites
from system.story import Story
from system.thief import Thief

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from system.sites import Site

MEMBERS = 200
NAMES = [f"device-{number:03}" for number in range(MEMBERS + 80)]
COMMITS = 50
CRASHES = 8
QUIET = 5  # rounds between two quiet points
SEED = int(os.environ.get("BROKERKM_SEED", "2627"))  # another one is another story


@pytest.fixture(autouse=True)
def _many_sockets() -> Iterator[None]:
    """Let this process have the sockets of 200 members."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(300)
async def test_mosquitto(tmp_path: Path) -> None:
    """A fleet on Mosquitto, which is restarted once and killed once."""
    with sites.mosquitto(tmp_path, NAMES) as site:
        await live(site, tmp_path)


@pytest.mark.timeout(300)
async def test_zeromq(tmp_path: Path) -> None:
    """A fleet on the hub in the server's process, which dies with it."""
    with sites.zeromq(tmp_path, NAMES) as site:
        await live(site, tmp_path)


async def live(site: Site, directory: Path) -> None:
    """Let a fleet live through at least 50 commits, and look at everything in the end."""
    story = Story(site, directory, NAMES, SEED)
    story.tell(f"seed {SEED}")
    try:
        await story.begin(MEMBERS)
        await story.settle()
        control = {name: story.devices[name].saved() for name in story.pick(story.inside, 20)}
        first = (await story.server.show()).epoch
        troubles = [story.crash] * CRASHES + ([story.restart_broker, story.kill_broker] if site.restart else [])
        when = dict(zip(story.dice.sample(range(COMMITS), len(troubles)), troubles, strict=True))
        for number in range(COMMITS):
            story.tell(f"round {number}")
            await story.round(when.get(number))
            if number % QUIET == QUIET - 1:
                await story.settle()
        await story.wake(sorted(story.asleep))
        await story.wake_outsiders()
        await story.settle()
        info = await story.server.show()
        assert info.epoch - first >= COMMITS
        assert (0, 0) == (info.waiting, info.unpublished)
        judge(story, control)
        assert 0 == await story.server.stop()
        assert "Traceback" not in story.server.log.read_text()
        assert [] == story.failures
    finally:
        await story.end()


def judge(story: Story, control: dict[str, bytes]) -> None:
    """See that nobody has read, or can read, what was sent while it was out; and that this could be seen.

    Args:
        control: states of members at the beginning; with what was published since, those who stayed read the end.
    """
    tape, captured = story.witness.tape, story.witness.captured
    for device in story.devices.values():
        assert set() == device.read & device.barred, f"{device.name} was out"
        barred = {number: captured[number] for number in device.barred & captured.keys()}
        current = [device.saved()] if device.name in story.inside else []
        assert set() == Thief([*device.snapshots, *current], tape).opens(barred), f"a thief of {device.name}"
    last = {story.messages - 1: captured[story.messages - 1]}
    outside = [state for name in story.outside for state in story.devices[name].snapshots]
    assert set() == Thief(outside, tape).opens(last), "all who are out, together"
    stayed = [state for name, state in control.items() if not story.devices[name].snapshots]
    readers = sum(Thief([state], tape).opens(last) == last.keys() for state in stayed)
    assert readers, "the eavesdropper has not recorded what members need, so it proves nothing"
    story.tell(f"{story.messages} messages, {len(captured)} captured, {story.server.kills} kills of the server")
    story.tell(f"{readers} of {len(stayed)} members of the beginning read the end by what was recorded")

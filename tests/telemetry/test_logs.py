"""Logs: each record a line, in three styles, without orders to a terminal and without secrets."""

from __future__ import annotations

import io
import json
import logging
import re
from typing import TYPE_CHECKING

import pytest

from brokerkm.telemetry.logs import FORMATS, Logs

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger("brokerkm.tests")


@pytest.fixture
def stream() -> io.StringIO:
    """Give where the log goes."""
    return io.StringIO()


@pytest.fixture
def logs(stream: io.StringIO) -> Iterator[Logs]:
    """Give the root logger's handler."""
    level = logging.getLogger().level
    logs = Logs(stream)
    yield logs
    logs.close()
    logging.getLogger().setLevel(level)


def test_text_is_for_people(logs: Logs, stream: io.StringIO) -> None:
    """Time, level, logger, message."""
    logs.configure("info", "text")
    _log.info("group %s: epoch %d", "plant", 4)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO brokerkm\.tests: group plant: epoch 4\n", stream.getvalue()
    )


def test_json_is_an_object_a_line(logs: Logs, stream: io.StringIO) -> None:
    """An exception is a field of it."""
    logs.configure("info", "json")
    try:
        json.loads("{")
    except ValueError:
        _log.exception("no JSON")
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert ("error", "brokerkm.tests", "no JSON", True) == (
        found["level"],
        found["logger"],
        found["message"],
        "JSONDecodeError" in found["exception"],
    )


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7)],
)
def test_the_journal_is_told_the_priority(logs: Logs, stream: io.StringIO, level: int, priority: int) -> None:
    """As sd-daemon(3) says."""
    logs.configure("debug", "journal")
    _log.log(level, "x")
    assert f"<{priority}>brokerkm.tests: x\n" == stream.getvalue()


@pytest.mark.parametrize("style", FORMATS)
def test_a_name_that_others_chose_gives_no_orders(logs: Logs, stream: io.StringIO, style: str) -> None:
    """No second line, no escape sequence, no text turned around."""
    logs.configure("info", style)
    _log.info("member %s", "a\n<0>forged\x1b[2J\u202e")
    text = stream.getvalue()
    assert (1, False, False) == (text.count("\n"), "\x1b" in text, "\u202e" in text)


@pytest.mark.parametrize("style", FORMATS)
def test_secrets_are_struck_out(logs: Logs, stream: io.StringIO, style: str) -> None:
    """Passwords in URLs by their place, others because the process was given them; in exceptions too."""
    logs.configure("info", style)
    logs.redaction.hide(["opensesame", ""])
    _log.info("connecting to mqtt://keyserver:hunter2@broker")
    try:
        raise RuntimeError("opensesame")  # noqa: TRY301, EM101 - what must not be shown
    except RuntimeError:
        _log.exception("tried opensesame")
    text = stream.getvalue()
    assert ("hunter2" in text, "opensesame" in text, "mqtt://keyserver:***@broker" in text) == (False, False, True)


def test_level_and_style_change_while_it_runs(logs: Logs, stream: io.StringIO) -> None:
    """One handler stays, so no line is doubled."""
    logs.configure("warning", "text")
    _log.info("unheard")
    logs.configure("info", "json")
    _log.info("heard")
    assert "heard" == json.loads(stream.getvalue())["message"]

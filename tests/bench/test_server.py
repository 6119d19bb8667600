"""`brokerkm bench server` measures what it says it measures, and prints it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from click.testing import CliRunner

from brokerkm.bench import server_takeover
from brokerkm.bench.command import bench
from brokerkm.bench.figure import Figure
from brokerkm.bench.server import line

if TYPE_CHECKING:
    import pytest


def test_json_names_floor_and_verdict() -> None:
    """A script finds each figure with its unit, its floor, and whether it keeps its limit."""
    result = CliRunner().invoke(bench, ["server", "--case", "open", "--case", "evict", "--members", "1000", "--json"])
    figures = json.loads(result.stdout)
    assert ["open", "open", "evict", "evict"] == [figure["case"] for figure in figures]
    assert ["s", "bytes", "s", "s"] == [figure["unit"] for figure in figures]
    assert (result.exit_code == 0) == all(figure["holds"] for figure in figures)
    assert figures[2]["ratio"] > 1, "an eviction takes longer than the fsync in it"


def test_table_has_a_line_a_figure() -> None:
    """Without --json there is a table, each figure with its floor below it."""
    result = CliRunner().invoke(bench, ["server", "--case", "import", "--members", "64"])
    header, figure, floor, *_ = result.stdout.splitlines()
    assert ["case", "figure", "value", "floor", "ratio", "limit"] == header.split()
    assert figure.startswith("import ")
    assert floor.strip().startswith("floor: ")


def test_flood_and_storm_are_cases() -> None:
    """Requests are measured by the command too."""
    result = CliRunner().invoke(bench, ["server", "--case", "storm", "--case", "flood", "--members", "64", "--json"])
    assert ["storm", "flood"] == list(dict.fromkeys(figure["case"] for figure in json.loads(result.stdout)))


def test_a_server_that_is_killed_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The take-over is measured on real processes and a real database, here once and with a short lease."""
    monkeypatch.setattr(server_takeover, "ROUNDS", 1)
    result = CliRunner().invoke(bench, ["server", "--case", "takeover", "--json"])
    median, worst = json.loads(result.stdout)
    assert 0 < median["value"] <= worst["value"]
    assert worst["at_most"] == 2 * median["floor"]


def test_a_broken_limit_is_said() -> None:
    """A figure above what it may be, or below what it has to be, says so in its line."""
    slow = Figure(case="open", what="opening", value=2.0, unit="s", floor=1.0, at_most=1.5)
    assert (False, 2.0) == (slow.holds, slow.ratio)
    assert line(slow).endswith("2.00 x  ≤ 1.5 s BROKEN")
    few = Figure(case="import", what="devices", value=10.0, unit="/s", at_least=20.0)
    assert line(few).endswith("10 /s                      ≥ 20 /s BROKEN")
    assert Figure(case="flood", what="one", value=2e-6, unit="s").as_dict() == {
        "case": "flood",
        "what": "one",
        "value": 2e-6,
        "unit": "s",
        "holds": True,
    }
    assert "2 µs" in line(Figure(case="flood", what="one", value=2e-6, unit="s"))
    assert line(Figure(case="storm", what="asked", value=1.0, unit="x")).endswith("1 x")


def test_a_brokers_questions_are_a_case() -> None:
    """Each figure stands beside an empty handler's, in the same share."""
    result = CliRunner().invoke(bench, ["server", "--case", "guard", "--members", "64", "--json"])
    figures = json.loads(result.stdout)
    assert ["guard"] * 4 == [figure["case"] for figure in figures]
    assert (result.exit_code == 0) == all(figure["holds"] for figure in figures)
    assert figures[0]["ratio"] > 1, "what is not known yet is asked of the key server"

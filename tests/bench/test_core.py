"""`brokerkm bench core` measures what it says it measures."""

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from brokerkm.bench import limits, table
from brokerkm.bench.anatomy import Anatomy
from brokerkm.bench.command import bench
from brokerkm.bench.commits import build_group
from brokerkm.bench.limits import judge
from brokerkm.bench.row import Row

if TYPE_CHECKING:
    from brokerkm.core.commit import Commit

FIELDS = {
    "evict": {"messages", "mean_bytes", "max_bytes", "messages_per_member", "flat_bytes_total", "pairwise_messages"},
    "batch": {"messages", "mean_bytes", "max_bytes", "messages_per_member", "flat_bytes_total", "pairwise_messages"},
    "memory": {"bytes_per_member_memory"},
    "member": {"cpu_s", "floor_s", "ratio"},
    "data": {"cpu_s", "floor_s", "ratio"},
}


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, float]]:
    """Every case on a small group, as `--json` prints it; a small group may break a limit on a busy machine."""
    result = CliRunner().invoke(bench, ["core", "--members", "1000", "--json"])
    assert result.exit_code in (0, 1), result.output
    return {row["case"]: row for row in json.loads(result.stdout)}


def test_json_has_every_case_with_its_fields(rows: dict[str, dict[str, float]]) -> None:
    """A script finds each case once, with the fields that apply to it."""
    assert set(rows) == set(FIELDS)
    for case, fields in FIELDS.items():
        assert {"case", "members"} | fields <= set(rows[case])


def test_eviction_from_a_thousand(rows: dict[str, dict[str, float]]) -> None:
    """One eviction from 1,000 members at degree 4: (d-1)(h-1)+1 messages, one for each member."""
    row = rows["evict"]
    assert (row["messages"], row["messages_per_member"], row["pairwise_messages"]) == (13, 1, 999)
    assert 119 + 40 / 3 < row["mean_bytes"] < 140


def test_batch_evicts_one_in_a_hundred(rows: dict[str, dict[str, float]]) -> None:
    """The batch case evicts ten of a thousand in one commit and still sends each member one message."""
    assert (rows["batch"]["evicted"], rows["batch"]["messages_per_member"]) == (10, 1)


def test_figures_are_measured(rows: dict[str, dict[str, float]]) -> None:
    """Times and sizes are positive, and a ratio is what it says."""
    for case in ("evict", "batch", "member", "data"):
        assert rows[case]["ratio"] == pytest.approx(rows[case]["cpu_s"] / rows[case]["floor_s"], abs=0.01)
    assert rows["memory"]["bytes_per_member_memory"] > 40


def test_a_commit_that_reaches_a_member_twice_is_noticed() -> None:
    """The count of one message a member is a check that can fail: a doubled and a lost Rekey both show."""
    group = build_group(64, 4)
    group.evict("device-0000001")
    commit = group.prepare(1e9, bytes)
    for rekeys in (commit.rekeys + commit.rekeys[:1], commit.rekeys[1:]):
        wrong: Commit = dataclasses.replace(commit, rekeys=rekeys)
        with pytest.raises(AssertionError, match="Rekeys"):
            Anatomy(wrong, group.tree)


def test_a_broken_limit_is_said() -> None:
    """A row over its limit does not hold, and its line says so."""
    slow = judge(Row(case="data", members=2, ratio=4.5))
    assert (slow.holds, slow.limit) == (False, "ratio ≤ 4")
    assert table.line(slow).endswith("BROKEN")
    assert judge(Row(case="data", members=2, ratio=3.9)).holds


def test_limits_of_a_million_apply_to_a_million_only() -> None:
    """Bytes and messages have limits at 1,000,000 members and degree 4."""
    row = Row(case="evict", members=1_000_000, degree=4, messages=29, mean_bytes=130.0, messages_per_member=1.0)
    row = dataclasses.replace(row, ratio=1.0, flat_times=15.0, pairwise_times=35_000.0)
    assert not judge(row).holds
    assert judge(dataclasses.replace(row, messages=28)).holds
    assert judge(dataclasses.replace(row, members=999_999)).holds


def test_table_prints_a_line_a_case() -> None:
    """Without --json there is a table, whose ratios stand beside their floor."""
    result = CliRunner().invoke(bench, ["core", "--case", "evict", "--members", "64", "--degree", "2"])
    header, line = result.stdout.splitlines()[:2]
    assert "floor" in header
    assert line.split()[:2] == ["evict", "64"]


def test_limits_are_what_the_project_promises() -> None:
    """Every figure that the project holds itself to, written out."""
    most = limits._AT_MOST
    assert most["evict"] == {"messages_per_member": 1, "ratio": 1.5}
    assert most["evict a million"] == {"messages": 28, "mean_bytes": 140}
    assert most["batch"] == {"messages_per_member": 1, "ratio": 2.5}
    assert most["batch a million"] == {"mean_bytes": 500}
    assert most["memory a million"] == {"bytes_per_member_memory": 120}
    assert (most["member"], most["data"]) == ({"ratio": 1.5}, {"ratio": 4})
    assert limits._AT_LEAST["evict a million"] == {"flat_times": 12, "pairwise_times": 30_000}

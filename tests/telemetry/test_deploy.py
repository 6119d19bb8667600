"""What `deploy/` ships fits the program: metric names, alerts, unit, configuration."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from brokers.process import require
from prometheus_client.parser import text_string_to_metric_families

from brokerkm.config import load
from brokerkm.service.feed import Kind
from brokerkm.telemetry.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
_METRIC = re.compile(r"\b(?:brokerkm|process)_[a-z_]+\b")
_LABELS = re.compile(r"\b((?:brokerkm|process)_[a-z_]+)\{([^}]*)\}")
_BY = re.compile(r"\bby \(([^)]*)\)")
_OUTSIDE = {"instance", "job", "le"}  # Prometheus' own
_RULES = DEPLOY / "prometheus/brokerkm.rules.yml"

_ALERTS = """
rule_files: [brokerkm.rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'brokerkm_broker_connected{instance="a"}', values: '1x5 0x20'}
      - {series: 'brokerkm_outbox_messages{instance="a",group="plant"}', values: '0x5 40+1x30'}
      - {series: 'brokerkm_group_leading{instance="a",group="plant"}', values: '1x10 _x30'}
      - {series: 'brokerkm_members{instance="a",group="plant",status="seated"}', values: '100x60'}
      - {series: 'brokerkm_members_lagging{instance="a",group="plant"}', values: '20x60'}
      - {series: 'brokerkm_store_failing{instance="a"}', values: '0x60'}
    alert_rule_test:
      - {eval_time: 4m, alertname: BrokerkmBrokerLost, exp_alerts: []}
      - eval_time: 12m
        alertname: BrokerkmBrokerLost
        exp_alerts:
          - exp_labels: {severity: critical, instance: a}
            exp_annotations:
              summary: a does not reach its broker
              description: Changes are stored and wait. `brokerkm doctor` says what is wrong.
      - {eval_time: 10m, alertname: BrokerkmGroupWithoutLeader, exp_alerts: []}
      - eval_time: 22m
        alertname: BrokerkmGroupWithoutLeader
        exp_alerts:
          - exp_labels: {severity: critical, group: plant}
            exp_annotations:
              summary: No server leads the group plant
              description: Its requests are not answered. `brokerkm server list` shows who is there.
      - {eval_time: 5m, alertname: BrokerkmOutboxGrows, exp_alerts: []}
      - eval_time: 32m
        alertname: BrokerkmOutboxGrows
        exp_alerts:
          - exp_labels: {severity: warning, instance: a, group: plant}
            exp_annotations:
              summary: Messages of plant are not published
              description: The broker is too slow, or refuses them; an eviction has no effect before its rekeys are out.
      - eval_time: 35m
        alertname: BrokerkmMembersLag
        exp_alerts:
          - exp_labels: {severity: warning, instance: a, group: plant}
            exp_annotations: {summary: A tenth of plant has not confirmed the newest epoch}
      - {eval_time: 35m, alertname: BrokerkmStoreFailing, exp_alerts: []}
"""


def series() -> dict[str, set[str]]:
    """Return the names that the program exports, each with its labels."""
    metrics = Metrics()
    found: dict[str, set[str]] = {}
    for collector in list(metrics.registry._collector_to_names):
        labels = set(getattr(collector, "_labelnames", ()))
        for name in metrics.registry._collector_to_names[collector]:
            found[name] = labels
    found["brokerkm_build_info"] = {"version", "python"}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set())
    return found


def expressions() -> list[str]:
    """Return all that dashboard and alerts ask Prometheus."""
    dashboard = json.loads((DEPLOY / "grafana/brokerkm.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    return asked + re.findall(r"^ *expr: (.*)$", _RULES.read_text(), re.MULTILINE)


def test_every_metric_that_is_asked_for_exists() -> None:
    """A renamed metric would leave an empty panel, and an alert that never fires."""
    asked = {name for expression in expressions() for name in _METRIC.findall(expression)}
    assert set() == asked - series().keys()


def test_every_label_that_is_asked_for_exists() -> None:
    """The same goes for labels, in selections and in sums."""
    known = series()
    wrong = [
        (name, label)
        for expression in expressions()
        for name, selection in _LABELS.findall(expression)
        for label in re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selection)
        if label not in known[name] | _OUTSIDE
    ]
    wrong += [
        (expression, label)
        for expression in expressions()
        for labels in _BY.findall(expression)
        for label in labels.split(", ")
        if not any(label in known[name] | _OUTSIDE for name in _METRIC.findall(expression))
    ]
    assert [] == wrong


def test_the_kinds_that_alerts_wait_for_happen() -> None:
    """A misspelt one would never fire."""
    text = " ".join(expressions())
    assert (
        {"clone-suspected", "retained-lost"}
        <= set(re.findall(r'kind="([^"]*)"', text))
        <= {kind.value for kind in Kind}
    )


def test_every_metric_of_ours_is_shown_or_guarded() -> None:
    """What nobody looks at is not worth its series."""
    text = " ".join(expressions())
    bases = {re.sub(r"_(total|bucket|count|sum|created|info)$", "", name) for name in series() if "brokerkm_" in name}
    assert [] == sorted(base for base in bases if base not in text)


def test_panels_do_not_overlap() -> None:
    """Each has its place on the grid, and says what it is."""
    dashboard = json.loads((DEPLOY / "grafana/brokerkm.json").read_text())
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not own & cells, panel["title"]
        cells |= own
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_alerts_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    """By Prometheus' own evaluation."""
    promtool = require("promtool", "prometheus")
    (tmp_path / "brokerkm.rules.yml").write_text(_RULES.read_text())
    (tmp_path / "tests.yml").write_text(_ALERTS)
    done = subprocess.run(
        [promtool, "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert 0 == done.returncode, done.stdout + done.stderr


def test_what_the_program_exports_is_good_style() -> None:
    """By Prometheus' own linter."""
    promtool = require("promtool", "prometheus")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=Metrics().text(), capture_output=True, check=False, timeout=60
    )
    assert b"" == done.stdout + done.stderr


@pytest.mark.parametrize("name", ["brokerkm.service", "brokerkm-guard.service"])
def test_the_unit_is_one_that_systemd_takes_and_holds_tight(tmp_path: Path, name: str) -> None:
    """Verified by systemd; its exposure stays low (0 is none, 10 all)."""
    analyze = require("systemd-analyze", "systemd")
    text = (DEPLOY / "systemd" / name).read_text()
    unit = tmp_path / name
    unit.write_text(text.replace("/opt/brokerkm/bin/brokerkm", str(Path(sys.executable).with_name("brokerkm"))))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (0, "") == (done.returncode, done.stdout + done.stderr)
    held = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=15", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert 0 == held.returncode, held.stdout


def test_the_configuration_to_begin_with_can_be_used() -> None:
    """And it names the credentials that the unit loads."""
    found = load(DEPLOY / "brokerkm.toml", {})
    unit = (DEPLOY / "systemd/brokerkm.service").read_text()
    secrets = [one.spec.partition(":")[2] for one in (found.store.key, found.broker.password) if one is not None]
    assert ["store-key", "broker-password"] == secrets
    assert all(f"LoadCredential={name}:" in unit for name in secrets)

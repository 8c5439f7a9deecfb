"""What a monitor is shown: the figures of a sweep's ledger, and a dashboard that shows all of them and no others."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from hausa_asr.settings.load import load
from sweeps.driver import gauges
from sweeps.driver.gauges import EXPORTED, METRICS, values
from sweeps.record.ledger import Ledger

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "cluster/grafana/sweep.json").read_text(encoding="utf-8"))
BUDGET = ("budget.hours=4", "budget.money=10", "budget.price_per_hour=2", "budget.wall_s=7200", "search.trials=8")


def shown(ledger: Ledger, *changes: str, now: float, backlog: int = 0) -> dict[str, float]:
    config = load(None, changes, environment={})
    found = values(ledger.state, config, backlog, now)
    return {one.metric.name.removeprefix("hausa_asr_sweep_") + f":{one.of}" * bool(one.of): one.figure for one in found}


def test_the_figures_are_those_of_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append("sweep", name="night")
    ledger.append("opened", slots=3)
    began = time.time()
    empty = shown(ledger, *BUDGET, now=began)
    assert not {"best_dev_wer", "baseline_dev_wer", "seconds_since_report"} & set(empty), "nothing is made up"
    assert empty["trials:running"] == empty["device_hours:CPU-hours"] == empty["money"] == 0
    assert empty["budget_left:hours"] == 4 and empty["budget_left:wall_s"] == pytest.approx(7200, abs=1)
    for name, source, wer in (("t000", "baseline", 0.5), ("t001", "search", 0.25), ("t002", "search", 0.75)):
        scores = {"wer": wer, "cer": 0.2, "loss": 1.0}
        ledger.append("proposed", trial=name, settings={}, source=source)
        ledger.append("started", trial=name)
        ledger.append(
            "reported", trial=name, step=70, updates=280, seen_s=1000.0, metrics={**scores, "audio_s_per_s": 30.0},
            best={"step": 70, **scores}, last=False, diverged=False, time=began + 3600,
        )  # fmt: skip
    ledger.append("paused", trial="t001", reason="its node was lost", cause="crash", time=began + 3600)
    ledger.append("paused", trial="t002", reason="it lost", cause="rung", time=began + 3600)
    figures = shown(ledger, *BUDGET, now=began + 3660, backlog=7)
    assert (figures["trials:running"], figures["trials:paused"], figures["trials:failed"]) == (1, 2, 0)
    assert figures["trials_paused_by_crash"] == 1 and figures["mlflow_backlog"] == 7
    assert (figures["best_dev_wer"], figures["baseline_dev_wer"]) == (0.25, 0.5)
    assert (figures["slots:busy"], figures["slots:there"]) == (1, 3)
    assert figures["seconds_since_report"] == pytest.approx(60, abs=1)
    hours = 3 + 1 / 60
    assert figures["device_hours:CPU-hours"] == pytest.approx(hours, abs=0.01)
    assert figures["money"] == pytest.approx(2 * hours, abs=0.01)
    assert figures["budget_left:hours"] == pytest.approx(4 - hours, abs=0.01)
    assert figures["budget_left:money"] == pytest.approx(10 - 2 * hours, abs=0.02)
    assert figures["budget_left:wall_s"] == pytest.approx(7200 - 3660, abs=5)
    bare = shown(ledger, now=began + 3660)
    assert not [name for name in bare if name.startswith(("budget_left", "money"))], "no limit, no price"


def test_every_kind_of_figure_is_in_the_table() -> None:
    declared = {one.name for one in vars(gauges).values() if isinstance(one, gauges.Metric)}
    assert declared == {one.name for one in METRICS} and len(METRICS) == len(declared)


def test_the_page_has_every_metric_with_its_labels() -> None:
    page = (ROOT / "docs/running_jobs.md").read_text(encoding="utf-8")
    rows = dict(re.findall(rf"^\| `{EXPORTED}(\w+)` \| .* \|(.*)\|$", page, re.M))
    assert {name: label.strip(" `") for name, label in rows.items()} == {one.name: one.label for one in METRICS}


def expressions(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node[key] for key in ("expr", "query", "definition") if isinstance(node.get(key), str)]
        return own + [text for value in node.values() for text in expressions(value)]
    return [text for value in node for text in expressions(value)] if isinstance(node, list) else []


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    asked = [text for text in expressions(DASHBOARD) if text != "prometheus"]
    named = {name for text in asked for name in re.findall(r"[a-z_]+(?=\{|,)|[a-z_]+$", text) if "_" in name}
    named -= {"label_values"}
    assert named == {f"{EXPORTED}{metric.name}" for metric in METRICS}


def test_its_panels_use_labels_that_exist_and_the_chosen_datasource() -> None:
    labels = {f"{EXPORTED}{metric.name}": {"sweep", metric.label} for metric in METRICS}
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 9
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}" and panel["title"] and panel["description"]
        for target in panel["targets"]:
            found = re.fullmatch(r'max by \(([\w, ]+)\) \((\w+)\{sweep=~"\$sweep"\}\)', target["expr"])
            assert found and target["datasource"]["uid"] == "${datasource}"
            used = {*found[1].split(", "), *re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])}
            assert used <= labels[found[2]], target["expr"]
    assert {one["name"] for one in DASHBOARD["templating"]["list"]} == {"datasource", "sweep"}
    assert DASHBOARD["schemaVersion"] >= 39

"""The report's page, made from events as a sweep writes them, and opened in a real browser."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hausa_asr.settings.recipe import Dimension
from hausa_asr.settings.sweep import SweepConfig
from helpers.browser import needs_browser, page
from helpers.reported import Sweep, a_sweep, a_verdict
from sweeps.pruning.rule import FIGURES, RankBy
from sweeps.record.names import REPORT_FILE
from sweeps.report.charts import MOST_CURVES, chosen_curves
from sweeps.report.figures import rung_rows
from sweeps.report.page import Findings, write_report
from sweeps.verdict.compare import RunScores
from sweeps.verdict.margin import margin
from sweeps.verdict.verdict import verdict

DEV_S = 240.0
OFFLINE = (
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--virtual-time-budget=10000",
)  # it would load itself again after 30 s
SPACE = {"lr_peak": Dimension(low=1e-4, high=1e-1, log=True), "mask_time_prob": Dimension(low=0.0, high=0.5)}


class Seen(HTMLParser):
    """What a browser would find: rows of cells, charts, texts and whatever it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.lines: list[list[str]] = []
        self.charts: list[dict[str, Any]] = []
        self.labels: list[str] = []
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.script: str | None = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if found.get("role") == "group":
            self.labels.append(found["aria-label"] or "")
        if tag == "script":
            self.script = found.get("type", "")
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")
        self.loaded += [found[name] or "" for name in ("src", "href") if name in found]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "script":
            self.script = None

    def handle_data(self, data: str) -> None:
        if self.script is not None:
            if self.script == "application/json":
                self.charts.append(json.loads(data))
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.lines[-1][-1] += data

    def line(self, first: str) -> list[str]:
        return next(line for line in self.lines if line[:1] == [first])


@pytest.mark.parametrize("rank_by", ["blend", "predicted", "loss", "wer"])
def test_who_stopped_is_counted_whatever_a_rung_ranks_by(rank_by: RankBy, tmp_path: Path) -> None:
    sweep = Sweep([300.0], rank_by=rank_by)
    sweep.rule.predict = lambda trials: {trial: float(trial[1:]) for trial in trials}
    for n in range(4):
        sweep.trial(f"t{n:03d}", [(0.9 + 0.01 * n, 1.0 + n), (0.5, 0.5)], "baseline" if n == 0 else "search")
    (only,) = rung_rows(sweep.state)
    assert (only.ranked, only.stopped) == (4, {rank_by: 3})
    page = write_report(SweepConfig(), sweep.state, tmp_path, Findings(), dev_s=None).read_text()
    assert FIGURES[rank_by] in page


def test_the_page_tells_all_and_loads_nothing(tmp_path: Path) -> None:
    state = a_sweep(30).state
    found = a_verdict(state)
    config = SweepConfig(budget={"price_per_hour": 2.5})  # type: ignore[arg-type]
    test = {found.winner: {"wer": 0.1234, "cer": 0.03}}
    stopped = "3 trials; the chance that one of them would have had a lower dev WER: about 4 %"
    file = write_report(config, state, tmp_path, Findings(found, test, stopped=stopped), dev_s=DEV_S)
    assert [one.name for one in tmp_path.iterdir()] == [file.name] == [REPORT_FILE]
    seen = Seen(file.read_text(encoding="utf-8"))
    assert not seen.open
    assert seen.loaded == [], "it stands by itself"
    assert len(seen.charts) == len(seen.labels) > 5 and all(len(label) > 40 for label in seen.labels)
    assert stopped in seen.text
    assert found.sentences()[0] in seen.text and "python -m sweeps.replay --sweep demo" in seen.text
    assert "CPU-hours" in seen.line("spent")[1] and "at 2.5 an hour" in seen.line("spent")[1]
    assert "0.123" in seen.line(found.winner)
    header = max((line for line in seen.lines if line[0] == "trial"), key=len)
    by_id = {line[0]: dict(zip(header, line, strict=False)) for line in seen.lines if re.match(r"t\d{3}", line[0])}
    assert set(by_id) >= set(state.trials)
    best = state.best()
    assert best is not None and best.best is not None
    assert by_id[best.id]["WER"] == f"{best.best['wer']:.3f}"
    assert "hours" in by_id[best.id]["Pareto front"]  # nothing has a lower WER, whatever it took
    assert by_id["t007"]["state"] == "failed" and by_id["t007"]["reason"] == "diverged: eval loss is nan"
    assert by_id["t000-s2"]["source"] == "finalist of t000"


def test_with_one_seed_each_the_page_says_so_and_gives_no_chance_to_be_the_best(tmp_path: Path) -> None:
    state = a_sweep(12).state
    words = np.full(60, 8)
    models = [
        RunScores(trial.of, trial.id, 1, np.random.default_rng(number).binomial(words, 0.1), words)
        for number, trial in enumerate(trial for trial in state.finalists if trial.id.endswith("-s1"))
    ]
    found = verdict(models, "t000", speakers=[""] * 60)
    other = next(one.setting for one in found.standings if one.setting != found.winner)
    on_test = margin(models, found.winner, other, speakers=[""] * 60)
    found = found.with_test(on_test)
    file = write_report(SweepConfig(), state, tmp_path, Findings(found), dev_s=DEV_S)
    page = file.read_text(encoding="utf-8")
    assert on_test.sentence() in page and "one seed cannot tell which is better" in page
    assert "On test, " in page and "P(best)" not in page and "too close to call" not in page


def test_a_sweep_of_one_trial_and_one_without_any(tmp_path: Path) -> None:
    sweep = Sweep([])
    write_report(SweepConfig(), sweep.state, tmp_path, Findings(), dev_s=None)
    assert "no trial has been scored" in (tmp_path / REPORT_FILE).read_text(encoding="utf-8")
    sweep.trial("t000", [(0.0, 0.1)], "baseline", settings={"base": "<script>"})
    write_report(SweepConfig(), sweep.state, tmp_path, Findings(), dev_s=None)
    page = (tmp_path / REPORT_FILE).read_text(encoding="utf-8")
    assert "lowest dev WER t000 0.000, on one seed and without finalists" in page
    assert "no rungs" in page and "&lt;script&gt;" in page and "\\u003cscript" in page, "settings are no code"
    assert len(Seen(page).charts) > 2


def test_all_diverged_is_a_page_too(tmp_path: Path) -> None:
    sweep = Sweep([300.0])
    sweep.trial("t000", [(1.0, math.nan)], "baseline", diverges=True)
    write_report(SweepConfig(), sweep.state, tmp_path, Findings(), dev_s=DEV_S)
    assert Seen((tmp_path / REPORT_FILE).read_text(encoding="utf-8")).line("t000")[1] == "diverged: eval loss is nan"


def test_of_a_thousand_trials_some_are_drawn_and_all_are_listed(tmp_path: Path) -> None:
    state = a_sweep(1_000).state
    drawn = chosen_curves(state)
    assert len(drawn) == MOST_CURVES == len({trial.id for trial in drawn})
    assert drawn[-1] is state.best() and state.baseline() in drawn
    assert {trial.state for trial in drawn} == {"finished", "pruned", "failed"}
    write_report(SweepConfig(), state, tmp_path, Findings(), dev_s=DEV_S)
    page = (tmp_path / REPORT_FILE).read_text(encoding="utf-8")
    assert len(page) < 15_000_000
    assert "60 of 1,000 trials are drawn" in page
    assert all(f"<td>{name}</td>" in page for name in state.trials)


@needs_browser
def test_a_browser_draws_every_chart_from_disk(tmp_path: Path) -> None:
    state = a_sweep(40).state
    file = write_report(SweepConfig(space=SPACE), state, tmp_path, Findings(a_verdict(state)), dev_s=DEV_S, live=True)
    html = page(file.as_uri(), tmp_path / "browser", *OFFLINE)
    drawn = len(re.findall('class="chart js-plotly-plot"', html))
    assert drawn == html.count('role="group"') > 5, "every one"
    for words in ("turning point", "baseline, t000", "the same trials, none stopped", "loads itself again"):
        assert words in html, words

"""The report's figures and its page, made from events as a sweep writes them."""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hausa_asr.settings.sweep import ResourceSettings, SweepConfig
from sweeps.pruning.rule import FIGURES, RankBy, Rule, Score
from sweeps.record.names import REPORT_FILE
from sweeps.record.state import State
from sweeps.report.figures import front, rung_rows, trial_rows
from sweeps.report.page import write_report
from sweeps.report.pictures import MOST_CURVES, chosen_curves
from sweeps.verdict.compare import RunScores
from sweeps.verdict.margin import margin
from sweeps.verdict.verdict import Verdict, verdict

DEV_S = 240.0


class Sweep:
    """Feeds a state with the events of a sweep whose trials run one after another."""

    def __init__(self, marks: list[float], reduction: int = 2, rank_by: RankBy = "auto") -> None:
        self.state, self.now = State(), 1_000.0
        self.rule = Rule(marks, reduction, rank_by)
        self.write("sweep", name="demo", prepared="/data/demo", rungs=marks)
        self.write("opened", run_id="parent", slots=1)

    def write(self, event: str, **fields: Any) -> None:
        self.state.apply({"event": event, "time": self.now, **fields})

    def trial(
        self, name: str, curve: list[tuple[float, float]], source: str = "search", of: str = "",
        settings: dict[str, Any] | None = None, diverges: bool = False, eval_s: float = 2.4,
    ) -> None:  # fmt: skip
        """One trial by its (WER, loss) at each 300 s of audio; each takes 10 s."""
        self.write("proposed", trial=name, settings=settings or {"lr_peak": 1e-3}, source=source, of=of)
        self.write("started", trial=name)
        best: dict[str, float] = {}
        for step, (wer, loss) in enumerate(curve, start=1):
            self.now += 10
            metrics = {"wer": wer, "cer": wer / 3, "loss": loss, "eval_runtime_s": eval_s}
            if not best or wer < best["wer"]:
                best = {"step": step, "wer": wer, "cer": wer / 3, "loss": loss}
            last, seen_s = step == len(curve), 300.0 * step
            self.write(
                "reported", trial=name, step=step, updates=len(curve), seen_s=seen_s, metrics=metrics, best=best,
                last=last, diverged=diverges and last,
            )  # fmt: skip
            if of or last:
                continue
            for rung in self.rule.due(name, seen_s, 0.0):
                scored = Score(loss, wer, wer / 3, wer < 0.9)
                self.rule.record(rung, name, scored)
                ranking = self.rule.rank(rung, name)
                passed = ranking.passed or source == "baseline"
                decision = {**asdict(ranking), "passed": passed, "scored": asdict(scored)}
                self.write("ranked", trial=name, rung=rung, seen_s=seen_s, **decision)
                if not passed:
                    reason = f"{ranking.metric} {ranking.value:.4f} is number {ranking.place} of {ranking.cohort}"
                    self.write("ended", trial=name, state="pruned", reason=reason)
                    return
        if diverges:
            self.write("ended", trial=name, state="failed", reason="diverged", detail="eval loss is nan")
        else:
            self.write("ended", trial=name, state="finished", reason="")


def a_curve(final: float, turns_at: int, length: int = 15) -> list[tuple[float, float]]:
    """WER near 1 up to the turning point, then down to `final`; the loss falls before."""
    points = []
    for step in range(1, length + 1):
        behind = max(0, step - turns_at)
        points.append(
            (final + (1.03 - final) * math.exp(-behind / 2.0), final / 2 + 12 * math.exp(-2 * step / turns_at))
        )
    return points


def a_sweep(trials: int) -> Sweep:
    """A search of `trials` trials, some of them diverged, then runs of two finalists and of the baseline."""
    draw = np.random.default_rng(0)
    sweep = Sweep([1_350.0, 2_700.0])
    sweep.trial("t000", a_curve(0.18, 6), "baseline", settings={"lr_peak": 7.5e-4, "schedule": "linear"})
    for number in range(1, trials):
        lr = float(10 ** draw.uniform(-3.5, -2))
        off = abs(math.log10(lr) + 2.8)
        settings = {
            "lr_peak": lr, "warmup_fraction": float(draw.uniform(0.02, 0.3)), "schedule": "tri_stage",
            "mask_time_prob": float(draw.uniform(0, 0.5)), "mask_time_length": 5,
        }  # fmt: skip
        curve = a_curve(0.1 + 0.15 * off + 0.02 * draw.random(), 2 + int(8 * off + 2 * draw.random()))
        if number % 10 == 7:
            sweep.trial(f"t{number:03d}", [*curve[:2], (1.0, math.nan)], settings=settings, diverges=True)
        else:
            seconds = float(draw.normal(2.4, 0.2))
            sweep.trial(f"t{number:03d}", curve, settings=settings, eval_s=seconds)
    finalists = [*(trial.id for trial in sweep.state.ranking() if trial.id != "t000")][:2]
    for seed in (1, 2, 3):
        for name in ["t000", *finalists]:
            sweep.trial(f"{name}-s{seed}", a_curve(0.12, 4), "finalist", of=name, settings={"seed": seed})
    return sweep


def a_verdict(state: State) -> Verdict:
    draw = np.random.default_rng(0)
    words = draw.integers(4, 12, 200)
    models = []
    for trial in state.finalists:
        wer = draw.normal(0.18 if trial.of == "t000" else 0.11, 0.01)
        models.append(RunScores(trial.of, trial.id, trial.settings["seed"], draw.binomial(words, wer), words))
    return verdict(models, "t000", speakers=[f"s{number % 12}" for number in range(200)])


class Seen(HTMLParser):
    """What a browser would find: rows of cells, pictures, texts and whatever it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.lines: list[list[str]] = []
        self.pictures: list[dict[str, str | None]] = []
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "img":
            self.pictures.append(found)
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")
        self.loaded += [found[name] or "" for name in ("src", "href") if name in found]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.lines[-1][-1] += data

    def line(self, first: str) -> list[str]:
        return next(line for line in self.lines if line[:1] == [first])


def test_the_front_is_what_nothing_dominates() -> None:
    assert front([]) == set()
    assert front([(1, 5), (2, 3), (3, 4), (4, 1), (2, 3), (4, 2), (1, 6)]) == {0, 1, 3, 4}
    assert front([(math.nan, 0.0), (1.0, math.inf), (5.0, 5.0)]) == {2}
    draw = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in draw.integers(0, 8, (60, 2))]
    by_definition = {
        number
        for number, (x, y) in enumerate(points)
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points)
    }
    assert front(points) == by_definition


def test_rows_tell_hours_speed_and_fronts() -> None:
    sweep = Sweep([])
    sweep.trial("t000", [(0.9, 1.0), (0.5, 0.5)], "baseline")
    sweep.trial("t001", [(0.6, 1.0)], eval_s=1.2)
    sweep.trial("t002", [(0.7, 1.0), (0.55, 0.5)])
    sweep.trial("t000-s1", [(0.4, 0.4)], "finalist", of="t000")
    sweep.write("proposed", trial="t003", settings={}, source="search")
    sweep.trial("t004", [(1.0, 1.0)], eval_s=0.1)  # the quickest, and it hears nothing
    made = trial_rows(sweep.state, ResourceSettings(workers_per_trial=2, gpus_per_worker=0.5, cpus_per_worker=4), DEV_S)
    assert [row.trial.id for row in made] == ["t000", "t002", "t001", "t004", "t003", "t000-s1"]
    found = {row.trial.id: row for row in made}
    assert found["t000"].hours == pytest.approx(20 / 3600)  # two workers of half a GPU
    assert found["t001"].real_time_factor == pytest.approx(1.2 / DEV_S)
    assert found["t003"].real_time_factor is None
    assert {name for name, row in found.items() if row.on_hours} == {"t000", "t001"}  # a finalist is on none
    assert {name for name, row in found.items() if row.on_speed} == {"t000", "t001"}
    cpu = trial_rows(sweep.state, ResourceSettings(workers_per_trial=2, cpus_per_worker=4), None)
    assert cpu[0].hours == pytest.approx(8 * 20 / 3600)
    assert {row.real_time_factor for row in cpu} == {None}


def test_rungs_count_who_stopped_by_what() -> None:
    sweep = Sweep([300.0, 600.0])
    sweep.trial("t000", [(1.0, 1.0), (0.5, 0.5), (0.4, 0.4)], "baseline")
    sweep.trial("t001", [(1.0, 2.0), (0.6, 0.9)])
    sweep.trial("t002", [(1.0, 0.9), (0.6, 0.1), (0.5, 0.1)])  # a better loss, a worse WER
    sweep.trial("t003", [(1.0, 3.0), (0.6, 0.9)])
    first, second = rung_rows(sweep.state)
    assert (first.at_s, first.ranked, first.stopped) == (300.0, 4, {"loss": 2})
    assert (second.ranked, second.stopped) == (2, {"wer": 1})


@pytest.mark.parametrize("rank_by", ["blend", "predicted", "loss", "wer"])
def test_who_stopped_is_counted_whatever_a_rung_ranks_by(rank_by: RankBy, tmp_path: Path) -> None:
    sweep = Sweep([300.0], rank_by=rank_by)
    sweep.rule.predict = lambda trials: {trial: float(trial[1:]) for trial in trials}
    for n in range(4):
        sweep.trial(f"t{n:03d}", [(0.9 + 0.01 * n, 1.0 + n), (0.5, 0.5)], "baseline" if n == 0 else "search")
    (only,) = rung_rows(sweep.state)
    assert (only.ranked, only.stopped) == (4, {rank_by: 3})
    page = write_report(SweepConfig(), sweep.state, tmp_path, verdict=None, dev_s=None).read_text()
    assert FIGURES[rank_by] in page


def test_the_page_tells_all_and_loads_nothing(tmp_path: Path) -> None:
    state = a_sweep(30).state
    found = a_verdict(state)
    config = SweepConfig(budget={"price_per_hour": 2.5})  # type: ignore[arg-type]
    test = {found.winner: {"wer": 0.1234, "cer": 0.03}}
    stopped = "3 trials; the chance that one of them would have had a lower dev WER: about 4 %"
    file = write_report(config, state, tmp_path, verdict=found, dev_s=DEV_S, test=test, stopped=stopped)
    assert [one.name for one in tmp_path.iterdir()] == [file.name] == [REPORT_FILE]
    seen = Seen(file.read_text(encoding="utf-8"))
    assert not seen.open
    assert all(source.startswith("data:image/png;base64,") for source in seen.loaded)
    assert not re.search(r"url\(|@import|https?:", file.read_text(encoding="utf-8"))
    assert len(seen.pictures) == 3 and all(len(picture["alt"] or "") > 40 for picture in seen.pictures)
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
    file = write_report(SweepConfig(), state, tmp_path, verdict=found, dev_s=DEV_S)
    page = file.read_text(encoding="utf-8")
    assert on_test.sentence() in page and "one seed cannot tell which is better" in page
    assert "On test, " in page and "P(best)" not in page and "too close to call" not in page


def test_a_sweep_of_one_trial_and_one_without_any(tmp_path: Path) -> None:
    sweep = Sweep([])
    write_report(SweepConfig(), sweep.state, tmp_path, verdict=None, dev_s=None)
    assert "no trial has been scored" in (tmp_path / REPORT_FILE).read_text(encoding="utf-8")
    sweep.trial("t000", [(0.0, 0.1)], "baseline", settings={"name": "<script>"})
    write_report(SweepConfig(), sweep.state, tmp_path, verdict=None, dev_s=None)
    page = (tmp_path / REPORT_FILE).read_text(encoding="utf-8")
    assert "lowest dev WER t000 0.000, on one seed and without finalists" in page
    assert "no rungs" in page and "<script>" not in page


def test_all_diverged_is_a_page_too(tmp_path: Path) -> None:
    sweep = Sweep([300.0])
    sweep.trial("t000", [(1.0, math.nan)], "baseline", diverges=True)
    write_report(SweepConfig(), sweep.state, tmp_path, verdict=None, dev_s=DEV_S)
    assert Seen((tmp_path / REPORT_FILE).read_text(encoding="utf-8")).line("t000")[1] == "diverged: eval loss is nan"


def test_of_a_thousand_trials_some_are_drawn_and_all_are_listed(tmp_path: Path) -> None:
    state = a_sweep(1_000).state
    drawn = chosen_curves(state)
    assert len(drawn) == MOST_CURVES == len({trial.id for trial in drawn})
    assert drawn[-1] is state.best() and state.baseline() in drawn
    assert {trial.state for trial in drawn} == {"finished", "pruned", "failed"}
    write_report(SweepConfig(), state, tmp_path, verdict=None, dev_s=DEV_S)
    page = (tmp_path / REPORT_FILE).read_text(encoding="utf-8")
    assert len(page) < 3_000_000
    assert "60 of 1,000 trials are drawn" in page
    assert all(f"<td>{name}</td>" in page for name in state.trials)

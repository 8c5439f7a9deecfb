"""The replay: rules, clock and floor on made-up curves with known answers, and stock rules against Ray's own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ray.tune.schedulers import MedianStoppingRule, TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket
from typer.testing import CliRunner

from hausa_asr.errors import UserError
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.settings.sweep import PruningSettings
from hausa_asr.tracking.tracker import MetricsRow, Tracker
from sweeps.pruning.rule import Point
from sweeps.pruning.rungs import ready_s
from sweeps.replay.__main__ import app
from sweeps.replay.compare import Replays, Resamples, Setup, compare
from sweeps.replay.curves import Curve, draw, of_sweep, phases, read, steady
from sweeps.replay.rules import RULES, Median, Options, StockAsha, named_rule, percentile
from sweeps.replay.savings import in_words, savings
from sweeps.replay.simulate import floor_s, simulate, timeline

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # MLflow's own
LENGTH_S = 1000.0
RECIPE = {"length_s": LENGTH_S, "warmup_fraction": 0.1, "freeze_transformer_fraction": 0.0, "unfreeze": "all"}


def curve(name: str, wers: list[float], losses: list[float] | None = None, source: str = "random") -> Curve:
    """Evenly spaced points, 10 s of training each and 1 s per evaluation."""
    losses = losses or wers
    seen = [LENGTH_S * (n + 1) / len(wers) for n in range(len(wers))]
    points = tuple(Point(s, loss, wer, wer / 3) for s, loss, wer in zip(seen, losses, wers, strict=True))
    train_s = tuple(10.0 * (n + 1) for n in range(len(wers)))
    return Curve(name, source, LENGTH_S, 100.0, 0.0, 0.0, 0.01, points, train_s, 1.0)


def options(**pruning: object) -> Options:
    return Options(LENGTH_S, 500.0, PruningSettings.model_validate({"reduction": 2, "first_rung": 0.25, **pruning}))


def run(label: str, curves: list[Curve], workers: int = 1, **pruning: object):
    new_rule = named_rule(label, options(**pruning)).new_rule()
    return simulate(new_rule, [timeline(one, new_rule.marks, 0.25) for one in curves], workers)


def crossing() -> list[Curve]:
    """Eight settings, better and better; on the plateau the good ones insert letters, so their WER is the higher."""
    return [
        curve(str(n), [1.0 + 0.005 * n, 0.9 - 0.05 * n, 0.8 - 0.08 * n, 0.7 - 0.08 * n], [4 - 0.2 * n, 2, 1.5, 1.2])
        for n in range(8)
    ]


def made_up(count: int, seed: int) -> list[list[Curve]]:
    """Random settings: a plateau, then a fall to a WER of their own; the first three on two seeds."""
    rng = np.random.default_rng(seed)
    settings = []
    for number in range(count):
        seeds = []
        for _ in range(2 if number < 3 else 1):
            end, leaves = rng.uniform(0.1, 0.5), rng.integers(2, 6)
            wers = [min(1.0, end + math.exp(leaves - n)) + rng.normal(0, 0.01) for n in range(12)]
            losses = [wer * 2 + rng.normal(0, 0.05) + end for wer in wers]
            seeds.append(curve(str(number), wers, losses, "baseline" if number == 0 else "random"))
        settings.append(seeds)
    return settings


# -- rules -----------------------------------------------------------------------------------------------------------


def test_wer_stops_the_good_ones_on_the_plateau_and_loss_keeps_them() -> None:
    by_wer, by_loss, ours = (run(name, crossing()) for name in ("asha_wer_2", "asha_loss", "ours"))
    assert {5, 6, 7} <= by_wer.stopped
    assert 7 not in by_loss.stopped and 7 not in ours.stopped
    assert min(wer for _, wer in ours.incumbents) == pytest.approx(0.14)
    assert min(wer for _, wer in by_wer.incumbents) > 0.5


def test_a_paused_trial_is_promoted_once_the_cohort_lets_it_pass() -> None:
    figures = [(2.2, 0.2), (2.3, 0.1), (2.6, 0.6), (2.5, 0.5)]  # eval loss at the rung, WER in the end
    curves = [curve(str(n), [1.0, 0.9, 0.8, wer], [3, loss, 2, 1]) for n, (loss, wer) in enumerate(figures)]
    done = run("ours", curves, rank_by="loss", first_rung=0.5)
    # At the rung: 0 waits for somebody to be compared with, and passes when 1 is there; 1 passes when there are four.
    assert done.stopped == {2, 3}
    # 22 s to the rung, as much after it. Trial 1 goes on after all four have come there and 0 has come to its end.
    assert done.work_s == 4 * 22 + 2 * 22
    assert done.incumbents[-1] == (4 * 22 + 22 + 22, 0.1)
    assert run("asha_loss", curves, first_rung=0.5).stopped == {1, 2, 3}


def test_one_epoch_trains_the_best_tenth_to_the_end() -> None:
    curves = [curve(str(n), [1.0, 0.9 - 0.01 * n, 0.5, 0.3]) for n in range(15)]
    done = run("one_epoch", curves, workers=4)
    assert done.stopped == set(range(13))
    assert done.work_s == 15 * 22 + 2 * 22


def test_the_baseline_is_never_stopped() -> None:
    bad = curve("bad", [1.0, 1.0, 1.0, 1.0], [9, 9, 9, 9], source="baseline")
    for name in RULES:
        assert 0 not in run(name, [bad, *crossing()], workers=2).stopped, name


def test_stock_asha_decides_as_ray_does() -> None:
    rng = np.random.default_rng(0)
    for reduction in (2, 3, 4):
        ray_own = _Bracket(100, 1000, reduction, 0)
        marks = sorted(mark for mark, _ in ray_own._rungs)
        ours = StockAsha("loss", marks, reduction)
        curves: dict[int, list[Point]] = {}
        for _ in range(600):
            trial = int(rng.integers(120))
            before = curves.setdefault(trial, [])
            seen_s = (before[-1].seen_s if before else 0.0) + float(rng.uniform(20, 300))
            before.append(Point(seen_s, round(float(rng.normal()), 1), 0.5, 0.5))  # rounded: ties must be met
            expected = ray_own.on_result(type("T", (), {"trial_id": trial}), seen_s, -before[-1].loss)
            assert ours.decide(trial, before, 0.0) == ("stop" if expected == TrialScheduler.STOP else "go")


def test_the_percentile_is_numpys_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    for size in range(1, 60):
        values = np.sort(rng.normal(size=size))
        for reduction in (2, 3, 4, 5):
            percent = (1 - 1 / reduction) * 100
            assert percentile(values.tolist(), percent) == np.nanpercentile(values, percent)


class TuneTrial:
    """As much of a Tune trial as the median rule looks at."""

    def __init__(self, number: int) -> None:
        self.trial_id, self.status = str(number), "PENDING"


class TuneController:
    def get_live_trials(self) -> list[TuneTrial]:
        return [TuneTrial(999)]


def test_the_median_rule_decides_as_ray_does() -> None:
    rng = np.random.default_rng(0)
    stock = MedianStoppingRule("seen_s", "wer", "min", grace_period=200, min_samples_required=3)
    ours = Median(200.0)
    ours.resume([], [], 60)  # settings are left that have not begun
    trials, curves = {n: TuneTrial(n) for n in range(40)}, {n: [] for n in range(40)}
    decisions = []
    for _ in range(400):
        number = int(rng.integers(40))
        seen_s = 100.0 * (len(curves[number]) + 1)
        curves[number].append(Point(seen_s, 1.0, float(rng.uniform(0.1, 1)), 0.5))
        result = {"seen_s": seen_s, "wer": curves[number][-1].wer}
        expected = stock.on_trial_result(TuneController(), trials[number], result)  # type: ignore[arg-type]
        stock._stopped_trials.clear()
        decision = ours.decide(number, curves[number], 0.0)
        decisions.append(decision)
        assert decision == {"CONTINUE": "go", "PAUSE": "pause", "STOP": "stop"}[expected]
    assert set(decisions) == {"go", "pause", "stop"}


@pytest.mark.parametrize("label", ["best", "ours:reduction=1", "ours:first_rung=x", "ours:audit_share=0.1"])
def test_a_rule_that_cannot_be_is_refused(label: str) -> None:
    with pytest.raises(UserError):
        named_rule(label, options())


# -- clock and floor -------------------------------------------------------------------------------------------------


def test_the_clock_counts_training_and_the_evaluations_that_a_sweep_makes() -> None:
    eight = curve("a", [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    # 8 points recorded, 4 evaluations made, and one more at the rung that falls between them.
    assert timeline(eight, (), 0.25).at_s == (21, 42, 63, 84)
    assert timeline(eight, (300.0,), 0.25).at_s == (21, 32, 43, 64, 85)
    assert timeline(eight, (), 0).at_s == tuple(11 * (n + 1) for n in range(8))
    two = [eight, replace(eight, name="b")]
    new_rule = named_rule("full", options()).new_rule()
    one_worker = simulate(new_rule, [timeline(one, (), 0.25) for one in two], 1, gap_s=5.0)
    assert (one_worker.end_s, one_worker.work_s) == (2 * 89, 2 * 89)
    assert one_worker.incumbents == [(26, 0.9), (47, 0.7), (68, 0.5), (89, 0.3)]
    side_by_side = simulate(new_rule, [timeline(one, (), 0.25) for one in two], 2)
    assert (side_by_side.end_s, side_by_side.work_s) == (84, 168)
    assert one_worker.wer_at(50) == 0.7 and one_worker.wer_at(1) == 1.0
    assert one_worker.reached_s(0.6) == 68 and one_worker.reached_s(0.1) == math.inf


def test_the_floor_by_hand() -> None:
    curves = [curve(str(n), [1.0, 0.9, 0.8, 0.7]) for n in range(3)] + [curve("good", [1.0, 0.9, 0.2, 0.1])]
    timelines = [timeline(one, (), 0.25) for one in curves]
    # Three settings of 11 s to the first rung, then 33 s until the good one is under 0.3.
    assert floor_s(timelines, 1, 250.0, 0.3) == 3 * 11 + 33
    assert floor_s(timelines, 3, 250.0, 0.3) == 11 + 33
    assert floor_s(timelines, 1, math.inf, 0.3) == 3 * 44 + 33
    kept = [replace(timelines[0], kept=True), *timelines[1:]]
    assert floor_s(kept, 1, 250.0, 0.3) == 44 + 2 * 11 + 33


def test_no_rule_is_faster_than_its_floor_and_full_is_at_it() -> None:
    replays = Replays(made_up(30, 1), Setup(20))
    named = [named_rule(name, options(first_rung=0.3)) for name in RULES]
    for workers in (1, 5):
        comparison = compare(replays, named, workers)
        for one in named:
            assert (comparison.target_s[one.label] >= comparison.floors_s[one.label] - 1e-9).all(), one.label
        assert comparison.target_s["full"] == pytest.approx(comparison.floors_s["full"])
        assert comparison.figures["ours"].floor_vs_full.mean < 0.8


# -- replays ---------------------------------------------------------------------------------------------------------


def test_replays_are_paired_and_differ() -> None:
    settings = made_up(12, 0)
    orders = [draw(settings, 7, replay) for replay in range(30)]
    assert all(order[0].source == "baseline" for order in orders)
    assert all(sorted(one.name for one in order) == sorted(map(str, range(12))) for order in orders)
    assert len({tuple(one.name for one in order) for order in orders}) == 30
    assert {id(order[0]) for order in orders} == {id(one) for one in settings[0]}  # both seeds are drawn
    assert orders == [draw(settings, 7, replay) for replay in range(30)]
    assert orders != [draw(settings, 8, replay) for replay in range(30)]


def test_a_rule_that_never_gets_there_pays_for_a_second_sweep() -> None:
    replays = Replays([[one] for one in crossing()], Setup(10))
    named = [named_rule(name, options()) for name in ("full", "asha_loss", "asha_wer_2", "ours")]
    comparison = compare(replays, named, 8)
    runs, target_s = comparison.simulations["asha_wer_2"], comparison.target_s
    lost = [not math.isfinite(r.reached_s(t)) for r, t in zip(runs, comparison.targets, strict=True)]
    assert any(lost)
    for missed, run_, time_s, full_s in zip(lost, runs, target_s["asha_wer_2"], target_s["full"], strict=True):
        assert not missed or time_s == run_.end_s + full_s
    assert comparison.figures["asha_wer_2"].reached == 1 - sum(lost) / 10
    assert comparison.figures["full"].top_stopped.mean == 0


def test_a_paired_ratio_knows_that_hard_replays_are_hard_for_both() -> None:
    hard = np.random.default_rng(0).uniform(10, 1000, 200)
    ratio = Resamples(200, 0).ratio(0.8 * hard, hard)
    assert (ratio.low, ratio.mean, ratio.high) == pytest.approx((0.8, 0.8, 0.8))


def test_one_pace_takes_the_machine_out_but_leaves_frozen_stretches_fast() -> None:
    wers = [1.0, 0.8, 0.5, 0.3]
    base = replace(curve("a", wers), frozen_s=500.0, free_s=500.0, train_s=(2.0, 4.0, 14.0, 24.0))
    busy = replace(base, name="b", train_s=(6.0, 12.0, 42.0, 72.0), eval_s=3.0)
    settings = steady([[base], [base], [busy]])
    assert settings[0][0].train_s == settings[2][0].train_s == pytest.approx((2.0, 4.0, 14.0, 24.0))
    assert settings[2][0].eval_s == 1.0


def test_a_curve_is_ready_when_the_sweep_says_so() -> None:
    for unfreeze in ("all", "top_down"):
        for warmup, freeze in ((0.1, 0.25), (0.3, 0.1), (0.3, 0.0)):
            recipe = {
                "length_s": 500.0,
                "warmup_fraction": warmup,
                "freeze_transformer_fraction": freeze,
                "unfreeze": unfreeze,
            }
            assert phases(recipe)["ready_s"] == ready_s(FinetuneConfig(**recipe))  # type: ignore[arg-type]


# -- the command -----------------------------------------------------------------------------------------------------


def line(one: Curve, number: int, seed: int) -> str:
    columns = {name: [getattr(p, name) for p in one.points] for name in ("seen_s", "loss", "wer", "cer")}
    points = {**columns, "train_s": one.train_s, "eval_s": [1.0 * (n + 1) for n in range(len(one.points))]}
    values = {"number": number, "seed": seed, "source": one.source, "recipe": RECIPE, "wer_se": 0.01, "points": points}
    return json.dumps(values) + "\n"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    settings = made_up(15, 3)
    lines = [line(one, n, seed) for n, seeds in enumerate(settings) for seed, one in enumerate(seeds)]
    (tmp_path / "curves.jsonl").write_text("".join(lines), encoding="utf-8")
    return tmp_path / "curves.jsonl"


def test_curves_are_read_as_recorded_and_a_torn_line_is_left_out(recorded: Path) -> None:
    whole = recorded.read_text()
    recorded.write_text(whole + '{"number": 15, "seed"')
    settings = read(recorded)
    assert [len(seeds) for seeds in settings] == [2, 2, 2] + [1] * 12
    assert settings[0][0].source == "baseline" and settings[0][0].ready_s == 100.0 and settings[0][0].eval_s == 1.0
    recorded.write_text('{"number": 15}\n' + whole)
    with pytest.raises(UserError, match="no recorded curve"):
        read(recorded)


def test_the_command_writes_table_picture_and_figures(recorded: Path, tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "out.json"), "--picture", str(tmp_path / "out.png")]
    asked = ["--curves", str(recorded), "--replays", "20", "--workers", "1,4"]
    more = ["--rule", "ours:reduction=4", "--rule", "median"]
    done = CliRunner().invoke(app, [*asked, *files, *more])
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "out.json").read_text())
    keys = {"time_vs_random", "time_vs_loss_asha", "time_vs_loss_asha_high", "top_decile_stopped", "floor_vs_random"}
    assert all(isinstance(figures[key], float) for key in keys)
    assert figures["floor_vs_random"] <= figures["time_vs_random"] < 1
    assert figures["time_vs_loss_asha_low"] <= figures["time_vs_loss_asha"] <= figures["time_vs_loss_asha_high"]
    assert (figures["workers"], figures["settings"], figures["curves"], figures["replays"]) == (4, 15, 18, 20)
    assert {"full", "ours", "ours:reduction=4", "asha_loss:reduction=4", "median"} <= set(figures["rules"])
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert "ours:reduction=4" in done.output and "4 workers" in done.output
    again = tmp_path / "again.json"
    CliRunner().invoke(app, [*asked, *more, "--json", str(again)])
    assert json.loads(again.read_text()) == figures


def test_what_cannot_be_replayed_is_said_in_words(tmp_path: Path) -> None:
    for arguments in (["--curves", str(tmp_path / "none")], ["--workers", "0"], ["--first-rung", "2"]):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2 and "Traceback" not in done.output


def test_help_does_not_wait_for_the_heavy_packages() -> None:
    heavy = ["torch", "ray", "mlflow", "optuna", "matplotlib"]
    code = f"import sys, sweeps.replay.__main__; print([n for n in {heavy} if n in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=root)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_replay_draws_as_many_settings_as_a_search_tries_and_some_numbers_can_be_held_out(tmp_path: Path) -> None:
    settings = made_up(30, 1)
    drawn = [draw(settings, 0, replay, 12) for replay in range(20)]
    assert all(len(one) == 12 and one[0].source == "baseline" for one in drawn)
    assert len({curve.name for one in drawn for curve in one}) == 30
    file = tmp_path / "curves.jsonl"
    file.write_text((Path(__file__).parents[2] / "benchmarks/curves/demo.jsonl").read_text())
    assert {seeds[0].name for seeds in read(file, 10, 19)} == {"0", *(str(n) for n in range(10, 20))}
    assert {seeds[0].name for seeds in read(file, 110)} >= {"0", "110"}


# -- a sweep of one's own --------------------------------------------------------------------------------------------


def logged(uri: str, curves: list[Curve], states: list[str]) -> None:
    """A sweep in MLflow, as one that has run leaves it."""
    tracker = Tracker(uri, "mine")
    parent = tracker.start_sweep("my_sweep", {}, {})
    for one, state in zip(curves, states, strict=True):
        run_id = tracker.start_trial(parent, "my_sweep", one.name, RECIPE, {"source": one.source})
        rows = []
        for step, point in enumerate(one.points, start=1):
            figures = {"loss": point.loss, "wer": point.wer, "cer": point.cer, "seen_s": point.seen_s}
            rows.append(MetricsRow(step, 1000 * step, {**figures, "audio_s_per_s": 25.0, "eval_runtime_s": 1.0}))
        tracker.log(run_id, rows)
        tracker.end_trial(run_id, state, "", {})  # type: ignore[arg-type]
    tracker.end_sweep(parent, "finished", {}, {})


def test_a_finished_sweep_shows_what_pruning_would_have_saved(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    curves = [replace(one, name=f"t{n:03d}") for n, one in enumerate(reversed(crossing()))]
    logged(uri, curves, ["finished"] * 7 + ["pruned"])
    complete, left_out = of_sweep(Tracker.open(uri, "mine"), "my_sweep")
    assert [one.name for one in complete] == [f"t{n:03d}" for n in range(7)] and left_out == {"pruned": 1}
    assert complete[0].train_s == pytest.approx(curves[0].train_s) and complete[0].points == curves[0].points
    saved = savings(complete, options(rank_by="loss").pruning, workers=1, setup=Setup(50))
    # The best came first. Each after it lost at the first rung, and two more went on as the cohort grew.
    assert saved.winner == "t000" and saved.kept and saved.stopped == 4
    assert (saved.as_run_s, saved.with_rule_s) == pytest.approx((7 * 44, 3 * 44 + 4 * 11))
    assert saved.kept_share.mean == 1.0 and saved.with_rule_share.high < 1
    files = ["--json", str(tmp_path / "out.json"), "--sweep", "my_sweep", "--uri", uri, "--experiment", "mine"]
    done = CliRunner().invoke(app, [*files, "--replays", "20"])
    assert done.exit_code == 0, done.output
    assert "7 trials" in done.output and "1 pruned" in done.output and "kept" in done.output
    assert "a pruned trial might have won" in done.output
    assert json.loads((tmp_path / "out.json").read_text())["winner"] == "t000"


def test_a_replay_of_the_trials_that_are_left_is_not_called_the_sweep_as_it_ran() -> None:
    curves = [replace(one, name=f"t{n:03d}") for n, one in enumerate(reversed(crossing()))]
    saved = savings(curves, options(rank_by="loss").pruning, workers=1, setup=Setup(20))
    whole, rest, crashed = (in_words("s", saved, left_out, 1) for left_out in ({}, {"pruned": 3}, {"failed": 1}))
    assert "as run" in whole and "might have won" not in whole and "left out" not in whole
    assert "as run" not in rest and "without pruning" in rest and "a pruned trial might have won" in rest
    assert "without pruning" in crashed and "might have won" not in crashed


def test_too_few_finished_trials_are_refused(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    curves = [replace(one, name=f"t{n:03d}") for n, one in enumerate(crossing())]
    logged(uri, curves, ["finished"] * 4 + ["pruned"] * 4)
    with pytest.raises(UserError, match="4 of 8 trials"):
        of_sweep(Tracker.open(uri, "mine"), "my_sweep")

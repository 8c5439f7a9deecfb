"""The replay: rules, clock and floor on made-up curves with known answers, and stock rules against Ray's own."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ray.tune.schedulers import MedianStoppingRule, TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket

from hausa_asr.errors import UserError
from hausa_asr.recipe import FinetuneConfig
from helpers.curves import crossing, curve, made_up, options
from sweeps.pruning.rule import Point
from sweeps.pruning.rungs import ready_s
from sweeps.replay.compare import Replays, Setup, compare
from sweeps.replay.curves import Curve, draw, phases, read, steady
from sweeps.replay.rules import RULES, named_rule
from sweeps.replay.simulate import floor_s, simulate, timeline
from sweeps.replay.stock import Median, StockAsha, percentile

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # MLflow's own


def run(label: str, curves: list[Curve], workers: int = 1, **pruning: object):
    new_rule = named_rule(label, options(**pruning)).new_rule()
    return simulate(new_rule, [timeline(one, new_rule.marks, 0.25) for one in curves], workers)


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
    done = run("ours", curves, rank_by="loss", first_rung=0.5, finish_share=0.4)
    # At the rung 0 is alone and goes on; 1 waits, and passes when there are three.
    assert done.stopped == {2, 3}
    # 22 s to the rung, as much after it. Trial 1 goes on when 0 has come to its end, and 1 and 2 to the rung.
    assert done.work_s == 4 * 22 + 2 * 22
    assert done.incumbents[-1] == (44 + 22 + 22 + 22, 0.1)
    assert run("asha_loss", curves, first_rung=0.5).stopped == {1, 2, 3}


def test_a_diverged_trial_does_not_count_among_those_that_finish_as_in_a_sweep() -> None:
    falling = [1.0, 0.9, 0.6, 0.4]
    losses = ([3.0, 1.0, 0.9, 0.8], [math.nan] * 4, [3.0, 2.0, 1.5, 1.2], [3.0, 2.5, 2.0, 1.8])
    curves = [curve(str(number), falling, list(loss)) for number, loss in enumerate(losses)]
    done = run("ours", curves, rank_by="loss", reduction=4, first_rung=0.5, finish_share=0.5)
    # 0 finishes, 1 diverges, 2 and 3 wait. Half of all must finish, so the better of the two goes on.
    assert done.stopped == {1, 3}


def test_one_epoch_trains_the_best_tenth_to_the_end() -> None:
    curves = [curve(str(n), [1.0, 0.9 - 0.01 * n, 0.5, 0.3]) for n in range(15)]
    done = run("one_epoch", curves, workers=4)
    assert done.stopped == set(range(13))
    assert done.work_s == 15 * 22 + 2 * 22


def test_in_ours_the_baseline_comes_to_its_end_last() -> None:
    bad = curve("bad", [1.0, 1.0, 1.0, 1.0], [9, 9, 9, 9], source="baseline")
    curves = [bad, *(curve(str(n), [1.0, 0.9, 0.8, 0.7 - 0.01 * n]) for n in range(8))]
    timelines = [timeline(one, (), 0.25) for one in curves]
    for name in ("ours", "plain"):
        last = simulate(named_rule(name, replace(options(), baseline=True)).new_rule(), timelines, 2)
        first = simulate(named_rule(name, options()).new_rule(), timelines, 2)
        assert 0 not in last.stopped, name
        assert last.incumbents[-1][0] < first.incumbents[-1][0], "its time is not in the way"


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


def test_no_rule_is_faster_than_its_floor_and_full_is_at_it() -> None:
    replays = Replays(made_up(30, 1), Setup(20))
    named = [named_rule(name, options(first_rung=0.3)) for name in RULES]
    for workers in (1, 5):
        comparison = compare(replays, named, workers)
        for one in named:
            assert (comparison.target_s[one.label] >= comparison.floors_s[one.label] - 1e-9).all(), one.label
            assert (comparison.floors_s[one.label] >= comparison.least_s[one.label] - 1e-9).all(), one.label
        assert comparison.target_s["full"] == pytest.approx(comparison.floors_s["full"])
        assert comparison.figures["ours"].floor_vs_full.mean < 0.8
        assert 0 < comparison.figures["ours"].least_vs_full.mean < 0.9 * comparison.figures["ours"].floor_vs_full.mean


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


def test_a_replay_draws_as_many_settings_as_a_search_tries_and_some_numbers_can_be_held_out(tmp_path: Path) -> None:
    settings = made_up(30, 1)
    drawn = [draw(settings, 0, replay, 12) for replay in range(20)]
    assert all(len(one) == 12 and one[0].source == "baseline" for one in drawn)
    assert len({curve.name for one in drawn for curve in one}) == 30
    file = tmp_path / "curves.jsonl"
    file.write_text((Path(__file__).parents[2] / "benchmarks/curves/demo.jsonl").read_text())
    assert {seeds[0].name for seeds in read(file, 10, 19)} == {"0", *(str(n) for n in range(10, 20))}
    assert {seeds[0].name for seeds in read(file, 110)} >= {"0", "110"}

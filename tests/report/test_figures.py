"""The report's figures: fronts, rungs, the lowest WER over hours, where hours went, and importance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hausa_asr.settings.recipe import Dimension
from hausa_asr.settings.sweep import ResourceSettings, SweepConfig
from helpers.reported import Sweep
from sweeps.report.figures import front, rung_rows, trial_rows
from sweeps.report.progress import best_so_far, none_stopped, stock_asha, where_hours_went
from sweeps.report.searched import importances, settings_of
from sweeps.sampling.export import study_of_finished

DEV_S = 240.0


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
    made = trial_rows(sweep.state, ResourceSettings(workers_per_trial=2, gpus_per_worker=2, cpus_per_worker=4), DEV_S)
    assert [row.trial.id for row in made] == ["t000", "t002", "t001", "t004", "t003", "t000-s1"]
    found = {row.trial.id: row for row in made}
    assert found["t000"].hours == pytest.approx(4 * 20 / 3600)  # two workers of two GPUs
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


def test_the_lowest_wer_over_hours_with_and_without_stopping() -> None:
    sweep = Sweep([300.0], reduction=2)  # each 300 s of audio take 10 s
    sweep.trial("t000", [(0.9, 1.0), (0.5, 0.5)], "baseline")
    sweep.trial("t001", [(1.0, 2.0), (0.2, 0.1)])  # stopped at its first report
    sweep.trial("t002", [(0.8, 0.5), (0.4, 0.4)])
    ours = best_so_far(sweep.state, ResourceSettings())
    assert [(round(one.hours * 3600), one.wer, one.trial) for one in ours] == [
        (10, 0.9, "t000"), (20, 0.5, "t000"), (50, 0.4, "t002"), (50, 0.4, "t002"),
    ]  # fmt: skip
    without = none_stopped(sweep.state, ResourceSettings())
    assert [(round(one.hours * 3600), one.wer) for one in without] == [(10, 0.9), (20, 0.5), (60, 0.4), (60, 0.4)]
    stock = stock_asha(sweep.state, ResourceSettings())
    # By WER t001 is the worst at its first report; t002 is better than t000 there.
    assert [(round(one.hours * 3600), one.wer, one.trial) for one in stock] == [
        (10, 0.9, "t000"), (20, 0.5, "t000"), (50, 0.4, "t002"), (50, 0.4, "t002"),
    ]  # fmt: skip
    sweep.trial("t000-s1", [(0.4, 0.4)], "finalist", of="t000")
    shares = where_hours_went(sweep.state, ResourceSettings(workers_per_trial=2))
    assert [one.name for one in shares] == ["trained to their end", "stopped at rung 1", "finalists"]
    assert sum(one.training + one.scoring for one in shares) == pytest.approx(2 * sweep.state.spent_s / 3600)
    assert shares[1].scoring == pytest.approx(2 * 2.4 / 3600)


def test_with_nothing_stopped_both_curves_are_the_same_whatever_the_slots() -> None:
    sweep = Sweep([])
    sweep.write("opened", slots=4)
    for number in range(5):
        sweep.trial(f"t{number:03d}", [(0.9 - 0.1 * number, 1.0), (0.5 - 0.05 * number, 0.5)])
    ours, without = (one(sweep.state, ResourceSettings()) for one in (best_so_far, none_stopped))
    assert ours[-1].hours == pytest.approx(without[-1].hours) == pytest.approx(100 / 3600)
    assert ours[-1].wer == without[-1].wer == pytest.approx(0.3)


def test_settings_outside_the_space_and_left_out_ones_are_shown_too() -> None:
    lr, share = Dimension(low=1e-4, high=1e-2, log=True), Dimension(low=0.0, high=0.3)
    space = {"lr_peak": [lr, lr], "warmup_fraction": share, "layerdrop": Dimension(low=0.0, high=0.1)}
    config, sweep = SweepConfig(space=space), Sweep([])
    baseline = {"lr_peak": 1e-3, "warmup_fraction": 0.33, "layerdrop": 0.1}
    sweep.trial("t000", [(0.5, 1.0)], "baseline", settings=baseline)
    sweep.trial("t001", [(0.4, 1.0)], settings={"lr_peak": 2e-3, "layerdrop": 0.1})
    study = study_of_finished(sweep.state, config)
    assert settings_of(study) == ["lr_peak", "warmup_fraction"], "and what is the same in all is none"
    assert [one.params["warmup_fraction"] for one in study.trials] == [0.33, config.recipe().warmup_fraction]


def test_importance_is_given_of_twenty_trials_and_finds_what_matters() -> None:
    config = SweepConfig(
        space={"lr_peak": Dimension(low=1e-4, high=1e-1, log=True), "layerdrop": Dimension(low=0.0, high=1.0)}
    )
    draw, sweep = np.random.default_rng(0), Sweep([])
    for number in range(60):
        settings = {"lr_peak": float(10 ** draw.uniform(-4, -1)), "layerdrop": float(draw.uniform(0, 1))}
        sweep.trial(f"t{number:03d}", [(0.1 + abs(math.log10(settings["lr_peak"]) + 2) / 4, 1.0)], settings=settings)
        if number in (18, 59):
            study = study_of_finished(sweep.state, config)
            found = importances(study, settings_of(study))
            assert bool(found) == (number > 20)
    assert [one.setting for one in found] == ["lr_peak", "layerdrop"]
    assert found[0].low > found[1].high and found[0].low <= found[0].share <= found[0].high

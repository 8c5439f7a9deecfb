"""When a trial's speed is measured before a sweep starts: where a guess, wrong by ten times, would cost much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.plans import LAPTOP, planned
from sweeps.on_ray.calibration import is_worthwhile


@pytest.mark.parametrize(
    ("guessed_s", "change", "worthwhile"),
    [
        (1500.0, "budget.wall_s=36000", True),  # 25 minutes, or four hours
        (200.0, "budget.hours=1", True),
        (170.0, "budget.wall_s=36000", False),  # half an hour at the worst
        (1500.0, "search.trials=16", False),  # no budget hangs on it
    ],
)
def test_a_guess_is_checked_where_a_budget_hangs_on_it_and_the_sweep_may_be_long(
    tmp_path: Path, guessed_s: float, change: str, worthwhile: bool
) -> None:
    config, prediction, _ = planned("demo", tmp_path, LAPTOP, change)
    assert prediction.speed and prediction.speed.guessed and prediction.high
    guess = replace(prediction, high=replace(prediction.high, wall_s=guessed_s))
    assert is_worthwhile(config, guess) is worthwhile


def test_what_is_known_is_not_measured_again_and_what_is_not_known_at_all_is_measured(tmp_path: Path) -> None:
    config, known, _ = planned("demo", tmp_path, LAPTOP, "budget.wall_s=36000", "resources.audio_s_per_s=1")
    assert known.high and known.high.wall_s > 36_000 and not is_worthwhile(config, known)
    config, unknown, _ = planned("demo", tmp_path, LAPTOP, "budget.wall_s=36000", "model.base=some/checkpoint")
    assert unknown.high is None and is_worthwhile(config, unknown)

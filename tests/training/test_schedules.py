"""The learning rate at every step is as the recipes say."""

from __future__ import annotations

import pytest

from hausa_asr.recipe import SCHEDULES
from hausa_asr.training.schedules import lr_factor


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("updates", [1, 7, 200])
def test_rises_to_the_peak_once_and_never_rises_again(schedule: str, warmup: float, updates: int) -> None:
    factors = [lr_factor(schedule, step, updates, warmup) for step in range(updates)]
    peak = factors.index(max(factors))
    assert max(factors) == 1.0
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_published_recipe_linear_warmup_then_linear_decay() -> None:
    # 1,000 of 3,000 updates to warm up, as in the published Hausa run.
    assert lr_factor("linear", 499, 3000, 1 / 3) == 0.5
    assert lr_factor("linear", 999, 3000, 1 / 3) == 1.0
    assert lr_factor("linear", 2000, 3000, 1 / 3) == pytest.approx(0.5)


def test_tri_stage_is_fairseqs() -> None:
    # fairseq's phase_ratio [0.1, 0.4, 0.5], final_lr_scale 0.05: held to step 500, exponential to 0.05 at the end.
    factors = [lr_factor("tri_stage", step, 1000, 0.1) for step in range(1000)]
    assert factors[99] == factors[499] == 1.0
    assert factors[750] == pytest.approx(0.05**0.5)
    assert factors[999] == pytest.approx(0.05, rel=0.01)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="sinus"):
        lr_factor("sinus", 50, 100, 0.1)

"""The learning rate and the freezing at every step are what the recipes say."""

from __future__ import annotations

import pytest

from hausa_asr.training.schedules import SCHEDULES, UNFREEZE, Trainable, freed_at, lr_factor, rewarm_factor, trainable


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


def test_transformer_is_frozen_for_its_share_and_then_free_at_once() -> None:
    states = [trainable(step, 100, 3, 0.25, "all") for step in range(100)]
    assert states[24] == Trainable(3, projection=False)
    assert states[25] == Trainable(0, projection=True)
    assert trainable(0, 100, 3, 0.0, "all") == Trainable(0, projection=True)


def test_top_down_frees_one_layer_after_another_and_what_lies_below_last() -> None:
    states = [trainable(step, 100, 4, 0.2, "top_down") for step in range(100)]
    first = [state.first_layer for state in states]
    assert first[19] == 4
    assert first[20] == 3
    assert first == sorted(first, reverse=True)
    assert [first.count(layer) for layer in (3, 2, 1)] == [5, 5, 5]
    assert not states[39].projection
    assert states[40] == Trainable(0, projection=True)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="sinus"):
        lr_factor("sinus", 50, 100, 0.1)
    with pytest.raises(ValueError, match="sideways"):
        trainable(50, 100, 3, 0.1, "sideways")


@pytest.mark.parametrize("unfreeze", UNFREEZE)
@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.1, 0.25, 0.5])
@pytest.mark.parametrize(("updates", "layers"), [(37, 3), (100, 12), (281, 24)])
def test_what_is_freed_when_is_said_the_same_both_ways(
    updates: int, layers: int, fraction: float, unfreeze: str
) -> None:
    for layer in range(-1, layers):
        parts = (trainable(step, updates, layers, fraction, unfreeze) for step in range(updates))
        learns = [part.projection if layer == -1 else layer >= part.first_layer for part in parts]
        freed = freed_at(layer, updates, layers, fraction, unfreeze)
        assert learns.index(True) == freed if True in learns else freed >= updates


def test_what_was_freed_warms_up_by_itself_and_what_always_learnt_does_not() -> None:
    assert [rewarm_factor(step, 100, 200, 0.02) for step in (100, 101, 102, 103, 104, 150)] == [
        0.25, 0.5, 0.75, 1.0, 1.0, 1.0,
    ]  # fmt: skip
    assert rewarm_factor(0, 0, 200, 0.5) == 1.0
    assert rewarm_factor(100, 100, 200, 0.0) == 1.0

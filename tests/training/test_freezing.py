"""The layers that learn at every step, and their learning rates, are as the recipes say."""

from __future__ import annotations

import pytest

from hausa_asr.recipe import UNFREEZE
from hausa_asr.training.freezing import Trainable, freed_at, rewarm_factor, trainable


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


def test_an_unknown_freeze_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="sideways"):
        trainable(50, 100, 3, 0.1, "sideways")

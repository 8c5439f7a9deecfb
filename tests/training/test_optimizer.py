"""Rates follow the schedule, part by part; what is not finite changes nothing and is counted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import Wav2Vec2ForCTC

from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.training.freezing import set_trainable, trainable
from hausa_asr.training.optimizer import Optimizer
from hausa_asr.training.schedules import lr_factor

RECIPE = FinetuneConfig(lr_peak=1e-2, warmup_fraction=0.1, schedule="linear", max_grad_norm=0.0)


def step(
    model: Wav2Vec2ForCTC, optimizer: Optimizer, at: int, gradient: float = 1.0
) -> tuple[dict[str, float], float, float]:
    """One update with the same gradient everywhere: how far each weight moved, the norm, and whether it was skipped."""
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in learning:
        weight.grad = torch.full_like(weight, gradient)
    norm, skipped = optimizer.step(at, learning, torch.tensor(1.0))
    moved = {name: float((weight.detach() - before[name]).abs().max()) for name, weight in model.named_parameters()}
    return moved, float(norm), float(skipped)


@pytest.fixture
def model(layer_norm_base: Path) -> Wav2Vec2ForCTC:
    return new_model(str(layer_norm_base), FinetuneConfig())[0]


def test_the_head_has_a_rate_of_its_own(model: Wav2Vec2ForCTC) -> None:
    config = dataclasses.replace(RECIPE, head_lr_mult=5.0)
    moved, _, _ = step(model, Optimizer(model, config, 100), 4)
    rate = 1e-2 * lr_factor("linear", 4, 100, 0.1)
    assert moved["lm_head.weight"] == pytest.approx(5 * rate, rel=1e-3)  # AdamW's first step is as large as its rate
    assert moved["wav2vec2.encoder.layers.0.final_layer_norm.weight"] == pytest.approx(rate, rel=1e-3)


def test_a_freed_layer_starts_small_and_the_head_goes_on(model: Wav2Vec2ForCTC) -> None:
    config = dataclasses.replace(RECIPE, freeze_transformer_fraction=0.25, unfreeze="top_down", rewarm_fraction=0.1)
    optimizer = Optimizer(model, config, 100)
    moves = []
    for at in range(24, 28):
        set_trainable(model, trainable(at, 100, 3, 0.25, "top_down"), feature_encoder=False)
        moves.append(step(model, optimizer, at)[0])
    top, last_norm, head = (
        "wav2vec2.encoder.layers.2.final_layer_norm.weight", "wav2vec2.encoder.layer_norm.weight", "lm_head.weight",
    )  # fmt: skip
    rate = optimizer.lr(25)
    assert moves[0][top] == 0
    assert moves[1][top] == pytest.approx(rate / 10, rel=1e-2)
    assert moves[2][top] == pytest.approx(2 * rate / 10, rel=2e-2)
    assert moves[1][last_norm] == moves[1][top]
    assert moves[1][head] == pytest.approx(rate, rel=0.05)
    assert moves[3]["wav2vec2.encoder.layers.0.final_layer_norm.weight"] == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_changes_neither_weights_nor_state(model: Wav2Vec2ForCTC, bad: float) -> None:
    optimizer = Optimizer(model, RECIPE, 100)
    step(model, optimizer, 0)
    before = [one["exp_avg"].clone() for one in optimizer.state_dict()["state"].values()]
    moved, _, skipped = step(model, optimizer, 1, gradient=bad)
    assert skipped == 1.0
    assert set(moved.values()) == {0.0}
    after = [one["exp_avg"] for one in optimizer.state_dict()["state"].values()]
    assert all(one.equal(other) for one, other in zip(before, after, strict=True))
    moved, _, skipped = step(model, optimizer, 2)
    assert skipped == 0.0
    assert moved["lm_head.weight"] > 0


def test_gradients_are_clipped_to_the_norm_and_the_norm_before_is_reported(model: Wav2Vec2ForCTC) -> None:
    optimizer = Optimizer(model, dataclasses.replace(RECIPE, max_grad_norm=1.0), 100)
    count = sum(weight.numel() for weight in model.parameters())
    _, norm, _ = step(model, optimizer, 0, gradient=3.0)
    assert norm == pytest.approx(3.0 * count**0.5, rel=1e-4)
    average = torch.cat([one["exp_avg"].flatten() for one in optimizer.state_dict()["state"].values()])
    assert float(average.norm()) == pytest.approx((1 - 0.9) * 1.0, rel=1e-3)


def test_weight_decay_is_of_matrices_only(model: Wav2Vec2ForCTC) -> None:
    optimizer = Optimizer(model, dataclasses.replace(RECIPE, weight_decay=0.1), 100)
    for group in optimizer.state_dict()["param_groups"]:
        assert group["weight_decay"] in (0.0, 0.1)
    names = dict(model.named_parameters())
    moved, _, _ = step(model, optimizer, 9, gradient=0.0)
    for name, distance in moved.items():
        decays = names[name].ndim > 1 and float(names[name].detach().abs().max()) > 0
        assert (distance > 0) == decays, name


@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.98), (0.9, 0.999), (0.8, 0.98)])
def test_the_running_means_are_as_long_as_the_recipe_says(model: Wav2Vec2ForCTC, beta1: float, beta2: float) -> None:
    optimizer = Optimizer(model, dataclasses.replace(RECIPE, adam_beta1=beta1, adam_beta2=beta2), 100)
    step(model, optimizer, 9)
    moved, _, _ = step(model, optimizer, 10, gradient=0.0)
    mean = beta1 * (1 - beta1) / (1 - beta1**2)
    square = beta2 * (1 - beta2) / (1 - beta2**2)
    assert moved["lm_head.weight"] == pytest.approx(optimizer.lr(10) * mean / square**0.5, rel=1e-3)

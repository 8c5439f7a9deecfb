"""The moving average of the weights: what it is, what is scored and saved, and that training does not notice."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from hausa_asr.model.evaluate import evaluate
from hausa_asr.recipe import Answer
from hausa_asr.training import checkpoint
from hausa_asr.training.ema import Ema
from hausa_asr.training.finetune import Data
from helpers.fine_tunes import RECIPE, losses, run
from helpers.speech import ToneSplit

AVERAGED = dataclasses.replace(
    RECIPE, ema_fraction=0.2, lr_peak=1e-2, freeze_transformer_fraction=0.3, unfreeze="top_down", hidden_dropout=0.1
)


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(ToneSplit(24, 0), ToneSplit(8, 1))


def test_it_is_a_plain_mean_at_first_and_then_forgets() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    average = Ema(model, fraction=0.1, updates=40)  # an update counts a quarter
    seen = []
    for step, value in enumerate([3.0, 5.0, 7.0, 9.0, 9.0, 9.0, 1.0]):
        model.weight.data.fill_(value)
        average.update(step, [model.weight])
        with average.applied():
            seen.append(model.weight.item())
        assert model.weight.item() == value
    assert seen[:4] == pytest.approx([3.0, 4.0, 5.0, 6.0])
    assert seen[4:] == pytest.approx([6.75, 7.3125, 5.734375])


def test_the_average_is_scored_and_saved_and_training_is_the_same(
    data: Data, layer_norm_base: Path, tmp_path: Path
) -> None:
    _, averaged = run(AVERAGED, data, layer_norm_base, tmp_path / "averaged")
    _, plain = run(dataclasses.replace(AVERAGED, ema_fraction=0.0), data, layer_norm_base, tmp_path / "plain")
    assert [p.metrics["train_loss"] for p in averaged] == [p.metrics["train_loss"] for p in plain]
    assert averaged[-1].metrics["loss"] != plain[-1].metrics["loss"]
    model, processor = checkpoint.load(averaged[-1].checkpoint)
    assert evaluate(model, processor, data.dev).loss == pytest.approx(averaged[-1].metrics["loss"], rel=1e-6)


@pytest.mark.parametrize("stop", [5, 10])
def test_resumed_it_is_the_trial_not_stopped(data: Data, layer_norm_base: Path, tmp_path: Path, stop: int) -> None:
    _, whole = run(AVERAGED, data, layer_norm_base, tmp_path / "whole")
    _, first = run(AVERAGED, data, layer_norm_base, tmp_path / "parts", {stop: Answer.PAUSE})
    _, second = run(AVERAGED, data, layer_norm_base, tmp_path / "parts")
    assert losses(first) + losses(second[1:]) == losses(whole)

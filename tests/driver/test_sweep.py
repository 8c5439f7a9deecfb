"""What a sweep knows of its data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hausa_asr.dataset.prepare import prepare
from hausa_asr.model.evaluate import evaluate
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.settings.load import load
from helpers.noise import corpus
from sweeps.driver.sweep import open_sweep
from sweeps.planning.slots import admit


def test_guessing_costs_what_a_model_that_guesses_is_scored(tmp_path: Path) -> None:
    prepared = prepare(corpus(tmp_path / "audio", {"train": 6, "dev": 6}), tmp_path / "prepared")
    config = load(None, [f"storage={tmp_path}"])
    (tmp_path / "sweep").mkdir()
    sweep = open_sweep(config, tmp_path / "sweep", prepared, admit(config.resources, [{"CPU": 2}], 2))
    model, processor = new_model("demo", FinetuneConfig())
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()
    assert sweep.guess_loss() == pytest.approx(evaluate(model, processor, prepared.splits["dev"]).loss, rel=1e-5)

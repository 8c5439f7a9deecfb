"""What a sweep knows of its data, and what it writes down when its driver leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hausa_asr.dataset.prepare import prepare
from hausa_asr.errors import UserError
from hausa_asr.model.evaluate import evaluate
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.settings.load import load
from helpers.noise import corpus
from sweeps.driver.sweep import Sweep, open_sweep
from sweeps.planning.slots import admit
from sweeps.record.ledger import read_state
from sweeps.record.state import FAULT, INTERRUPTED, PAUSED_ITSELF


def a_sweep(tmp_path: Path) -> Sweep:
    prepared = prepare(corpus(tmp_path / "audio", {"train": 6, "dev": 6}), tmp_path / "prepared")
    config = load(None, [f"storage={tmp_path}"])
    (tmp_path / "sweep").mkdir()
    return open_sweep(config, tmp_path / "sweep", prepared, admit(config.resources, [{"CPU": 2}], 2))


@pytest.mark.parametrize(
    ("fault", "how", "why"),
    [(KeyboardInterrupt(), INTERRUPTED, ""), (UserError("The disk is full."), FAULT, "The disk is full.")],
)
def test_how_a_driver_leaves_is_in_the_ledger(tmp_path: Path, fault: BaseException, how: str, why: str) -> None:
    sweep = a_sweep(tmp_path)
    with pytest.raises(type(fault)), sweep.leaving():
        raise fault
    left = read_state(sweep.folder).left
    assert left is not None and (left.how, left.why) == (how, why)
    sweep.leave(PAUSED_ITSELF, "it comes too late")
    assert read_state(sweep.folder).left == left
    sweep.ledger.append("opened", slots=1)
    assert sweep.ledger.state.left is None


def test_a_sweep_that_has_its_result_is_over_and_nobody_has_left_it(tmp_path: Path) -> None:
    sweep = a_sweep(tmp_path)
    with pytest.raises(KeyboardInterrupt), sweep.leaving():
        (sweep.folder / "result.json").write_text("{}")
        raise KeyboardInterrupt
    assert sweep.ledger.state.left is None


def test_guessing_costs_what_a_model_that_guesses_is_scored(tmp_path: Path) -> None:
    sweep = a_sweep(tmp_path)
    model, processor = new_model("demo", FinetuneConfig())
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()
    assert sweep.guess_loss() == pytest.approx(evaluate(model, processor, sweep.prepared.splits["dev"]).loss, rel=1e-5)

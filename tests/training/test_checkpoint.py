"""Checkpoints hold what changed, take the rest from the base that they name, and are complete or absent."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hausa_asr.errors import UserError
from hausa_asr.model.evaluate import evaluate
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.recipe import Answer, FinetuneConfig, Progress
from hausa_asr.training import checkpoint, checkpoint_files, saving, states
from hausa_asr.training.finetune import Data, finetune
from helpers.fine_tunes import RECIPE, losses, run, wait_for
from helpers.speech import ToneSplit


@pytest.fixture
def data() -> Data:
    return Data(ToneSplit(24, 0), ToneSplit(8, 1))


def saved(recipe: FinetuneConfig, data: Data, base: Path, folder: Path) -> Path:
    _, reports = run(recipe, data, base, folder, {5: Answer.STOP})
    return Path(reports[-1].checkpoint)


def test_frozen_weights_are_named_and_not_saved(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    head_only = dataclasses.replace(RECIPE, freeze_transformer_fraction=0.9)
    names = set(load_file(saved(head_only, data, layer_norm_base, tmp_path / "head") / checkpoint.WEIGHTS))
    assert names == {"lm_head.weight", "lm_head.bias", "wav2vec2.masked_spec_embed"}
    folder = saved(RECIPE, data, layer_norm_base, tmp_path / "all")
    about = json.loads((folder / "base.json").read_text())
    names = set(load_file(folder / checkpoint.WEIGHTS))
    assert all("feature_extractor" in name for name in about["frozen"])
    assert not names & set(about["frozen"])
    whole, _ = new_model(str(layer_norm_base), FinetuneConfig())
    assert names | set(about["frozen"]) == set(whole.state_dict())


def test_the_optimizer_keeps_no_state_of_what_is_frozen(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    head_only = dataclasses.replace(RECIPE, freeze_transformer_fraction=0.9)
    saved(head_only, data, layer_norm_base, tmp_path)
    state = checkpoint.latest(tmp_path).training_state()["state"]  # type: ignore[union-attr]
    assert sorted(tuple(one["exp_avg"].shape) for one in state.values()) == [(33,), (33, 32)]


def test_loaded_it_is_the_model_that_was_saved(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    _, reports = run(RECIPE, data, layer_norm_base, tmp_path)
    model, processor = checkpoint.load(reports[-1].checkpoint)
    scores = evaluate(model, processor, data.dev)
    assert (scores.wer, scores.cer) == (reports[-1].metrics["wer"], reports[-1].metrics["cer"])
    assert scores.loss == pytest.approx(reports[-1].metrics["loss"], rel=1e-6)


def test_a_base_that_was_moved_is_found_by_its_new_place(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(layer_norm_base, base)
    folder = saved(RECIPE, data, base, tmp_path / "trial")
    base.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="holds only the weights that changed"):
        checkpoint.load(folder)
    checkpoint.load(folder, base=str(tmp_path / "moved"))


def test_another_base_under_the_same_name_is_refused(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(layer_norm_base, base)
    folder = saved(RECIPE, data, base, tmp_path / "trial")
    model, _ = new_model(str(base), FinetuneConfig())
    with torch.no_grad():
        next(model.wav2vec2.feature_extractor.parameters()).add_(0.1)
    model.wav2vec2.save_pretrained(base)
    with pytest.raises(UserError, match="not the one"):
        checkpoint.load(folder)


@pytest.mark.parametrize("lost", ["weights.safetensors", "base.json", "config.json"])
def test_an_incomplete_checkpoint_is_refused_by_name(
    lost: str, data: Data, layer_norm_base: Path, tmp_path: Path
) -> None:
    folder = saved(RECIPE, data, layer_norm_base, tmp_path)
    (folder / lost).unlink()
    with pytest.raises(UserError) as refused:
        checkpoint.load(folder)
    assert str(folder) in str(refused.value)


def test_a_disk_that_fails_ends_the_trial_with_its_reason_and_the_checkpoint_before(
    data: Data, layer_norm_base: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPE, checkpoint_every_s=0.0)  # at every evaluation
    folder = saved(recipe, data, layer_norm_base, tmp_path)
    (tmp_path / ".step-000010.partial").write_text("a file where the folder should be made")
    with pytest.raises(FileExistsError):
        run(recipe, data, layer_norm_base, tmp_path)
    assert checkpoint.latest(tmp_path).folder == folder  # type: ignore[union-attr]


def with_state(folder: Path) -> list[int]:
    return [one.step for one in checkpoint.all_checkpoints(folder) if (one.folder / checkpoint.TRAINING).is_file()]


IMPROVING = dataclasses.replace(RECIPE, lr_peak=1e-2)
"""Every evaluation is better than the one before."""


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if writing the optimizer's state took long, as it does for a large model."""
    monkeypatch.setattr(states, "_WRITING_SHARE", 1e-9)


def test_the_optimizers_state_is_written_only_where_a_trial_may_have_to_go_on(
    data: Data, layer_norm_base: Path, tmp_path: Path, slow_disk: None
) -> None:
    there: dict[int, list[int]] = {}
    kept: dict[int, set[int]] = {}

    def report(progress: Progress) -> Answer:
        if progress.step > 11:
            wait_for(lambda: bool(with_state(tmp_path)))
        there[progress.step] = with_state(tmp_path)
        kept[progress.step] = {one.step for one in checkpoint.all_checkpoints(tmp_path)}
        return Answer.STOP if progress.step == 20 else Answer.CONTINUE

    rung = 10 * RECIPE.batch_s
    result = finetune(RECIPE, data, report, base=str(layer_norm_base), folder=tmp_path, evaluate_at_s=[rung])
    steps = sorted(there)
    at_rung = next(step for step in steps if 9 <= step <= 11)
    assert all(there[step] == [] for step in steps if step < at_rung), "none merely since it is the first evaluation"
    assert all(there[step] == [at_rung] for step in steps if step > at_rung)
    assert with_state(tmp_path) == [20], "and where it was stopped"
    assert result.end == "stopped" and checkpoint.latest(tmp_path).step == 20  # type: ignore[union-attr]
    assert all(len(folders) <= 3 for folders in kept.values())


def crash(data: Data, base: Path, folder: Path) -> None:
    """A trial that has a state at step 5 and then breaks at step 20."""
    run(IMPROVING, data, base, folder, {5: Answer.PAUSE})

    def report(progress: Progress) -> Answer:
        if progress.step == 20:
            raise RuntimeError("the node is gone")
        return Answer.CONTINUE

    with pytest.raises(RuntimeError):
        finetune(IMPROVING, data, report, base=str(base), folder=folder)


def test_what_crashed_between_them_goes_on_from_the_last_one_and_comes_out_the_same(
    data: Data, layer_norm_base: Path, tmp_path: Path, slow_disk: None
) -> None:
    _, whole = run(IMPROVING, data, layer_norm_base, tmp_path / "whole")
    folder = tmp_path / "parts"
    crash(data, layer_norm_base, folder)
    best = checkpoint.best(folder)
    assert best is not None and best.step > 5, "a better one than that with the state"
    _, again = run(IMPROVING, data, layer_norm_base, folder)
    assert again[0].step == 5, "the only one to resume from"
    assert losses(again) == losses(whole)
    assert Path(again[-1].best_checkpoint).is_dir()


def test_the_best_model_is_written_only_where_a_trial_may_resume_and_at_its_end(
    data: Data, layer_norm_base: Path, tmp_path: Path, slow_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = saving.write_model

    def noted(folder: Path, *given: Any, **more: Any) -> None:
        written.append(folder.name)
        write(folder, *given, **more)

    monkeypatch.setattr(saving, "write_model", noted)
    reports: list[Progress] = []

    def report(progress: Progress) -> Answer:
        reports.append(progress)
        return Answer.STOP if progress.step == 20 else Answer.CONTINUE

    finetune(IMPROVING, data, report, base=str(layer_norm_base), folder=tmp_path)
    assert [one.best["step"] for one in reports] == [5, 10, 15, 20], "each is better than the one before"
    end = ".step-000020.partial"
    assert written == [end, end], "at its end, without the state first; the others not at all"

    worse = dataclasses.replace(IMPROVING, lr_peak=0.3, warmup_fraction=0.9)
    folder = tmp_path / "worse"
    finetune(worse, data, report, base=str(layer_norm_base), folder=folder)
    best = reports[-1].best
    assert 5 < best["step"] < 20, "its best is behind it"
    scores = evaluate(*checkpoint.load(reports[-1].best_checkpoint), data.dev)
    assert scores.loss == pytest.approx(best["loss"], rel=1e-6), "the weights of then, not of now"


def test_a_trial_that_resumes_keeps_the_better_checkpoint_that_it_had_come_to(
    data: Data, layer_norm_base: Path, tmp_path: Path, slow_disk: None
) -> None:
    crash(data, layer_norm_base, tmp_path)
    better = checkpoint.best(tmp_path)
    assert better is not None and better.step > 10
    run(IMPROVING, data, layer_norm_base, tmp_path, {10: Answer.STOP})
    checkpoint.load(better.folder)  # the sweep's ledger names it as the trial's best


def test_weights_that_stay_frozen_are_digested_once(
    data: Data, layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digested = []
    digest = checkpoint.digest
    monkeypatch.setattr(checkpoint_files, "digest", lambda weights: digested.append(len(weights)) or digest(weights))
    head_only = dataclasses.replace(RECIPE, freeze_transformer_fraction=0.9, checkpoint_every_s=0)
    run(head_only, data, layer_norm_base, tmp_path, {15: Answer.STOP})
    assert len(digested) == 1
    checkpoint.load(checkpoint.latest(tmp_path).folder)  # type: ignore[union-attr]

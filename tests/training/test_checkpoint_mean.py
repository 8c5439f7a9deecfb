"""The mean of a trial's last or best weights: what is in it, that it is saved, and that a pause changes nothing."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from hausa_asr.model.evaluate import evaluate
from hausa_asr.recipe import Answer, Progress, step_folder
from hausa_asr.training import checkpoint, soup
from hausa_asr.training.checkpoint_mean import CheckpointMean
from hausa_asr.training.finetune import Data, finetune
from helpers.fine_tunes import RECIPE, losses, run, wait_for
from helpers.speech import ToneSplit

AVERAGED = dataclasses.replace(
    RECIPE, average=3, freeze_transformer_fraction=0.3, unfreeze="top_down", hidden_dropout=0.1, checkpoint_every_s=0.0
)


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(ToneSplit(24, 0), ToneSplit(8, 1))


@pytest.mark.parametrize(("of", "mean"), [("last", 6.0), ("best", 3.5)])
def test_it_is_the_mean_of_the_last_or_the_best(of: str, mean: float) -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    kept = CheckpointMean(model, ["weight"], 2, of, [5, 10, 15, 20])
    for step, value, wer in [(5, 1.0, 0.9), (10, 2.0, 0.2), (12, 9.0, 0.0), (15, 5.0, 0.3), (20, 7.0, 0.5)]:
        model.weight.data.fill_(value)
        for _ in range(2):  # a trial that resumes comes to its last evaluation again
            kept.take(step, {"wer": wer, "cer": wer, "loss": wer})
    with kept.applied():
        assert model.weight.item() == mean, "step 12 is none of the regular evaluations"
    assert model.weight.item() == 7.0


@pytest.mark.parametrize("of", ["last", "best"])
def test_what_is_scored_at_the_end_is_the_mean_of_checkpoints_and_is_saved(
    data: Data, layer_norm_base: Path, tmp_path: Path, of: str
) -> None:
    reports: list[Progress] = []

    def report(progress: Progress) -> Answer:
        reports.append(progress)
        if not progress.last:
            written = step_folder(tmp_path / "trial", progress.step)
            wait_for((written / "progress.json").is_file)
            shutil.copytree(written, tmp_path / "kept" / written.name)
        return Answer.CONTINUE

    recipe = dataclasses.replace(AVERAGED, average_of=of)
    result = finetune(recipe, data, report, base=str(layer_norm_base), folder=tmp_path / "trial")
    last = result.progress
    _, plain = run(dataclasses.replace(AVERAGED, average=0), data, layer_norm_base, tmp_path / "plain")
    assert [p.metrics["train_loss"] for p in reports] == [p.metrics["train_loss"] for p in plain]
    assert losses(reports)[:-1] == losses(plain)[:-1], "only the last evaluation is another one"
    assert last.metrics["wer_before_average"] == plain[-1].metrics["wer"]

    by_order = sorted(plain, key=lambda p: [p.metrics[name] for name in ("wer", "cer", "loss")])
    chosen = plain[-3:] if of == "last" else by_order[:3]
    members = [tmp_path / ("plain" if p is plain[-1] else "kept") / step_folder(tmp_path, p.step).name for p in chosen]
    expected, processor = soup.average(members)
    saved, _ = checkpoint.load(last.checkpoint)
    for name, weight in saved.state_dict().items():
        torch.testing.assert_close(weight, expected.state_dict()[name], rtol=1e-5, atol=1e-6, msg=name)
    assert evaluate(expected, processor, data.dev).loss == pytest.approx(last.metrics["loss"], rel=1e-5)


@pytest.mark.parametrize(("stop", "change"), [(10, {}), (20, {"average_of": "best", "ema_fraction": 0.2})])
def test_resumed_it_is_the_trial_not_stopped(
    data: Data, layer_norm_base: Path, tmp_path: Path, stop: int, change: dict[str, object]
) -> None:
    recipe = dataclasses.replace(AVERAGED, **change)  # type: ignore[arg-type]
    _, whole = run(recipe, data, layer_norm_base, tmp_path / "whole")
    _, first = run(recipe, data, layer_norm_base, tmp_path / "parts", {stop: Answer.PAUSE})
    _, second = run(recipe, data, layer_norm_base, tmp_path / "parts")
    assert losses(first) + losses(second[1:]) == losses(whole)


def test_a_trial_whose_machine_went_without_a_pause_has_the_same_mean(
    data: Data, layer_norm_base: Path, tmp_path: Path
) -> None:
    _, whole = run(AVERAGED, data, layer_norm_base, tmp_path / "whole")

    def report(progress: Progress) -> Answer:
        if progress.step == 20:  # the state was written while this was scored, so it lacks its own weights
            wait_for((step_folder(tmp_path / "parts", 20) / "progress.json").is_file)
            raise ConnectionError
        return Answer.CONTINUE

    with pytest.raises(ConnectionError):
        finetune(AVERAGED, data, report, base=str(layer_norm_base), folder=tmp_path / "parts")
    _, second = run(AVERAGED, data, layer_norm_base, tmp_path / "parts")
    assert losses(second) == [one for one in losses(whole) if one[0] >= 20]


def test_a_machine_that_goes_at_the_very_end_does_not_cost_the_mean(
    data: Data, layer_norm_base: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(AVERAGED, length_s=285.0)
    _, whole = run(recipe, data, layer_norm_base, tmp_path / "whole")
    assert whole[-1].updates == 25, "the test asks at every fifth"
    asked: list[int] = []

    def at_the_end() -> bool:
        asked.append(len(asked))
        return len(asked) == 5

    result = finetune(
        recipe, data, lambda p: Answer.CONTINUE, base=str(layer_norm_base), folder=tmp_path / "gone", hurry=at_the_end
    )
    assert len(asked) == 5 and losses([result.progress]) == losses(whole[-1:])

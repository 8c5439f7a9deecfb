"""A soup is the mean of what helped on dev, and replaces the best single model only if it is clearly better."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hausa_asr.errors import UserError
from hausa_asr.model.evaluate import EvalReport, evaluate
from hausa_asr.training import checkpoint
from hausa_asr.training.finetune import Data
from hausa_asr.training.soup import average, gain, greedy, write
from helpers.fine_tunes import RECIPE, run
from helpers.soups import Heard, displaced
from helpers.speech import ToneSplit


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(ToneSplit(24, 0), ToneSplit(8, 1))


@pytest.fixture(scope="module")
def folders(data: Data, layer_norm_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The best checkpoints of three real fine-tunes, which share base and seed; one learned nothing."""
    found = []
    for number, rate in enumerate((3e-3, 2e-3, 1e-7)):
        folder = tmp_path_factory.mktemp(f"trial{number}")
        run(dataclasses.replace(RECIPE, lr_peak=rate), data, layer_norm_base, folder)
        best = checkpoint.best(folder)
        assert best is not None
        found.append(best.folder)
    return found


def test_an_average_is_the_mean_of_every_weight_and_what_all_share_stays_exact(folders: list[Path]) -> None:
    models = [checkpoint.load(folder)[0].state_dict() for folder in folders]
    mean = average(folders)[0].state_dict()
    changed = 0
    for name, weight in mean.items():
        wanted = torch.stack([one[name].double() for one in models]).mean(0)
        torch.testing.assert_close(weight.double(), wanted, rtol=1e-5, atol=1e-6)
        if all(torch.equal(one[name], models[0][name]) for one in models):
            assert torch.equal(weight, models[0][name]), name
        else:
            changed += 1
    assert changed > 10


def test_an_average_of_one_is_that_one(folders: list[Path]) -> None:
    one, mean = checkpoint.load(folders[0])[0].state_dict(), average(folders[:1])[0].state_dict()
    assert all(torch.equal(one[name], mean[name]) for name in one)


def test_greedy_begins_with_the_best_and_keeps_only_what_lowers_dev_wer(folders: list[Path], data: Data) -> None:
    soup = greedy(folders[::-1], data.dev)
    wers = [evaluate(*checkpoint.load(folder), data.dev).wer for folder in folders]
    assert soup.single.wer == min(wers)
    assert soup.members[0] == folders[wers.index(min(wers))]
    assert {one.checkpoint for one in soup.tasted} | {soup.members[0]} == set(folders)
    assert soup.members[1:] == [one.checkpoint for one in soup.tasted if one.kept]
    lowest = soup.single.wer
    for one in soup.tasted:
        assert one.kept == (one.wer < lowest)
        lowest = min(lowest, one.wer)
    assert soup.soup.wer == lowest
    again = evaluate(*average(soup.members), data.dev)
    assert (again.wer, again.hypotheses) == (soup.soup.wer, soup.soup.hypotheses)
    assert evaluate(soup.model, soup.processor, data.dev).hypotheses == soup.soup.hypotheses


def test_two_models_on_either_side_of_a_better_one_are_averaged_and_accepted(
    folders: list[Path], tmp_path: Path
) -> None:
    dev = Heard(24, folders[2])
    left = displaced(folders[2], tmp_path / "left", 0.05, 0.3)
    right = displaced(folders[2], tmp_path / "right", -0.05, 0.4)
    far = displaced(folders[2], tmp_path / "far", -3.0, 0.5)
    soup = greedy([far, right, left], dev)
    assert soup.members == [left, right]
    assert [(one.checkpoint, one.kept) for one in soup.tasted] == [(right, True), (far, False)]
    assert soup.soup.wer < soup.single.wer
    assert soup.gain.high < 0 and soup.accepted
    assert evaluate(soup.model, soup.processor, dev).wer == soup.soup.wer


def test_a_written_average_is_a_checkpoint_like_any_other(folders: list[Path], data: Data, tmp_path: Path) -> None:
    left = displaced(folders[2], tmp_path / "left", 0.05, 0.3)
    right = displaced(folders[2], tmp_path / "right", -0.05, 0.4)
    soup = greedy([left, right], Heard(24, folders[2]))
    folder = write(soup, tmp_path / "average")
    loaded, processor = checkpoint.load(folder)
    assert evaluate(loaded, processor, data.dev).hypotheses == evaluate(*average([left, right]), data.dev).hypotheses
    mean = soup.model.state_dict()
    assert all(torch.equal(weight, mean[name]) for name, weight in loaded.state_dict().items())
    weights = set(load_file(folder / checkpoint.WEIGHTS))
    assert weights == set(load_file(left / checkpoint.WEIGHTS)), "what no member has changed is only named"
    report = json.loads((folder / "progress.json").read_text())
    assert report["metrics"]["wer"] == soup.soup.wer
    assert report["members"] == [str(left), str(right)]
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_no_more_members_than_asked_for(folders: list[Path], data: Data) -> None:
    soup = greedy(folders, data.dev, most=1)
    assert (len(soup.members), soup.tasted, soup.accepted, soup.gain.wer) == (1, [], False, 0)
    assert soup.soup is soup.single


def test_a_model_of_another_shape_is_refused_by_name(
    folders: list[Path], data: Data, group_norm_base: Path, tmp_path: Path
) -> None:
    run(dataclasses.replace(RECIPE, length_s=60, eval_every_steps=5), data, group_norm_base, tmp_path)
    other = checkpoint.best(tmp_path)
    assert other is not None
    with pytest.raises(UserError, match="cannot be averaged with the others"):
        average([folders[0], other.folder])
    with pytest.raises(UserError, match="cannot be averaged with the others"):
        greedy([*folders, other.folder], data.dev)


def test_a_checkpoint_without_a_report_is_refused(data: Data, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no report of its dev WER"):
        greedy([tmp_path], data.dev)
    with pytest.raises(ValueError, match="at least one"):
        greedy([], data.dev)
    with pytest.raises(ValueError, match="at least one"):
        average([])


def scored(hypotheses: list[str], wer: float) -> EvalReport:
    n = len(hypotheses)
    ids, references, speakers = [str(i) for i in range(n)], ["ina kwana yau da"] * n, [""] * n
    return EvalReport(1.0, wer, 0.1, wer, 0.1, ids, references, hypotheses, speakers, 0.1)


def test_a_gain_is_clear_only_if_its_whole_interval_is_below_zero() -> None:
    good, bad = "ina kwana yau da", "ina kwana yau ba"
    single = scored([bad] * 40, 0.25)
    clear = gain(scored([good] * 20 + [bad] * 20, 0.125), single)
    assert clear.low < clear.wer == -0.125 < clear.high < 0 and clear.is_clear
    lucky = gain(scored([good] + [bad] * 39, 0.24375), single)
    assert lucky.wer < 0 and not lucky.is_clear
    worse = gain(single, scored([good] * 40, 0.0))
    assert worse.low > 0 and not worse.is_clear
    with pytest.raises(ValueError, match="same utterances"):
        gain(scored([good], 0), single)

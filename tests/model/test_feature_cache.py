"""The feature cache gives the uncached result, is made once, and is never used where it would not."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hausa_asr.model import feature_cache as features
from hausa_asr.model import feature_files
from hausa_asr.model.evaluate import evaluate
from hausa_asr.model.feature_cache import CachedSplit, cached
from hausa_asr.model.feature_files import SPARE_BYTES, free_at
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.recipe import CACHE_VARIABLE, Answer, FinetuneConfig, Progress
from hausa_asr.training.finetune import Data, finetune
from helpers.fine_tunes import RECIPE, losses, run
from helpers.speech import ToneSplit

CPU = torch.device("cpu")
TOLERANCE = 5e-3
"""Relative, on losses: a bfloat16 has 8 bits, so a feature is off by at most 0.4 %, and the errors are independent."""


def make(base: Path, folder: Path, fingerprint: str = "data") -> dict:
    model, processor = new_model(str(base), FinetuneConfig())
    return cached({"train": ToneSplit(24, 0), "dev": ToneSplit(8, 1)}, fingerprint, model, processor, folder, CPU)


def trained(base: Path, folder: Path, cache: Path | None, **changes: object) -> list[Progress]:
    reports: list[Progress] = []

    def report(progress: Progress) -> Answer:
        reports.append(progress)
        return Answer.CONTINUE

    recipe = dataclasses.replace(RECIPE, **changes)  # type: ignore[arg-type]
    data = Data(ToneSplit(24, 0), ToneSplit(8, 1), "data")
    finetune(recipe, data, report, base=str(base), folder=folder, cache=cache)
    return reports


@pytest.fixture(params=["layer", "group"])
def base(request: pytest.FixtureRequest) -> Path:
    """A checkpoint with layer norms in its convolutions, as XLS-R has, or with a group norm, as wav2vec2-base has."""
    return request.getfixturevalue(f"{request.param}_norm_base")


def test_losses_are_those_without_the_cache(base: Path, tmp_path: Path) -> None:
    with_cache = trained(base, tmp_path / "with", tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*/features.json"))
    without = trained(base, tmp_path / "without", None)
    for one, other in zip(losses(with_cache), losses(without), strict=True):
        assert one == pytest.approx(other, rel=TOLERANCE)
    assert losses(with_cache) != losses(without), "or the cache was not read at all"


def test_evaluation_is_that_without_the_cache(base: Path, tmp_path: Path) -> None:
    model, processor = new_model(str(base), FinetuneConfig())
    plain = evaluate(model, processor, ToneSplit(8, 1))
    quick = evaluate(model, processor, make(base, tmp_path)["dev"])
    assert quick.loss == pytest.approx(plain.loss, rel=TOLERANCE)
    assert (quick.ids, quick.references, quick.speakers) == (plain.ids, plain.references, plain.speakers)


def test_features_are_the_encoders_own_unpadded(base: Path, tmp_path: Path) -> None:
    split = make(base, tmp_path)["train"]
    model, _ = new_model(str(base), FinetuneConfig())
    for index in (0, 7, 23):
        samples = ToneSplit(24, 0)[index].samples
        samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        with torch.inference_mode():
            wanted = model.wav2vec2.feature_extractor(torch.from_numpy(samples)[None])[0].T
        found = torch.from_numpy(np.array(split[index].features)).view(torch.bfloat16).float()
        torch.testing.assert_close(found, wanted, rtol=1 / 128, atol=1e-3)
        assert split[index].text == ToneSplit(24, 0)[index].text
        assert len(split[index].samples) == 0


def test_made_once_and_shared(
    layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="hausa_asr.trial")  # what a trial's train.log has
    monkeypatch.setattr(features, "_SAY_EVERY_S", 0.0)
    first = make(layer_norm_base, tmp_path)
    assert "computing features of train for the cache" in caplog.text
    assert caplog.text.count("features for the cache: 100 %, about 0 s left") == 2, "train and dev"
    caplog.clear()
    stamp = next(tmp_path.glob("*/train.bf16")).stat().st_mtime_ns
    assert isinstance(make(layer_norm_base, tmp_path)["train"], CachedSplit)
    assert next(tmp_path.glob("*/train.bf16")).stat().st_mtime_ns == stamp
    assert not caplog.text
    assert first["train"].n_samples.tolist() == ToneSplit(24, 0).n_samples.tolist()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "elsewhere"))
    make(layer_norm_base, tmp_path)
    assert list((tmp_path / "elsewhere").glob("*/train.bf16"))


@pytest.mark.slow
def test_two_processes_at_once_make_one(layer_norm_base: Path, tmp_path: Path) -> None:
    processes = [get_context("spawn").Process(target=make, args=(layer_norm_base, tmp_path)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len([one for one in tmp_path.iterdir() if one.is_dir()]) == 2, "train and dev"


def test_other_data_or_other_weights_are_another_cache(layer_norm_base: Path, tmp_path: Path) -> None:
    make(layer_norm_base, tmp_path / "cache")
    make(layer_norm_base, tmp_path / "cache", fingerprint="other")
    assert len(list((tmp_path / "cache").glob("*/features.json"))) == 2 * 2
    other = tmp_path / "base"
    model, processor = new_model(str(layer_norm_base), FinetuneConfig())
    with torch.no_grad():
        next(model.wav2vec2.feature_extractor.parameters()).add_(0.01)
    model.wav2vec2.save_pretrained(other)
    processor.feature_extractor.save_pretrained(other)
    make(other, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*/features.json"))) == 3 * 2


def test_another_part_of_dev_leaves_the_features_of_train(layer_norm_base: Path, tmp_path: Path) -> None:
    def stamps() -> dict[str, int]:
        return {str(one): one.stat().st_mtime_ns for one in (tmp_path / "cache").glob("*/*.bf16")}

    whole = trained(layer_norm_base, tmp_path / "whole", tmp_path / "cache", length_s=60)
    before = stamps()
    part = trained(layer_norm_base, tmp_path / "part", tmp_path / "cache", length_s=60, dev_part_s=4.0)
    after = stamps()
    assert before.items() < after.items() and len(before) == 2
    assert [Path(one).name for one in after.keys() - before.keys()] == ["dev.bf16"]
    without = trained(layer_norm_base, tmp_path / "without", None, length_s=60, dev_part_s=4.0)
    assert losses(part) != losses(whole), "a part of dev has another loss than all of it"
    for one, other in zip(losses(part), losses(without), strict=True):
        assert one == pytest.approx(other, rel=TOLERANCE), "and its own features"


@pytest.mark.parametrize(
    "changes",
    [{"freeze_feature_encoder": False}, {"speed_perturb": 0.1}, {"noise_prob": 0.5}, {"feature_cache": "off"}],
    ids=lambda changes: next(iter(changes)),
)
def test_no_cache_where_features_would_change(changes: dict, layer_norm_base: Path, tmp_path: Path) -> None:
    trained(layer_norm_base, tmp_path / "trial", tmp_path / "cache", length_s=60, **changes)
    assert not (tmp_path / "cache").exists()
    assert not dataclasses.replace(RECIPE, **changes).can_cache_features


def test_a_full_disk_costs_the_cache_and_not_the_trial(
    layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_files, "SPARE_BYTES", 2**60)  # whatever else on this disk comes and goes
    assert trained(layer_norm_base, tmp_path / "trial", tmp_path / "cache", length_s=60)[-1].last
    assert not list((tmp_path / "cache").glob("*/*"))


def test_what_is_to_be_kept_free_for_checkpoints_is_left(
    layer_norm_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, processor = new_model(str(layer_norm_base), RECIPE)
    splits, more = {"train": ToneSplit(6, 5)}, float(2**60)
    assert cached(splits, "data", model, processor, tmp_path / "cache", CPU, keep_free=more) == splits
    assert "GiB are left for checkpoints" in caplog.text
    assert isinstance(cached(splits, "data", model, processor, tmp_path / "cache", CPU)["train"], CachedSplit)
    data, report = Data(ToneSplit(24, 0), ToneSplit(8, 1), "data"), lambda progress: Answer.CONTINUE
    recipe, base = dataclasses.replace(RECIPE, length_s=60), str(layer_norm_base)
    finetune(recipe, data, report, base=base, folder=tmp_path / "trial", cache=tmp_path / "none", keep_free=more)
    assert not list((tmp_path / "none").glob("*/*"))


def test_on_a_disk_of_its_own_the_cache_leaves_no_room_for_checkpoints(
    layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev or free_at(shm) < SPARE_BYTES + 2**20:
        pytest.skip("there is no second disk")
    model, processor = new_model(str(layer_norm_base), RECIPE)
    splits, more = {"train": ToneSplit(6, 5)}, float(2**60)
    with tempfile.TemporaryDirectory(dir=shm) as other:
        for place, folder, checkpoints, is_cached in (
            (other, tmp_path / "cache", None, True),  # the cache's own folder is beside the checkpoints
            (other, tmp_path / "cache", tmp_path / "trial", True),
            (other, tmp_path / "cache", Path(other) / "trial", False),
            (str(tmp_path / "elsewhere"), tmp_path / "cache", tmp_path / "trial", False),
            ("", Path(other), tmp_path / "trial", True),  # as a trial of its own has it, with its folder elsewhere
        ):
            monkeypatch.setenv(CACHE_VARIABLE, place)
            given = cached(splits, "data", model, processor, folder, CPU, more, checkpoints=checkpoints)
            assert isinstance(given["train"], CachedSplit) is is_cached, (place, folder, checkpoints)
            for made in (Path(place or folder)).glob("*/features.json"):
                shutil.rmtree(made.parent)


def test_caches_that_nobody_has_used_for_a_week_make_room_for_a_new_one(
    layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(layer_norm_base, tmp_path)
    shutil.rmtree(next(tmp_path.glob("*-dev-*/")))
    old = next(tmp_path.glob("*/features.json"))
    recent = tmp_path / "recent"
    shutil.copytree(old.parent, recent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0 if old.is_file() else 2**32))
    os.utime(old, (time.time() - 8 * 86_400,) * 2)
    model, processor = new_model(str(layer_norm_base), RECIPE)
    other = {"train": ToneSplit(6, 5)}
    found = cached(other, "other", model, processor, tmp_path, CPU, keep_free=2**31)
    assert isinstance(found["train"], CachedSplit)
    assert not old.exists() and recent.is_dir()


def test_a_cache_that_is_used_keeps_its_place(layer_norm_base: Path, tmp_path: Path) -> None:
    make(layer_norm_base, tmp_path)
    done = next(tmp_path.glob("*/features.json"))
    os.utime(done, (0, 0))
    make(layer_norm_base, tmp_path)
    assert time.time() - done.stat().st_mtime < 60


def test_a_damaged_cache_is_not_read(layer_norm_base: Path, tmp_path: Path) -> None:
    make(layer_norm_base, tmp_path)
    file = next(tmp_path.glob("*/train.bf16"))
    file.write_bytes(file.read_bytes()[:-2])
    assert not isinstance(make(layer_norm_base, tmp_path)["train"], CachedSplit)
    (file.parent / "features.json").unlink()  # as if it had never been finished
    assert isinstance(make(layer_norm_base, tmp_path)["train"], CachedSplit)
    assert json.loads((file.parent / "features.json").read_text())["split"] == "train"


def test_resumed_with_the_cache_it_is_the_run_not_stopped(layer_norm_base: Path, tmp_path: Path) -> None:
    data = Data(ToneSplit(24, 0), ToneSplit(8, 1))
    whole = trained(layer_norm_base, tmp_path / "whole", tmp_path / "cache")
    run(RECIPE, data, layer_norm_base, tmp_path / "parts", {5: Answer.PAUSE})
    again = trained(layer_norm_base, tmp_path / "parts", tmp_path / "cache")
    # The first five updates were made without the cache, so this holds within its tolerance.
    assert losses(again)[-1] == pytest.approx(losses(whole)[-1], rel=4 * TOLERANCE)

"""The disk that is planned for, against real checkpoints and the sizes of the real models."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hausa_asr.model.feature_files import Kept
from hausa_asr.recipe import Answer
from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.training import checkpoint, checkpoint_files, states
from hausa_asr.training.finetune import Data, finetune
from helpers.fine_tunes import RECIPE, run
from helpers.plans import CONFIGS, HOURS_500, NODE, planned
from helpers.speech import ToneSplit
from sweeps.planning import disk, estimate
from sweeps.planning.admission import refusals
from sweeps.planning.speed import Speed, base_of, trained_weights


@pytest.mark.parametrize("averages", [{}, {"ema_fraction": 0.1, "average": 2, "average_of": "best"}])
def test_checkpoints_are_as_large_as_predicted(tmp_path: Path, averages: dict[str, Any]) -> None:
    recipe = dataclasses.replace(RECIPE, length_s=96, eval_every_steps=2, freeze_transformer_fraction=0.0, **averages)
    run(recipe, Data(ToneSplit(8, 0), ToneSplit(2, 1)), Path("demo"), tmp_path, {4: Answer.STOP})
    files = [path for one in checkpoint.all_checkpoints(tmp_path) for path in one.folder.iterdir()]
    newest = checkpoint.latest(tmp_path)
    assert newest is not None
    base = base_of("demo")
    assert base is not None
    weights = trained_weights(SweepConfig(), base)
    searched = [f"space.{name}={{choices: [{value}]}}" for name, value in averages.items()]
    newest_bytes = disk.state_bytes(load(CONFIGS / "demo.yaml", searched, environment={}))
    size = sum(path.stat().st_size for path in newest.folder.iterdir())
    assert size == pytest.approx(newest_bytes * weights, rel=0.1)
    assert sum(path.stat().st_size for path in files) <= (newest_bytes + 4) * weights * 1.1
    assert newest_bytes == (24 if averages else 12)


def test_as_many_bytes_are_written_as_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    replace = checkpoint_files.os.replace

    def counted(source: Path, target: Path) -> None:
        if source.is_dir():  # a checkpoint, and not the report in it
            written.append(sum(file.stat().st_size for file in source.iterdir()))
        replace(source, target)

    monkeypatch.setattr(checkpoint_files.os, "replace", counted)
    predicted, real = [], []
    # At every evaluation; and at the end only, and the best beside them.
    for every_s in (0.0, 1e9):
        recipe = {"length_s": 120.0, "batch_s": 12.0, "eval_every_steps": 2, "checkpoint_every_s": every_s}
        settings = [*(f"finetune.{name}={value}" for name, value in recipe.items()), "pruning.rule=none"]
        config = load(CONFIGS / "demo.yaml", [*settings, "search.trials=1", f"storage={tmp_path}"], environment={})
        monkeypatch.setattr(states, "_WRITING_SHARE", 1e-9)
        monkeypatch.setattr(disk, "_WRITING_SHARE", 1e-9)
        data = Data(ToneSplit(8, 0), ToneSplit(2, 1))
        run(dataclasses.replace(RECIPE, **recipe), data, Path("demo"), tmp_path / f"{every_s}")  # type: ignore[arg-type]
        real.append(sum(written))
        written.clear()
        predicted.append(estimate.bytes_written(config, Speed(100.0, "", guessed=False)))
    assert real[0] > 2 * real[1]
    for said, was in zip(predicted, real, strict=True):
        assert said is not None and 0.7 * was <= said <= 1.6 * was, (predicted, real)


def test_the_known_sizes_are_those_of_the_models(tmp_path: Path) -> None:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    config = load(CONFIGS / "mms_1b.yaml", [], environment={})
    base = base_of(config.model.base)
    assert base is not None
    with torch.device("meta"):
        model = Wav2Vec2ForCTC(
            Wav2Vec2Config(
                hidden_size=1280, num_hidden_layers=48, intermediate_size=5120, num_attention_heads=16, vocab_size=33,
                feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True, adapter_attn_dim=16,
            )
        )  # fmt: skip
    of = {name: weight.numel() for name, weight in model.named_parameters()}
    adapters = sum(count for name, count in of.items() if "adapter_layer" in name)
    assert trained_weights(config, base) == adapters
    assert base.convolutions == sum(count for name, count in of.items() if "feature_extractor" in name)
    head = sum(count for name, count in of.items() if name.startswith("lm_head"))
    assert base.weights == sum(of.values()) - adapters - head


def test_a_disk_that_is_too_small_is_refused_and_a_tight_one_warned_of(tmp_path: Path) -> None:
    config, prediction, _ = planned("xlsr_300m", tmp_path, NODE, "max_checkpoint_gb=20")
    assert any("max_checkpoint_gb" in reason for reason, _ in refusals(config, prediction))
    small = dataclasses.replace(prediction, disk_free=1e9)
    assert any("the disk of the storage" in reason for reason, _ in refusals(config, small))
    config, prediction, text = planned("xlsr_300m", tmp_path, NODE, "max_checkpoint_gb=60")
    assert not [reason for reason, _ in refusals(config, prediction) if "max_checkpoint_gb" in reason]
    assert "lose their optimizer states" in text


def test_the_features_to_cache_are_in_the_plan(tmp_path: Path) -> None:
    _, prediction, text = planned("xlsr_300m", tmp_path, NODE, seconds=HOURS_500)
    assert prediction.features == (450 * 3600 + 3600) * 50 * 512 * 2
    assert "cached features 83.1 GB" in text
    for change in ("finetune.freeze_feature_encoder=false", "finetune.noise_prob=0.5"):
        assert planned("xlsr_300m", tmp_path, NODE, change, seconds=HOURS_500)[1].features == prediction.features, (
            "the baseline's are cached all the same"
        )
        all_alike = (change, "baseline={lr_peak: 5.0e-5}", "starting_points={}")
        assert planned("xlsr_300m", tmp_path, NODE, *all_alike, seconds=HOURS_500)[1].features == 0
    assert planned("xlsr_300m", tmp_path, NODE, "finetune.feature_cache=off", seconds=HOURS_500)[1].features == 0
    assert planned("xlsr_300m", tmp_path, NODE)[1].features is None


def test_features_without_room_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAUSA_ASR_CACHE", raising=False)
    seconds = {"train": 1e9, "dev": 3600.0}
    assert "no room for 51.2 TB of cached features" in planned("xlsr_300m", tmp_path, NODE, seconds=seconds)[2]
    monkeypatch.setenv("HAUSA_ASR_CACHE", "/dev/shm/features")
    assert "of cached features in /dev/shm/features" in planned("xlsr_300m", tmp_path, NODE, seconds=seconds)[2]
    assert "no room for" not in planned("xlsr_300m", tmp_path, NODE, seconds={"train": 10.0, "dev": 3.0})[2]


def test_checkpoints_and_features_that_do_not_fit_on_one_disk_together_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HAUSA_ASR_CACHE", raising=False)

    def text(gb: float, fingerprint: str = "") -> str:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=gb * 1e9))
        return planned("xlsr_300m", tmp_path, NODE, seconds=HOURS_500, fingerprint=fingerprint)[2]

    assert "checkpoints about 177.8 GB at their most" in text(200) and "cached features 83.1 GB" in text(200)
    assert "checkpoints would take 177.8 GB and there is room for 116.9 GB beside 83.1 GB of cached" in text(200)
    assert "would take" not in text(265), "both fit"
    folder = tmp_path / "_data/features"
    base = "facebook/wav2vec2-xls-r-300m"
    assert "would take" in text(182, "0123abcd")
    for there, is_enough in (
        (Kept(base, "0123abcd", "train", HOURS_500["train"]), True),  # of a sweep that goes on
        (Kept(base, "0123", "train", HOURS_500["train"]), False),
        (Kept("facebook/mms-300m", "0123abcd", "train", HOURS_500["train"]), False),
        (Kept(base, "0123abcd", "dev", HOURS_500["train"]), False),
        (Kept(base, "0123abcd", "dev", 3600.0), False),
    ):
        (folder / "one").mkdir(parents=True)
        (folder / "one/features.json").write_text(json.dumps(there._asdict()))
        assert ("would take" not in text(182, "0123abcd")) is is_enough, there
        assert "would take" in text(182), "of which dataset is not known"
        shutil.rmtree(folder)
    # Where the features find no room they are not written, and the checkpoints have the disk for themselves.
    assert "no room for 83.1 GB of cached features" in text(120)
    assert "checkpoints would take 177.8 GB and there is room for 120.0 GB: the least" in text(120)
    monkeypatch.setenv("HAUSA_ASR_CACHE", "/dev/shm/features")
    assert "would take" not in text(200)
    monkeypatch.setenv("HAUSA_ASR_CACHE", str(tmp_path / "elsewhere"))
    assert "would take" in text(200), "elsewhere, and on the same disk"


def test_the_features_that_a_fine_tune_has_cached_are_known_to_the_plan(
    layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HAUSA_ASR_CACHE", raising=False)
    train, dev = ToneSplit(24, 0), ToneSplit(16, 1)
    seconds = {name: float(split.n_samples.sum()) / 16_000 for name, split in (("train", train), ("dev", dev))}
    changes = [f"model.base={layer_norm_base}", f"storage={tmp_path}", "finetune.dev_part_s=4"]
    config = load(CONFIGS / "demo.yaml", changes, environment={})
    recipe = dataclasses.replace(RECIPE, length_s=24, dev_part_s=4.0)
    cache = tmp_path / "cache"
    finetune(recipe, Data(train, dev, "0123abcd"), lambda _: Answer.CONTINUE, base=str(layer_norm_base),
             folder=tmp_path / "trial", cache=cache)  # fmt: skip
    whole = disk.cached_features(config, seconds)
    real = sum(file.stat().st_size for file in cache.glob("*/*.bf16"))
    assert whole == pytest.approx(real, rel=0.15)
    assert disk.features_there(config, cache, "0123abcd", seconds) == whole
    assert disk.features_there(config, cache, "0123", seconds) == 0

"""An export is scored again from disk in a process of its own, and not kept if its WER is not its trial's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from hausa_asr.cli import app
from hausa_asr.dataset.prepared import load_prepared
from hausa_asr.decoding.confidence import CONFIDENCE_FILE, stored_calibration
from hausa_asr.errors import UserError
from hausa_asr.export import check
from hausa_asr.export.best_model import best_model
from hausa_asr.export.speed import real_time_factor
from hausa_asr.model.evaluate import evaluate
from hausa_asr.model.recognizer import Recognizer
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.tracking.tracker import Tracker
from hausa_asr.training import checkpoint as checkpoints
from helpers.fine_tunes import save_checkpoint
from helpers.speech import prepared_speech

RECIPE = asdict(FinetuneConfig())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_speech(tmp_path_factory.mktemp("speech"))


@pytest.mark.parametrize("off", [0.0, 0.5])
def test_the_wer_from_disk_must_be_the_trials(dataset: Path, layer_norm_base: Path, tmp_path: Path, off: float) -> None:
    saved = save_checkpoint(tmp_path / "trial", layer_norm_base)
    prepared = load_prepared(dataset)
    wer = evaluate(*checkpoints.load(saved), prepared.splits["dev"]).wer
    progress = json.loads((saved / "progress.json").read_text())
    progress["metrics"]["wer"] = wer + off
    (saved / "progress.json").write_text(json.dumps(progress))
    tracker = Tracker(f"sqlite:///{tmp_path}/m.db", "x")
    parent = tracker.start_sweep("s", {}, {})
    tags = {
        "base": "demo",
        "prepared": str(dataset),
        "fingerprint": prepared.fingerprint,
        "checkpoint_uri": saved.as_uri(),
    }
    run = tracker.start_trial(parent, "s", "t001", RECIPE, tags)
    tracker.end_trial(run, "finished", "", {"best_wer": wer + off, "best_cer": 0.5, "best_loss": 2.0})
    out = tmp_path / "out"
    if off:
        with pytest.raises(UserError, match="not the one that was chosen"):
            best_model(tracker.uri, "x", sweep="s", out=out, check=True)
        assert not out.exists()
        assert best_model(tracker.uri, "x", sweep="s", out=out).scored_again is None, "without the check it is written"
    else:
        assert best_model(tracker.uri, "x", sweep="s", out=out, check=True).scored_again == pytest.approx(wer)


@pytest.mark.parametrize("lack", ["out of memory", "CUDA-capable device(s) is/are busy or unavailable"])
def test_a_gpu_without_room_costs_the_check_time_and_measures_no_speed(
    lack: str, dataset: Path, layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep may have filled it, or have it alone; then a context, the first thing that is made there, is refused."""
    for part in checkpoints.load(save_checkpoint(tmp_path / "trial", layer_norm_base)):
        part.save_pretrained(tmp_path / "out")
    expected = check._score(tmp_path / "out", dataset, 0.0)

    def no_context() -> None:
        raise torch.AcceleratorError(f"CUDA error: {lack}")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", no_context)
    assert check._score(tmp_path / "out", dataset, 0.0) == expected
    with pytest.raises(UserError, match="no room to measure"):
        real_time_factor(tmp_path / "out", None)


def test_the_check_calibrates_what_the_model_says_of_its_words(
    layer_norm_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the language model in the folder too; and `transcribe` gives the calibrated chances."""
    pytest.importorskip("flashlight")
    prepared = load_prepared(prepared_speech(tmp_path, dev=120))
    saved = save_checkpoint(tmp_path / "trial", layer_norm_base)
    wer = evaluate(*checkpoints.load(saved), prepared.splits["dev"]).wer
    (saved / "progress.json").write_text(
        json.dumps({**json.loads((saved / "progress.json").read_text()), "metrics": {"wer": wer, "cer": 0.5}})
    )
    tracker = Tracker(f"sqlite:///{tmp_path}/m.db", "x")
    tags = {"prepared": str(prepared.path), "fingerprint": prepared.fingerprint, "checkpoint_uri": saved.as_uri()}
    run = tracker.start_trial(tracker.start_sweep("s", {}, {}), "s", "t001", RECIPE, tags)
    tracker.end_trial(run, "finished", "", {"best_wer": wer, "best_cer": 0.5, "best_loss": 2.0})
    (tmp_path / "text.txt").write_text("ɗan ƙasa\nina so\n", encoding="utf-8")
    app(args=["lm", "train", str(tmp_path / "text.txt"), "--out", str(tmp_path / "ha.arpa")], standalone_mode=False)
    seen: list[tuple[int, int]] = []
    exported = best_model(
        tracker.uri, "x", sweep="s", out=tmp_path / "out", check=True, with_lm=tmp_path / "ha.arpa",
        watch=lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    assert seen == [(64, 120), (120, 120)]
    assert set(exported.calibrations) == {"greedy", "lm"}
    for name, one in exported.calibrations.items():
        assert one.words >= 100 and one.error < one.raw_error, f"{name}: a model that has learnt nothing is too sure"
        assert stored_calibration(tmp_path / "out", name) == one
    assert f"is {exported.calibrations['lm'].error:.3f}, " in (tmp_path / "out/README.md").read_text(encoding="utf-8")
    clip = tmp_path / "speech/dev-0.wav"
    for lm, calibration in ((None, "lm"), (False, "greedy")):
        (sure,) = Recognizer(tmp_path / "out", lm=lm).files([clip], words=True)
        (tmp_path / "out" / CONFIDENCE_FILE).rename(tmp_path / "aside")
        (raw,) = Recognizer(tmp_path / "out", lm=lm).files([clip], words=True)
        (tmp_path / "aside").rename(tmp_path / "out" / CONFIDENCE_FILE)
        assert sure.words and raw.words and sure.text == raw.text
        for calibrated, own in zip(sure.words, raw.words, strict=True):
            assert calibrated.confidence == pytest.approx(exported.calibrations[calibration](own.confidence), abs=2e-3)
    other = Recognizer(tmp_path / "out", lm=tmp_path / "ha.arpa")
    assert other.calibration is None, "of another language model nothing is known"


@pytest.mark.parametrize("gone", [True, False])
def test_without_the_dataset_or_with_another_in_its_place_there_is_nothing_to_compare_with(
    dataset: Path, layer_norm_base: Path, tmp_path: Path, gone: bool
) -> None:
    saved = save_checkpoint(tmp_path / "trial", layer_norm_base)
    tracker = Tracker(f"sqlite:///{tmp_path}/m.db", "x")
    there = str(tmp_path / "gone" if gone else dataset)
    tags = {"base": "demo", "prepared": there, "fingerprint": "another", "checkpoint_uri": saved.as_uri()}
    run = tracker.start_trial(tracker.start_sweep("s", {}, {}), "s", "t001", RECIPE, tags)
    tracker.end_trial(run, "finished", "", {"best_wer": 0.1, "best_cer": 0.5, "best_loss": 2.0})
    assert best_model(tracker.uri, "x", sweep="s", out=tmp_path / "out", check=True).scored_again is None


def test_what_can_not_be_pushed_is_kept(layer_norm_base: Path, tmp_path: Path) -> None:
    saved = save_checkpoint(tmp_path / "trial", layer_norm_base)
    tracker = Tracker(f"sqlite:///{tmp_path}/m.db", "x")
    tags = {"base": "demo", "checkpoint_uri": saved.as_uri()}
    run = tracker.start_trial(tracker.start_sweep("s", {}, {}), "s", "t001", RECIPE, tags)
    tracker.end_trial(run, "finished", "", {"best_wer": 0.1, "best_cer": 0.5, "best_loss": 2.0})
    command = [
        str(Path(sys.executable).with_name("hausa-asr")),
        "best-model",
        "--uri",
        tracker.uri,
        "--experiment",
        "x",
    ]
    command += ["--out", str(tmp_path / "out"), "--push-to-hub"]
    away = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_none", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([*command, "me/hausa"], capture_output=True, text=True, env=away, timeout=120)
    assert done.returncode == 2 and "could not be pushed" in done.stderr and "Traceback" not in done.stderr
    assert f"hf upload --private me/hausa {tmp_path / 'out'}" in done.stderr.replace("\n", " ")
    assert (tmp_path / "out/model.safetensors").is_file()
    assert subprocess.run([*command, "hausa"], capture_output=True, timeout=60).returncode == 2, "no owner"

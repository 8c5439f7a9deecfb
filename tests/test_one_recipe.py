"""A fine-tune by hand: the time left that it shows, and the disk that it takes."""

from __future__ import annotations

import io
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from hausa_asr.dataset.prepared import load_prepared
from hausa_asr.errors import UserError
from hausa_asr.model import feature_files
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.one_recipe import _ProgressDisplay, run_trial
from hausa_asr.recipe import FinetuneConfig, Progress
from hausa_asr.settings.load import load
from helpers.events import report
from helpers.speech import prepared_speech


def progress(step: int, **metrics: float) -> Progress:
    fields: dict[str, Any] = report(step)  # 10 s of audio a step
    fields["metrics"] |= {"train_loss": 1.0, "audio_s_per_s": 1.25, "eval_runtime_s": 20.0, **metrics}
    return Progress(**fields, samples=[], checkpoint="", best_checkpoint="")


@pytest.mark.parametrize("resumed_from", [0, 40])
def test_time_left_leaves_out_what_came_before_training(resumed_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    shown = io.StringIO()
    display = _ProgressDisplay(Console(file=shown, width=200), 100, resumed_from)
    now_s = 3600.0  # the feature cache was made
    if resumed_from:
        display.report(progress(resumed_from))  # its checkpoint's, at once
    now_s += 100.0  # 80 s of training, 20 s of evaluation
    display.report(progress(resumed_from + 10))
    now_s += 50.0
    display.report(progress(resumed_from + 20))
    steps_left = 90 - resumed_from
    first, second = [line.split("audio-s/s")[1].split()[0] for line in shown.getvalue().splitlines()[-2:]]
    assert first == f"{100 * steps_left // 10 // 60}:{100 * steps_left // 10 % 60:02d}"
    assert second == f"{150 * (steps_left - 10) // 20 // 60}:{150 * (steps_left - 10) // 20 % 60:02d}"


def test_a_disk_without_room_for_what_a_trial_writes_is_refused_and_a_tight_one_has_no_cache(
    layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out, said = load_prepared(prepared_speech(tmp_path)), tmp_path / "trial", io.StringIO()
    model, _ = new_model(str(layer_norm_base), FinetuneConfig())
    every = sum(one.numel() for one in model.parameters())
    learning = every - sum(one.numel() for one in model.wav2vec2.feature_extractor.parameters())
    needed = 32 * learning  # a weight and two moments, the best model's, and both again while they are replaced
    monkeypatch.setattr(feature_files, "SPARE_BYTES", 0)
    settings = [f"model.base={layer_norm_base}", f"storage={tmp_path}", "finetune.length_s=4", "finetune.batch_s=2"]
    config = load(None, [*settings, "finetune.mask_feature_prob=0", "finetune.mask_time_length=3"], environment={})

    def trial(free: int) -> dict[str, Any]:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
        return run_trial(config, out, Console(file=said, width=400), lambda: data)

    with pytest.raises(UserError, match=f"take up to {needed / 1e9:,.1f} GB") as refused:
        trial(needed - 1)
    assert refused.value.where == str(out) and "--out" in str(refused.value.fix) and not out.exists()
    assert trial(needed)["model"] == str(out / "model")
    assert "no features of train are cached" in said.getvalue()

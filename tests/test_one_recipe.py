"""The time left that a fine-tune shows."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from rich.console import Console

from hausa_asr.one_recipe import _ProgressDisplay
from hausa_asr.recipe import Progress
from helpers.events import report


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

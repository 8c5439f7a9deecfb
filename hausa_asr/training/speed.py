"""Measure how fast a fine-tune trains and scores, in half a minute, so that a sweep's hours need not be guessed.

In: a recipe, the data and the base checkpoint, on the device that will train. Out: seconds of audio per second. Called
by a sweep before it starts.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from hausa_asr.dataset.parts import dev_part
from hausa_asr.model.device import chosen_device
from hausa_asr.model.evaluate import evaluate
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.training.one_update import update
from hausa_asr.training.run import Data, Window, close, start
from hausa_asr.utterance import SAMPLE_RATE

_WARM = 2
"""Updates that are not counted: the first ones set up kernels and memory."""
_SCORED_S = 120.0
"""Seconds of dev that are scored; the first pass over them is not counted."""


class Rates(NamedTuple):
    """Seconds of audio per second, of updates and of scoring dev."""

    training: float
    scoring: float


def measure(
    config: FinetuneConfig,
    data: Data,
    *,
    base: str,
    device: torch.device | None = None,
    seconds: float = 30.0,
    most: int = 50,
) -> Rates:
    """Make some updates of a fine-tune, and score a little of dev. Features are not cached, which is a little slower.

    Args:
        config: the recipe.
        data: the data.
        base: the base checkpoint.
        device: where to compute, as for `finetune`.
        seconds: of updates, at most, and of one at least.
        most: updates, at most.

    Raises:
        UserError: the base checkpoint cannot be used.
        TooLittleMemory: not even one utterance fits.
    """
    device = chosen_device(device)
    dev = dev_part(data.dev, _SCORED_S)
    with tempfile.TemporaryDirectory(prefix="hausa-asr-speed-") as folder:
        run = start(config, data, base, Path(folder), device, None, None)
        try:
            for _ in range(min(_WARM, run.plan.updates - 1)):
                update(run)
            _wait(device)
            run.window = Window(device)
            while run.step < run.plan.updates and run.window.updates < most:
                update(run)
                _wait(device)
                if time.monotonic() - run.window.started >= seconds:
                    break
            training = run.window.audio_s / max(1e-9, time.monotonic() - run.window.started)
            evaluate(run.model, run.processor, dev)
            scored = evaluate(run.model, run.processor, dev)
        finally:
            close(run)
    return Rates(training, float(dev.n_samples.sum()) / SAMPLE_RATE / max(1e-9, scored.runtime_s))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

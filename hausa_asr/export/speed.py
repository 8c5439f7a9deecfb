"""Measure how fast an exported model is on this machine: seconds for each second of audio (real-time factor).

In: a folder. Out: a number, and the clips that it was measured with. Called by `best_model` and by `onnx`.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from hausa_asr.errors import UserError
from hausa_asr.utterance import SAMPLE_RATE, Split

_CLIPS, _CLIPS_S = 100, 600.0
"""The most utterances of dev that are measured, and the most seconds of audio."""
_RTF_S = 60.0
"""Seconds of audio that a real-time factor is measured with."""


def measured_clips(dev: Split | None, most_s: float = _CLIPS_S) -> list[tuple[np.ndarray, str]]:
    """Utterances to measure with, (S,) samples and text: the first of dev, without it noise."""
    if dev is None:
        draw = np.random.default_rng(0)
        return [(draw.normal(0, 0.1, SAMPLE_RATE * n).astype(np.float32), "") for n in (1, 2, 3, 5, 8)]
    clips: list[tuple[np.ndarray, str]] = []
    seconds = 0.0
    for index in range(min(len(dev), _CLIPS)):
        one = dev[index]
        clips.append((one.samples, one.text))
        seconds += len(one.samples) / SAMPLE_RATE
        if seconds > most_s:
            break
    return clips


def real_time_factor(folder: Path, dev: Split | None) -> float:
    """Seconds that a model takes for a second of audio, greedily and clip by clip, on a GPU if there is one.

    Raises:
        UserError: the GPU has no room.
    """
    from hausa_asr.model.device import has_no_room
    from hausa_asr.model.recognizer import Recognizer

    clips = [samples for samples, _ in measured_clips(dev, _RTF_S)]
    try:
        hear = Recognizer(folder, lm=False)
        hear(clips[:1])  # the first call readies things
        began = time.monotonic()
        for one in clips:
            hear([one])
    except RuntimeError as error:
        if not has_no_room(error):
            raise
        raise UserError(
            "The GPU has no room to measure the model's speed.",
            fix="Wait for what is using it, or hide it with CUDA_VISIBLE_DEVICES= to measure on the CPU.",
        ) from error
    return (time.monotonic() - began) * SAMPLE_RATE / sum(map(len, clips))

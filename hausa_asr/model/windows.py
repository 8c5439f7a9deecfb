"""Cut long recordings into windows that overlap: the model needs little memory, and no word is cut at a seam.

In: a recording's samples. Out: windows, each with the frames of it that count: those whose neighbours on both sides the
model has heard. Put side by side they are the frames of the whole recording, and are decoded as one. Attention over a
whole hour would take more memory than there is, and the model was trained on clips of seconds. Called by `evaluate`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hausa_asr.ctc import HOP, WINDOW
from hausa_asr.utterance import SAMPLE_RATE

WHOLE_S = 30.0
"""Recordings of up to this many seconds are one window, as they would be in training."""
_CORE_S, _CONTEXT_S = 20.0, 4.0
"""Of a window: the part that counts, and what is heard beside it on either side, in seconds."""
_QUIET = 0.1
"""A window that is quieter than this share of its recording is not raised to the level of speech."""


class Window(NamedTuple):
    """Part of a recording: samples `start` to `end`, of whose frames `keep` count, after the first `skip`."""

    start: int
    end: int
    skip: int
    keep: int


def windows(n_samples: int, n_frames: int) -> list[Window]:
    """Cut a recording into windows.

    Args:
        n_samples: its samples.
        n_frames: the frames that the model makes of it, one for each `HOP` samples.

    Returns:
        Windows whose frames that count are all of the recording's, once each and in order.
    """
    if n_samples <= WHOLE_S * SAMPLE_RATE:
        return [Window(0, n_samples, 0, n_frames)]
    core, context = (round(seconds * SAMPLE_RATE / HOP) for seconds in (_CORE_S, _CONTEXT_S))
    cut = []
    for first in range(0, n_frames, core):
        keep = min(core, n_frames - first)
        begin, end = max(0, first - context), first + keep + context
        # A frame's samples reach beyond the step to the next one.
        cut.append(Window(begin * HOP, min(n_samples, (end - 1) * HOP + WINDOW), first - begin, keep))
    return cut


def spread_of(samples: np.ndarray) -> float:
    """The standard deviation of samples, (S,), never quite 0; of a long recording it takes half a second."""
    return float(np.sqrt(samples.var() + 1e-7))


def normalised(part: np.ndarray, whole_spread: float = 0.0) -> np.ndarray:
    """Bring a window to zero mean and unit variance, as clips are, but for a pause: that stays quiet.

    Args:
        part: (S,) samples of the window.
        whole_spread: `spread_of` the recording; 0 if the window is all of it.
    """
    return (part - part.mean()) / max(spread_of(part), _QUIET * whole_spread)

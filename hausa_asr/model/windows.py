"""Cut long recordings into windows at their pauses: the model needs little memory, and no word is cut at a seam.

In: a recording's samples. Out: windows, each with the frames of it that count. Put side by side they are the frames of
the whole recording but for long silences, and are decoded as one. Attention over a whole hour would take more memory
than there is, and the model was trained on clips of seconds. Where speech goes on without a pause, the windows overlap,
so that the frames that count have been heard with their neighbours. Called by `evaluate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from hausa_asr.ctc import HOP, WINDOW
from hausa_asr.utterance import SAMPLE_RATE

WHOLE_S = 30.0
"""Recordings of up to this many seconds are one window, as they would be in training."""
_LEAST_S, _MOST_S = 8.0, 20.0
"""A window's part that counts, in seconds: it ends in the best pause between the two."""
_PAUSE_S, _PAUSE_DB = 0.3, 15.0
"""A pause is so long, and so much quieter than the loud parts of its surroundings."""
_CONTEXT_S = 4.0
"""What is heard beside the part that counts, where there is no pause."""
_SILENCE_S, _SILENCE_DB, _MARGIN_S = 1.0, 35.0, 0.2
"""Silence is so long, and so much quieter than the loud parts of the recording; it is not heard, but for its ends."""
_QUIET = 0.1
"""A window that is quieter than this share of its recording is not raised to the level of speech."""
_BLOCK = 3000 * HOP
"""Samples that are looked at together: a minute."""


class Samples(Protocol):
    """A recording whose samples, (S,) float32, are read by slices: an array, or one that lies on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


class Window(NamedTuple):
    """Samples `start` to `end` of a recording: of their frames `keep` count, after `skip`, and are those from `first`.

    `first` counts the recording's frames.
    """

    start: int
    end: int
    skip: int
    keep: int
    first: int


class Survey(NamedTuple):
    """What is known of a recording before it is heard: (F,) levels in dB, one for each `HOP`, and its `spread_of`."""

    levels: np.ndarray
    spread: float


def survey(samples: Samples) -> Survey:
    """Measure how loud a recording is where; of an hour it takes a third of a second."""
    levels, total, squares = [], 0.0, 0.0
    for start in range(0, len(samples), _BLOCK):
        block = samples[start : start + _BLOCK]
        total += float(block.sum(dtype=np.float64))
        squares += float(np.einsum("s,s->", block, block, dtype=np.float64))
        steps = block[: len(block) // HOP * HOP].reshape(-1, HOP)
        levels.append(10 * np.log10(steps.var(axis=1) + 1e-12))
    mean = total / max(1, len(samples))
    return Survey(np.concatenate(levels or [np.zeros(0)]), float(np.sqrt(squares / max(1, len(samples)) - mean**2)))


def windows(levels: np.ndarray, n_samples: int, n_frames: int) -> list[Window]:
    """Cut a recording into windows.

    Args:
        levels: (F,) from `survey`; not looked at if the recording is short.
        n_samples: its samples.
        n_frames: the frames that the model makes of it, one for each `HOP` samples.

    Returns:
        Windows whose frames that count are the recording's, once each at most and in order; those of none are silence.
    """
    if n_samples <= WHOLE_S * SAMPLE_RATE:
        return [Window(0, n_samples, 0, n_frames, 0)]
    levels = np.append(levels, np.full(max(0, n_frames - len(levels)), -np.inf))[:n_frames]
    context, around = _frames(_CONTEXT_S), _loudest(levels, _frames(_PAUSE_S))
    cut = []
    for begin, end in _sounding(levels):
        seams = [(begin, True), *_seams(levels, around, begin, end), (end, True)]
        for (first, after_pause), (last, before_pause) in pairwise(seams):
            heard = first if after_pause else max(begin, first - context)
            until = last if before_pause else min(end, last + context)
            # A frame's samples reach beyond the step to the next one.
            samples_end = min(n_samples, (until - 1) * HOP + WINDOW)
            cut.append(Window(heard * HOP, samples_end, first - heard, last - first, first))
    return cut


def _frames(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE / HOP)


def _loudest(levels: np.ndarray, frames: int) -> np.ndarray:
    """The highest level within a stretch of so many frames around each."""
    from scipy.ndimage import maximum_filter1d

    return maximum_filter1d(levels, frames, mode="nearest")


def _sounding(levels: np.ndarray) -> Iterator[tuple[int, int]]:
    """The stretches of a recording that are no silence, each with its margins, as frames from and to."""
    silent = _loudest(levels, 2 * _frames(_MARGIN_S) + 1) < np.percentile(levels, 95) - _SILENCE_DB
    edges = np.flatnonzero(np.diff(silent.astype(np.int8), prepend=0, append=0))
    begin = 0
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if stop - start >= _frames(_SILENCE_S - 2 * _MARGIN_S):
            if start > begin:
                yield begin, start
            begin = stop
    if begin < len(levels):
        yield begin, len(levels)


def _seams(levels: np.ndarray, around: np.ndarray, begin: int, end: int) -> Iterator[tuple[int, bool]]:
    """Where a stretch is cut, as frames, and whether in a pause: at the quietest place within reach."""
    least, most = _frames(_LEAST_S), _frames(_MOST_S)
    while end - begin > most:
        reach = around[begin + least : min(begin + most, end - _frames(1.0))]
        pause = reach.min() < np.percentile(levels[begin : begin + most], 90) - _PAUSE_DB
        # In a pause its middle; in speech as late as possible, since every seam costs its surroundings.
        at = _middle(reach) if pause else len(reach) - 1
        begin += least + at
        yield begin, pause


def _middle(reach: np.ndarray) -> int:
    """The middle of the last stretch that is within 3 dB of the lowest."""
    low = np.flatnonzero(reach <= reach.min() + 3.0)
    starts = np.flatnonzero(np.diff(low, prepend=-2) > 1)
    return int(low[starts[-1] :].mean())


def spread_of(samples: np.ndarray) -> float:
    """The standard deviation of samples, (S,), never quite 0."""
    return float(np.sqrt(samples.var() + 1e-7))


def normalised(part: np.ndarray, whole_spread: float = 0.0) -> np.ndarray:
    """Bring a window to zero mean and unit variance, as clips are, but for a pause: that stays quiet.

    Args:
        part: (S,) samples of the window.
        whole_spread: the standard deviation of the recording; 0 if the window is all of it.
    """
    return (part - part.mean()) / max(spread_of(part), _QUIET * whole_spread)

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
_LEAST_S, _MOST_S = 5.0, 20.0
"""A window's part that counts, in seconds: it ends in the first pause between the two, as the clips of training do."""
_REST_S = 1.0
"""The last window's, at least."""
_PAUSE_S, _PAUSE_DB = 0.3, 15.0
"""A pause is so long, and so much quieter than the loud parts of its surroundings."""
_CLEAR_S, _CLEAR_DB = 0.4, 25.0
"""A pause so clear that no word goes on beyond it."""
_CONTEXT_S = 4.0
"""Seconds of audio on either side of the part that counts, where there is no pause."""
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
        levels: (F,) from `survey`; none for a recording that is to be heard whole.
        n_samples: its samples.
        n_frames: the frames that the model makes of it, one for each `HOP` samples.

    Returns:
        Windows whose frames that count are the recording's, once each at most and in order; those of none are silence.
    """
    if not len(levels):
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


def word_ends(levels: np.ndarray) -> list[int]:
    """Frames in the middle of clear pauses, beyond which no word goes on.

    A model that has learned from single sentences does not write the space between two.

    Args:
        levels: (F,) from `survey`; none of a short recording.
    """
    if not len(levels):
        return []
    nearby = _loudest(levels, _frames(2 * _MOST_S))
    quiet = _loudest(levels, _frames(_CLEAR_S)) < nearby - _CLEAR_DB
    return [(start + stop) // 2 for start, stop in _runs(quiet)]


def _frames(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE / HOP)


def _loudest(levels: np.ndarray, frames: int) -> np.ndarray:
    """The moving maximum of the levels, (F,), over windows of so many frames."""
    from scipy.ndimage import maximum_filter1d

    return maximum_filter1d(levels, frames, mode="nearest")


def _sounding(levels: np.ndarray) -> Iterator[tuple[int, int]]:
    """The stretches of a recording that are no silence, each with its margins, as frames from and to."""
    silent = _loudest(levels, 2 * _frames(_MARGIN_S) + 1) < _loud(levels) - _SILENCE_DB
    begin = 0
    for start, stop in _runs(silent):
        if stop - start >= _frames(_SILENCE_S - 2 * _MARGIN_S):
            if start > begin:
                yield begin, start
            begin = stop
    if begin < len(levels):
        yield begin, len(levels)


def _loud(levels: np.ndarray) -> float:
    """How loud a recording is where somebody speaks, however seldom that is: a twentieth of it, or five seconds."""
    least = min(_frames(5.0), len(levels))
    return max(float(np.percentile(levels, 95)), float(np.partition(levels, -least)[-least]))


def _seams(levels: np.ndarray, around: np.ndarray, begin: int, end: int) -> Iterator[tuple[int, bool]]:
    """Where a stretch is cut, as frames, and whether in a pause: the first that leaves the window long enough."""
    least, most, rest = _frames(_LEAST_S), _frames(_MOST_S), _frames(_REST_S)
    while end - begin > least:
        until = min(begin + most, end)
        limit = np.percentile(levels[begin:until], 90) - _PAUSE_DB
        pause = next(_runs(around[begin + least : min(until, end - rest)] < limit), None)
        if pause is not None:
            begin += least + sum(pause) // 2
            yield begin, True
        elif until < end:
            # Where speech goes on, as late as possible: every seam costs its surroundings.
            begin = min(until, end - rest)
            yield begin, False
        else:
            return


def _runs(true: np.ndarray) -> Iterator[tuple[int, int]]:
    """The stretches of frames for which it is true, each from and to."""
    edges = np.flatnonzero(np.diff(true.astype(np.int8), prepend=0, append=0)).tolist()
    yield from zip(edges[::2], edges[1::2], strict=True)


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

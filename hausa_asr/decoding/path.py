"""Read the text off a path, and its words with their times.

A path is the label of each frame. In: paths, as greedy decoding and the beam search give them, and logits. Out: texts
and `Word`s, each with how sure the model is of it. Only NumPy is needed. Called by `transcribe` and by the tools around
language models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hausa_asr.ctc import HOP
from hausa_asr.text import PAD, UNK, VOCAB, WORD
from hausa_asr.utterance import SAMPLE_RATE

FRAME_S = HOP / SAMPLE_RATE
"""Seconds from one frame to the next."""
_SYMBOLS = sorted(VOCAB, key=VOCAB.__getitem__)
_SPACE = VOCAB[WORD]
_SILENT = (VOCAB[PAD], VOCAB[UNK])

FindPaths = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""Finds the paths, each (T,), of the logits of N recordings, each (T, V)."""


@dataclass(frozen=True)
class Word:
    """A word that was heard.

    Attributes:
        text: the word.
        start_s, end_s: from its first letter to its last, in seconds. CTC puts letters where it becomes sure of them,
            so they are right to about a tenth of a second, and ends come early.
        confidence: the geometric mean of its letters' chances, from 0 to 1; or what a calibration makes of it. Without
            one a model that has learnt its data by heart is sure of everything.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float


def greedy_paths(logits: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The likeliest label of each frame."""
    return [one.argmax(axis=1) for one in logits]


def greedy_texts(logits: Sequence[np.ndarray]) -> list[str]:
    """Decode N recordings of any lengths greedily, each (T, V)."""
    return [text_of(path) for path in greedy_paths(logits)]


def text_of(path: np.ndarray) -> str:
    """The text of a path: repeats merged, then blanks dropped; words separated by one space.

    Args:
        path: (T,) labels.
    """
    labels, _ = _merged(path)
    letters = "".join(" " if label == _SPACE else _SYMBOLS[label] for label in labels if label not in _SILENT)
    return " ".join(letters.split())


def words_of(
    path: np.ndarray, logits: np.ndarray, calibration: Callable[[float], float] = lambda confidence: confidence
) -> list[Word]:
    """The words of a path, with their times.

    Args:
        path: (T,) labels.
        logits: (T, V), from which it was found.
        calibration: makes a chance of being right of the model's own confidence.
    """
    labels, starts = _merged(path)
    ends = [*starts[1:], len(path)]
    words: list[list[int]] = [[]]
    for place, label in enumerate(labels):
        if label == _SPACE:
            words.append([])
        elif label not in _SILENT:
            words[-1].append(place)
    found = []
    for places in filter(None, words):
        sure = [_best_log_chance(logits, starts[at], ends[at], labels[at]) for at in places]
        found.append(
            Word(
                "".join(_SYMBOLS[labels[at]] for at in places),
                round(starts[places[0]] * FRAME_S, 3),
                round(ends[places[-1]] * FRAME_S, 3),
                round(calibration(float(np.exp(np.mean(sure)))), 4),
            )
        )
    return found


def _merged(path: np.ndarray) -> tuple[list[int], list[int]]:
    """Each run of one label, and the frame where it starts."""
    if not len(path):
        return [], []
    starts = np.flatnonzero(np.diff(path, prepend=path[0] - 1))
    return path[starts].tolist(), starts.tolist()


def _best_log_chance(logits: np.ndarray, start: int, end: int, label: int) -> float:
    """The logarithm of a label's chance in the frame of its run where it is the highest."""
    rows = logits[start:end].astype(np.float64)
    rows = rows - rows.max(axis=1, keepdims=True)
    return float((rows[:, label] - np.log(np.exp(rows).sum(axis=1))).max())

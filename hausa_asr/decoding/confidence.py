"""Make confidences mean what they say: of the words with 0.8, eight in ten are right.

A model is surer than it should be of what it heard, most of all after it has learnt its data by heart. In: words of
dev with the model's own confidence, and which of them are right. Out: a `Calibration`, which an exported model keeps in
a file. Platt's scaling (1999): a line through log odds, two numbers, so that a few hundred words are enough. Called by
the check of an export, and by `transcribe`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from hausa_asr.errors import UserError

CONFIDENCE_FILE = "confidence.json"
GREEDY, WITH_LM = "greedy", "lm"
"""What a model's file knows of: greedy decoding, and its own language model."""
FEWEST = 100
"""Words, at least, that a calibration is made of."""
_FOLDS, _BINS = 5, 10
_SUREST = 0.9999
"""Words are rounded to four digits: nothing is surer than this, and nothing less sure than the rest of 1."""


class Calibration(NamedTuple):
    """What makes a chance of being right of a model's own confidence.

    Attributes:
        slope, shift: of the line through the log odds.
        words: how many it was made of.
        error, raw_error: expected calibration error with and without it: how far the mean confidence is from the share
            of right words, over ten bins of confidence. With it, of words that it was not made of.
    """

    slope: float
    shift: float
    words: int
    error: float
    raw_error: float

    def __call__(self, confidence: float) -> float:
        """The chance that a word is right, from 0 to 1."""
        return float(_chances(np.array([confidence]), self.slope, self.shift)[0])


def calibrated(utterances: Sequence[tuple[Sequence[float], Sequence[bool]]]) -> Calibration | None:
    """Calibrate on words; None if they are too few.

    Args:
        utterances: of each its words' confidences, and which are right.
    """
    raw = np.array([one for confidences, _ in utterances for one in confidences])
    right = np.array([one for _, rights in utterances for one in rights], dtype=bool)
    if len(raw) < FEWEST:
        return None
    # An utterance's words are alike, so all of them are in one fold.
    fold = np.repeat(np.arange(len(utterances)) % _FOLDS, [len(confidences) for confidences, _ in utterances])
    held_out = np.zeros(len(raw))
    for number in range(_FOLDS):
        inside = fold == number
        held_out[inside] = _chances(raw[inside], *_line(raw[~inside], right[~inside]))
    return Calibration(*_line(raw, right), len(raw), expected_error(held_out, right), expected_error(raw, right))


def expected_error(confidences: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error of (N,) confidences, given which are right, over ten bins of equal width."""
    bins = np.minimum((confidences * _BINS).astype(int), _BINS - 1)
    gaps = [abs(confidences[bins == one].sum() - right[bins == one].sum()) for one in range(_BINS)]
    return float(sum(gaps) / max(1, len(right)))


def _log_odds(confidences: np.ndarray) -> np.ndarray:
    sure = np.clip(confidences, 1 - _SUREST, _SUREST)
    return np.log(sure / (1 - sure))


def _chances(confidences: np.ndarray, slope: float, shift: float) -> np.ndarray:
    return expit(slope * _log_odds(confidences) + shift)


def _line(confidences: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """The likeliest slope, not below 0, and shift; a weak prior on no change keeps them finite."""
    features = np.stack([_log_odds(confidences), np.ones(len(right))], axis=1)
    prior = np.array([1.0, 0.0])

    def unlikely(line: np.ndarray) -> tuple[float, np.ndarray]:
        odds = features @ line
        off = line - prior
        loss = np.logaddexp(0, odds).sum() - odds[right].sum() + off @ off / 2
        return float(loss), features.T @ (expit(odds) - right) + off

    found = minimize(unlikely, prior, jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)])
    return float(found.x[0]), float(found.x[1])


def write_calibrations(folder: Path, known: dict[str, Calibration]) -> None:
    """Write a model's calibrations, by `GREEDY` and `WITH_LM`, into its folder."""
    about = {name: one._asdict() for name, one in known.items()}
    (folder / CONFIDENCE_FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def stored_calibration(folder: Path, of: str) -> Calibration | None:
    """The calibration that a model's folder has; None if it has none.

    Raises:
        UserError: its file is broken.
    """
    file = folder / CONFIDENCE_FILE
    if not file.is_file():
        return None
    try:
        about = json.loads(file.read_text(encoding="utf-8")).get(of)
        if about is None:
            return None
        found = Calibration(**about)
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in found):
            raise ValueError("a number is none")
        return found
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            "The file with the calibration of confidences is broken.",
            where=file,
            fix="Export the model again; without this file confidences are not calibrated.",
        ) from error

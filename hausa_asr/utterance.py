"""An utterance as a corpus yields it (`Utterance`), and as a model is trained on it (`Example`, `Split`).

Corpora make `Utterance`s. `prepare` turns them into a prepared dataset, whose splits are `Split`s of `Example`s. Only
NumPy is imported here, so the fine-tune can be used without the packages that read data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

SAMPLE_RATE = 16_000
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Utterance:
    """One clip and its transcript as the corpus has them, neither opened nor checked yet.

    Attributes:
        id: unique within its corpus, stable from run to run.
        audio: where the clip is: an absolute path, a URL, or a row of an Arrow file (`sources.py`).
        text: the transcript as written in the corpus; may be empty.
        split: one of `SPLITS`, or None if the corpus does not say.
        speaker: the speaker's name, or "" if unknown.
        duration_s: the stated duration in seconds, or None if the corpus does not say.
        corpus: the name of the corpus.
    """

    id: str
    audio: str
    text: str
    split: str | None = None
    speaker: str = ""
    duration_s: float | None = None
    corpus: str = ""


class Example(NamedTuple):
    """One utterance ready for the model.

    Attributes:
        id: the utterance's id; its masks are drawn from it.
        samples: (S,) float32 mono at 16 kHz, in [-1, 1], not yet normalised.
        labels: (L,) int64 label ids, without blanks.
        text: the normalised transcript. Scores compare with it and never with the labels.
        speaker: the speaker's name, or "".
        features: (T, C) uint16, the bits of bfloat16 features from the feature cache; then `samples` is empty.
    """

    id: str
    samples: np.ndarray
    labels: np.ndarray
    text: str
    speaker: str
    features: np.ndarray | None = None


class Split(Protocol):
    """A sequence of N examples. Their lengths are known without opening any of them."""

    n_samples: np.ndarray
    """(N,) int64: the length of each example in samples at 16 kHz."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

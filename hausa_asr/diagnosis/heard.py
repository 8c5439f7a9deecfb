"""What a model heard of a split: the transcripts beside what was recognised, with what is known of each clip.

In: a model and a split. Out: `Heard`, one row per utterance, from which all counts are made. Called by `diagnose`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import jiwer
import numpy as np

from hausa_asr.utterance import SAMPLE_RATE, Split

if TYPE_CHECKING:
    from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

_FRAME = 400
"""Samples whose energy is taken together, 25 ms."""
_QUIET, _LOUD = 10, 90
"""Percentiles of the frames' energy that count as noise and as speech."""


@dataclass(frozen=True)
class Heard:
    """The U utterances of a split, in its order.

    Attributes:
        ids, references, hypotheses, speakers: of each; a speaker is "" if unknown.
        seconds: (U,) the clips' lengths.
        snr_db: (U,) how far the loud frames are above the quiet ones, in dB: a rough signal-to-noise ratio.
    """

    ids: Sequence[str]
    references: Sequence[str]
    hypotheses: Sequence[str]
    speakers: Sequence[str]
    seconds: np.ndarray
    snr_db: np.ndarray

    @cached_property
    def words(self) -> list[list[jiwer.AlignmentChunk]]:
        """The alignment of each utterance's words."""
        return jiwer.process_words(list(self.references), list(self.hypotheses)).alignments

    @cached_property
    def letters(self) -> list[list[jiwer.AlignmentChunk]]:
        """The alignment of each utterance's letters, spaces among them."""
        return jiwer.process_characters(list(self.references), list(self.hypotheses)).alignments


def heard(model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, split: Split) -> Heard:
    """Transcribe a split by greedy decoding.

    Args:
        model, processor: the model, on the device that is to compute.
        split: N examples, at least one.
    """
    from hausa_asr.model.evaluate import evaluate

    report = evaluate(model, processor, split)
    return Heard(
        report.ids,
        report.references,
        report.hypotheses,
        report.speakers,
        np.asarray(split.n_samples) / SAMPLE_RATE,
        np.array([snr_db(split[index].samples) for index in range(len(split))]),
    )


def snr_db(samples: np.ndarray) -> float:
    """How far a clip's loud frames are above its quiet ones, in dB, from 0 to 80.

    Args:
        samples: (S,) float.
    """
    whole = len(samples) // _FRAME * _FRAME
    if not whole:
        return 0.0
    energy = np.square(samples[:whole].reshape(-1, _FRAME)).mean(axis=1)
    quiet, loud = np.percentile(energy, [_QUIET, _LOUD])
    if loud <= 0:
        return 0.0
    return float(np.clip(10 * np.log10(loud / max(quiet, 1e-12)), 0.0, 80.0))

"""What a model heard of a split: the transcripts beside what was recognised, with what is known of each clip.

In: a model and a split. Out: `Heard`, one row per utterance, from which all counts are made. Called by `diagnose`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import jiwer
import numpy as np

from hausa_asr.decoding.path import greedy_paths, text_of
from hausa_asr.text import PAD, UNK, VOCAB, WORD
from hausa_asr.utterance import SAMPLE_RATE, Split

if TYPE_CHECKING:
    from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

_AT_ONCE = 256
"""Utterances that are heard together."""
_FRAME = 400
"""Samples whose energy is taken together, 25 ms."""
_QUIET, _LOUD = 10, 90
"""Percentiles of the frames' energy that count as noise and as speech."""


class Frames(NamedTuple):
    """What the frames of each utterance hold, each (U,).

    Attributes:
        blank, all: frames in which a blank is likeliest, and all of them.
        single, letters: letters that hold one frame only, and all that are heard.
    """

    blank: np.ndarray
    all: np.ndarray
    single: np.ndarray
    letters: np.ndarray


@dataclass(frozen=True)
class Heard:
    """The U utterances of a split, in its order.

    Attributes:
        ids, references, hypotheses, speakers: of each; a speaker is "" if unknown.
        seconds: (U,) the clips' lengths.
        snr_db: (U,) how far the loud frames are above the quiet ones, in dB: a rough signal-to-noise ratio.
        corpora: of each, where several corpora were joined; else ().
        frames: what they hold; None where only the texts are known.
    """

    ids: Sequence[str]
    references: Sequence[str]
    hypotheses: Sequence[str]
    speakers: Sequence[str]
    seconds: np.ndarray
    snr_db: np.ndarray
    corpora: Sequence[str] = ()
    frames: Frames | None = None

    @cached_property
    def words(self) -> list[list[jiwer.AlignmentChunk]]:
        """The alignment of each utterance's words."""
        return jiwer.process_words(list(self.references), list(self.hypotheses)).alignments

    @cached_property
    def letters(self) -> list[list[jiwer.AlignmentChunk]]:
        """The alignment of each utterance's letters, spaces among them."""
        return jiwer.process_characters(list(self.references), list(self.hypotheses)).alignments


def heard(model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, split: Split, corpora: Sequence[str] = ()) -> Heard:
    """Transcribe a split by greedy decoding.

    Args:
        model, processor: the model, on the device that is to compute.
        split: N examples, at least one.
        corpora: the names of those that were joined, if several were.
    """
    from hausa_asr.model.evaluate import recording_logits

    ids, references, hypotheses, speakers, levels, counts = [], [], [], [], [], []
    for first in range(0, len(split), _AT_ONCE):
        examples = [split[index] for index in range(first, min(first + _AT_ONCE, len(split)))]
        logits = recording_logits(model, processor, [one.samples for one in examples], whole_s=math.inf)
        for example, path in zip(examples, greedy_paths(logits), strict=True):
            ids.append(example.id)
            references.append(example.text)
            hypotheses.append(text_of(path))
            speakers.append(example.speaker)
            levels.append(snr_db(example.samples))
            counts.append(_counted(path))
    return Heard(
        ids,
        references,
        hypotheses,
        speakers,
        np.asarray(split.n_samples) / SAMPLE_RATE,
        np.array(levels),
        [corpus_of(one, corpora) for one in ids] if corpora else (),
        Frames(*np.array(counts).T),
    )


def _counted(path: np.ndarray) -> tuple[int, int, int, int]:
    """The counts of `Frames` of one utterance's path, (T,)."""
    starts = np.flatnonzero(np.diff(path, prepend=-1))
    held, labels = np.diff(np.append(starts, len(path))), path[starts]
    letters = ~np.isin(labels, [VOCAB[PAD], VOCAB[UNK], VOCAB[WORD]])
    return int((path == VOCAB[PAD]).sum()), len(path), int((held[letters] == 1).sum()), int(letters.sum())


def joined_corpora(report: Mapping[str, Any]) -> list[str]:
    """The corpora that a prepared dataset was joined from, by its report; [] if there is only one."""
    origin = report.get("origin")
    parts = origin.get("join") if isinstance(origin, Mapping) else None
    return [str(part.get("name") or part.get("corpus")) for part in parts or []]


def corpus_of(id: str, corpora: Sequence[str]) -> str:
    """The corpus of an utterance of a joined dataset, whose ids begin with it; "" if that is none of them."""
    name = id.partition("/")[0]
    return name if name in corpora else ""


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

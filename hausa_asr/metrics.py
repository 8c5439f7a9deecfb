"""Word and character error rates: lists of references and hypotheses in, counts, rates and intervals out.

Rates are corpus level: errors of all utterances over the length of all references, never a mean of utterances' rates.
Texts are compared as they come; `text.normalise` or `text.fold` them first. Called by `evaluate`, by the sweep's
verdict and by `diagnose`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

FEWEST_SPEAKERS = 8
"""With fewer, an interval over speakers says more about which of them happened to be drawn than about the model."""
_CHUNK = 4_000_000
"""Draws at a time: some 100 MB at the most, whatever the number of resamples."""


@dataclass(frozen=True)
class Counts:
    """Errors of an alignment with the fewest errors, summed over utterances.

    Attributes:
        errors: substitutions + deletions + insertions.
        substitutions: units heard as another.
        deletions: units of the reference that are missing.
        insertions: units that the reference does not have.
        reference_length: words, or characters with the spaces between words, in the references.
    """

    errors: int
    substitutions: int
    deletions: int
    insertions: int
    reference_length: int

    @property
    def rate(self) -> float:
        """Errors per unit of reference; above 1 where much is inserted.

        References without any word count as one unit, so that the rate is always finite: 0 if nothing was heard
        either, and else the number of insertions.
        """
        return self.errors / max(1, self.reference_length)


def word_counts(references: Sequence[str], hypotheses: Sequence[str]) -> Counts:
    """Word errors of N hypotheses against N references; blank lines count like any others.

    Raises:
        ValueError: there are more of one than of the other.
        TypeError: one of them is a single text and not a list.
    """
    return _counts(jiwer.process_words(*_paired(references, hypotheses)))


def char_counts(references: Sequence[str], hypotheses: Sequence[str]) -> Counts:
    """Character errors, likewise; the space between two words is a character."""
    return _counts(jiwer.process_characters(*_paired(references, hypotheses)))


def wer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word error rate over all utterances."""
    return word_counts(references, hypotheses).rate


def cer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Character error rate over all utterances."""
    return char_counts(references, hypotheses).rate


def counts_by_utterance(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Word errors and words of the reference of each of U utterances, both (U,) int64; their sums are `word_counts`'.

    Raises:
        ValueError, TypeError: as `word_counts`.
    """
    aligned = jiwer.process_words(*_paired(references, hypotheses))
    errors = [
        sum(
            max(part.ref_end_idx - part.ref_start_idx, part.hyp_end_idx - part.hyp_start_idx)
            for part in parts
            if part.type != "equal"
        )
        for parts in aligned.alignments[: len(references)]  # jiwer makes one of none
    ]
    words = [len(reference) for reference in aligned.references[: len(references)]]
    return np.array(errors, dtype=np.int64), np.array(words, dtype=np.int64)


def bootstrap_units(speakers: Sequence[str]) -> tuple[str, np.ndarray]:
    """What is resampled: speakers where all are known and there are enough of them, else utterances.

    What one speaker says is heard alike well or badly, so that utterances drawn one by one give intervals that are too
    narrow (Bisani and Ney, 2004).

    Args:
        speakers: one for each of U utterances, "" where unknown.

    Returns:
        `speaker` or `utterance`, and for each utterance the number of its unit, (U,).
    """
    known = Counter(speakers)
    if "" in known or len(known) < FEWEST_SPEAKERS:
        return "utterance", np.arange(len(speakers))
    numbers = {speaker: number for number, speaker in enumerate(known)}
    return "speaker", np.array([numbers[speaker] for speaker in speakers])


def bootstrap_wer(
    errors: np.ndarray, words: np.ndarray, units: np.ndarray, *, resamples: int = 10_000, seed: int = 0
) -> np.ndarray:
    """Corpus WER of M models on resampled dev sets, the same for all of them, so that differences can be told (paired).

    Of G units G - 1 are drawn with replacement: with G the variance would come out (G - 1) / G of what it is, which
    matters for few speakers (Rao and Wu, 1988).

    Args:
        errors: word errors of each model on each utterance, (M, U).
        words: words of each reference, (U,).
        units: the unit of each utterance, (U,), from 0, as `bootstrap_units` gives them.
        resamples: how many dev sets are drawn.
        seed: the same one gives the same dev sets.

    Returns:
        (resamples, M).
    """
    n_units = int(units.max()) + 1
    sums = np.stack([np.bincount(units, row, n_units) for row in (words, *errors)], axis=1)
    draw = np.random.default_rng(seed)
    at_once = max(1, _CHUNK // n_units)
    totals = []
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = draw.integers(n_units, size=(rows, max(1, n_units - 1)))
        drawn += n_units * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * n_units).reshape(rows, n_units)
        totals.append(times.astype(np.float64) @ sums)
    total = np.concatenate(totals)
    return total[:, 1:] / np.maximum(total[:, :1], 1)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of resampled values, (R,)."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _paired(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[list[str], list[str]]:
    if isinstance(references, str) or isinstance(hypotheses, str):
        raise TypeError("references and hypotheses are lists of texts, not one text")
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    # jiwer counts a doubled space as a character and a tab as part of a word.
    return [" ".join(text.split()) for text in references], [" ".join(text.split()) for text in hypotheses]


def _counts(aligned: jiwer.WordOutput | jiwer.CharacterOutput) -> Counts:
    substitutions, deletions, insertions = aligned.substitutions, aligned.deletions, aligned.insertions
    return Counts(
        errors=substitutions + deletions + insertions,
        substitutions=substitutions,
        deletions=deletions,
        insertions=insertions,
        reference_length=aligned.hits + substitutions + deletions,
    )

"""Word and character error rates: lists of references and hypotheses in, counts, rates and intervals out.

Rates are corpus level: the errors of all utterances over the length of all references, never a mean of utterances'
rates. Texts are compared as they come; `text.normalise` or `text.fold` them first. Called by `evaluate` and by the
sweep's verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jiwer
import numpy as np
from rapidfuzz.distance import Levenshtein

FEWEST_SPEAKERS = 8
"""With fewer, an interval over speakers is mostly about who was recorded, and little about the model."""
_CHUNK = 4_000_000
"""Draws at a time: about 100 MB at most, for any number of resamples."""


@dataclass(frozen=True)
class Counts:
    """The errors of the best alignments, summed over utterances.

    Attributes:
        errors: substitutions + deletions + insertions.
        substitutions: units recognised as another.
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
        """Errors per unit of reference; above 1 with many insertions.

        References without any word count as one unit, so the rate is always finite: the number of insertions.
        """
        return self.errors / max(1, self.reference_length)


def word_counts(references: Sequence[str], hypotheses: Sequence[str]) -> Counts:
    """Count the word errors of N hypotheses against N references; blank lines count like any others.

    Raises:
        ValueError: the lists differ in length.
        TypeError: one of them is a single text and not a list.
    """
    return _counts(jiwer.process_words(*_paired(references, hypotheses)))


def char_counts(references: Sequence[str], hypotheses: Sequence[str]) -> Counts:
    """Count the character errors; the space between two words is a character. Raises as `word_counts`."""
    return _counts(jiwer.process_characters(*_paired(references, hypotheses)))


def wer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """The word error rate over all utterances: 0 is perfect, 1.0 is as many errors as words.

    Both texts are compared as they are, but for spacing: `normalise` them first.

    Args:
        references: N transcripts, of what was said.
        hypotheses: N texts, of what was recognised.

    Raises:
        ValueError: the lists differ in length.
        TypeError: one of them is a single text and not a list.

    Example:
        >>> wer(["ina kwana yau", "lafiya"], ["ina gwana yau", "lafiya"])
        0.25
    """
    return word_counts(references, hypotheses).rate


def cer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """The character error rate over all utterances: 0 is perfect, 1.0 is as many errors as characters.

    Spaces between words count as characters. Both texts are compared as they are: `normalise` them first.

    Args:
        references: N transcripts, of what was said.
        hypotheses: N texts, of what was recognised.

    Raises:
        ValueError: the lists differ in length.
        TypeError: one of them is a single text and not a list.

    Example:
        >>> cer(["ina kwana"], ["ina gwana"])
        0.1111111111111111
    """
    return char_counts(references, hypotheses).rate


def edit_counts(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """Count word and character errors only, without an alignment: 18 times as fast as `word_counts` and `char_counts`.

    Returns:
        (2, 2) int64: the errors in words and in characters, then the words and characters of the references.

    Raises:
        ValueError, TypeError: as `word_counts`.
    """
    pairs = list(zip(*_paired(references, hypotheses), strict=True))
    words = [(reference.split(), hypothesis.split()) for reference, hypothesis in pairs]
    errors = [sum(Levenshtein.distance(*pair) for pair in every) for every in (words, pairs)]
    return np.array([errors, [sum(len(one) for one, _ in every) for every in (words, pairs)]], dtype=np.int64)


class UtteranceCounts(NamedTuple):
    """Word errors and words of the reference of each of U utterances, both (U,) int64."""

    errors: np.ndarray
    words: np.ndarray


def counts_by_utterance(references: Sequence[str], hypotheses: Sequence[str]) -> UtteranceCounts:
    """Count the word errors of each utterance by itself; they add up to `word_counts`.

    Raises:
        ValueError, TypeError: as `word_counts`.
    """
    pairs = zip(*_paired(references, hypotheses), strict=True)
    words = [(reference.split(), hypothesis.split()) for reference, hypothesis in pairs]
    errors = [Levenshtein.distance(*pair) for pair in words]
    return UtteranceCounts(np.array(errors, dtype=np.int64), np.array([len(one) for one, _ in words], dtype=np.int64))


class BootstrapUnits(NamedTuple):
    """What a bootstrap draws.

    Attributes:
        kind: `speaker` or `utterance`.
        numbers: (U,) the number of each utterance's unit, from 0.
    """

    kind: str
    numbers: np.ndarray


def bootstrap_units(speakers: Sequence[str]) -> BootstrapUnits:
    """Choose what to resample: speakers if all are known and there are at least 8, else utterances.

    A speaker's utterances are recognised about equally well. Drawn one by one they give intervals that are too narrow
    (Bisani and Ney, 2004).

    Args:
        speakers: one for each of U utterances, "" if unknown.
    """
    known = Counter(speakers)
    if "" in known or len(known) < FEWEST_SPEAKERS:
        return BootstrapUnits("utterance", np.arange(len(speakers)))
    numbers = {speaker: number for number, speaker in enumerate(known)}
    return BootstrapUnits("speaker", np.array([numbers[speaker] for speaker in speakers]))


def bootstrap_wer(
    errors: np.ndarray, words: np.ndarray, units: np.ndarray, *, resamples: int = 10_000, seed: int = 0
) -> np.ndarray:
    """Corpus WER of M models on resampled dev sets: the same sets for all models, so differences are paired.

    Of G units, G - 1 are drawn with replacement. With G the variance would be too small by a factor of (G - 1) / G,
    which matters for few speakers (Rao and Wu, 1988).

    Args:
        errors: word errors of each model on each utterance, (M, U).
        words: words of each reference, (U,).
        units: the unit of each utterance, (U,), from 0: the `numbers` of `bootstrap_units`.
        resamples: how many dev sets are drawn.
        seed: the same seed draws the same dev sets.

    Returns:
        (resamples, M) rates.
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
    """The lower and upper end of the middle 95 % of resampled values, (R,)."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Gain:
    """One model's WER minus another's on the same utterances, with its 95 % interval; negative where it is better."""

    wer: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the whole interval is below 0."""
        return self.high < 0


def paired_gain(
    errors: np.ndarray, words: np.ndarray, speakers: Sequence[str], *, resamples: int = 10_000, seed: int = 0
) -> Gain:
    """Compare two models by a paired bootstrap: both on the same resampled splits.

    Args:
        errors: word errors of the one and of the other on each utterance, (2, U).
        words: words of each reference, (U,).
        speakers: the speaker of each utterance, "" if unknown.
        resamples, seed: of the bootstrap.
    """
    rates = bootstrap_wer(errors, words, bootstrap_units(speakers).numbers, resamples=resamples, seed=seed)
    one, other = errors.sum(axis=1) / max(1, words.sum())
    return Gain(float(one - other), *interval(rates[:, 0] - rates[:, 1]))


def right_words(reference: str, hypothesis: str) -> list[bool]:
    """Which words of a hypothesis are those of the reference, by jiwer's alignment."""
    if not reference.split():
        return [False] * len(hypothesis.split())
    right = [False] * len(hypothesis.split())
    for chunk in jiwer.process_words(reference, hypothesis).alignments[0]:
        if chunk.type == "equal":
            right[chunk.hyp_start_idx : chunk.hyp_end_idx] = [True] * (chunk.hyp_end_idx - chunk.hyp_start_idx)
    return right


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

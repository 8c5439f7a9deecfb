"""Word and character error rates: lists of references and hypotheses in, counts and rates out.

Rates are corpus level: errors of all utterances over the length of all references, never a mean of utterances' rates.
Texts are compared as they come; `text.normalise` or `text.fold` them first. Called by `evaluate` and `diagnose`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer


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

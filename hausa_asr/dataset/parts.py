"""Choose parts of splits: of dev for the scores of trials, of train to see what more data would give.

A split in, a part of it out. A whole dev split may take most of a trial's time, so trials are scored on about an hour
of it, the same for all. Called by the fine-tune, and at a sweep's end to know whether all of dev is still to be scored.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hausa_asr.recipe import part_s
from hausa_asr.utterance import SAMPLE_RATE, Example, Split


class Part:
    """Some examples of a split, themselves a `Split`.

    Attributes:
        n_samples: (N,) int64 lengths in samples.
    """

    def __init__(self, split: Split, indices: np.ndarray) -> None:
        self._split, self._indices = split, indices
        self.n_samples = np.asarray(split.n_samples)[indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Example:
        """The example at `index` of the part."""
        return self._split[int(self._indices[index])]

    def without_samples(self, index: int) -> Example:
        """The example at `index` without its samples, where the split can do that."""
        return _describer(self._split)(int(self._indices[index]))


def dev_part(split: Split, seconds: float) -> Split:
    """Choose a speaker-balanced part of a split, of about the given duration.

    Speakers take turns, each with one more utterance at random, until there is enough: so a part has as many speakers
    as can be, and tells more of a model than the same time of a few. Utterances without a speaker count as one each.

    Args:
        split: N examples.
        seconds: how much to choose; 0 for all.

    Returns:
        The part, in the split's order; the split itself if it is hardly longer.
    """
    lengths_s = np.asarray(split.n_samples) / SAMPLE_RATE
    whole_s = float(lengths_s.sum())
    if part_s(whole_s, seconds) == whole_s:
        return split
    describe = _describer(split)
    turns: dict[str, int] = {}
    turn = np.zeros(len(split), dtype=np.int64)
    shuffled = np.random.default_rng(0).permutation(len(split))
    for index in shuffled:
        speaker = describe(int(index)).speaker
        if speaker:
            turn[index] = turns[speaker] = turns.get(speaker, -1) + 1
    order = shuffled[np.argsort(turn[shuffled], kind="stable")]
    enough = int(np.searchsorted(np.cumsum(lengths_s[order]), seconds)) + 1
    return Part(split, np.sort(order[:enough]))


def ids_of(split: Split) -> list[str]:
    """The ids of a split's examples, without opening their audio where that can be."""
    describe = _describer(split)
    return [describe(index).id for index in range(len(split))]


def train_part(split: Split, share: float, seed: int) -> Split:
    """Choose a share of a split at random, by duration. With the same seed a smaller share is part of a larger one.

    Args:
        split: N examples.
        share: of its seconds, over 0 and up to 1.
        seed: of the draw.

    Returns:
        The part, in the split's order, at least one example; the split itself for a share of 1.
    """
    if share >= 1:
        return split
    order = np.random.default_rng(seed).permutation(len(split))
    lengths = np.cumsum(np.asarray(split.n_samples)[order])
    enough = max(1, int(np.searchsorted(lengths, share * lengths[-1], side="right")))
    return Part(split, np.sort(order[:enough]))


def _describer(split: Split) -> Callable[[int], Example]:
    describe: Callable[[int], Example] = getattr(split, "without_samples", split.__getitem__)
    return describe

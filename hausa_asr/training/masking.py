"""The masks of SpecAugment as wav2vec 2.0 applies it, drawn on the CPU for each utterance by itself.

An utterance's mask follows from the seed, the epoch and its id, so it is the same whatever batch, micro-batch or rank
the utterance is in, and a resumed trial draws what it would have drawn. Called by `loading`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


def draw_from(*names: object) -> np.random.Generator:
    """A source of chance that follows from names alone, on every machine: (seed, epoch, utterance, ...)."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def span_mask(rng: np.random.Generator, size: int, prob: float, length: int, min_spans: int) -> np.ndarray:
    """Masked positions of one utterance, by the rule of `transformers`' `_compute_mask_indices`.

    Spans of `length` start at distinct positions and may overlap, so the masked share is below `prob`, which is the
    Hugging Face meaning: about the share of positions to mask, not the chance that a span starts (papers print that
    one, a tenth of it).

    Args:
        rng: the source of chance.
        size: the number of positions.
        prob: 0 to 1.
        length: positions per span; shortened to `size` where that is smaller.
        min_spans: at least this many spans, where they fit and `prob` is above 0.

    Returns:
        (size,) bool, true where masked.
    """
    mask = np.zeros(size, dtype=bool)
    length = min(length, size)
    if prob <= 0 or length == 0:
        return mask
    spans = max(int(prob * size / length + rng.random()), min_spans)
    spans = min(spans, size // length, size - length + 1)
    starts = rng.choice(size - length + 1, spans, replace=False)
    mask[(starts[:, None] + np.arange(length)).ravel()] = True
    return mask


@dataclass(frozen=True)
class Masking:
    """The masks of SpecAugment as wav2vec 2.0 applies it: in time on the encoder's input, and over its features."""

    time_prob: float
    time_length: int
    feature_prob: float
    feature_length: int
    seed: int

    @property
    def on(self) -> bool:
        """Whether anything is masked at all."""
        return self.time_prob > 0 or self.feature_prob > 0

    def draw(self, utterance: str, epoch: int, frames: int, hidden: int) -> tuple[np.ndarray, np.ndarray]:
        """The masks of one utterance in one epoch, whatever batch or rank it is in: (frames,) and (hidden,) bool."""
        rng = draw_from(self.seed, epoch, utterance)
        time = span_mask(rng, frames, self.time_prob, self.time_length, min_spans=2)
        feature = span_mask(rng, hidden, self.feature_prob, self.feature_length, min_spans=0)
        return time, feature

    def batch(
        self, ids: Sequence[str], epoch: int, frames: Sequence[int], hidden: int, size: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The masks of a batch padded to `size` frames: (B, size) and (B, hidden) bool; padding is not masked.

        The second is None where no features are masked.
        """
        time = torch.zeros(len(ids), size, dtype=torch.bool)
        feature = torch.zeros(len(ids), hidden, dtype=torch.bool) if self.feature_prob > 0 else None
        for row, (utterance, count) in enumerate(zip(ids, frames, strict=True)):
            one_time, one_feature = self.draw(utterance, epoch, count, hidden)
            time[row, :count] = torch.from_numpy(one_time)
            if feature is not None:
                feature[row] = torch.from_numpy(one_feature)
        return time, feature

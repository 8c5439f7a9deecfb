"""Draw the masks of SpecAugment as wav2vec 2.0 applies it: utterance ids and lengths in, masks out.

An utterance's mask depends only on the seed, the epoch and its id. So it is the same in any batch, micro-batch or rank,
and in a resumed trial. Called by the loader, on the CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from hausa_asr.recipe import FinetuneConfig


def draw_from(*names: object) -> np.random.Generator:
    """A random generator seeded by names such as the seed, the epoch and the utterance; the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def span_mask(rng: np.random.Generator, size: int, prob: float, length: int, min_spans: int) -> np.ndarray:
    """Draw the masked positions of one utterance, by the rule of `transformers`' `_compute_mask_indices`.

    `prob` has the Hugging Face meaning: about the share of positions to mask, and not the chance that a span starts, a
    tenth of it, which papers print. Spans start at distinct positions and may overlap, so the masked share is below it.

    Args:
        rng: the random generator.
        size: the number of positions.
        prob: 0 to 1.
        length: positions per span, at most `size`.
        min_spans: at least this many spans, if they fit and `prob` is above 0.

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


class Masks(NamedTuple):
    """The masks of one utterance: (frames,) and (hidden,) bool, true where masked."""

    time: np.ndarray
    feature: np.ndarray


class BatchMasks(NamedTuple):
    """The masks of a batch: (B, T) and (B, hidden) bool, true where masked; the second is None for no such masks."""

    time: torch.Tensor
    feature: torch.Tensor | None


@dataclass(frozen=True)
class Masking:
    """SpecAugment's settings: spans of the transformer's input frames, and of their features."""

    time_prob: float
    time_length: int
    feature_prob: float
    feature_length: int
    seed: int

    @classmethod
    def of(cls, config: FinetuneConfig) -> Masking:
        """The masking of a recipe."""
        return cls(
            time_prob=config.mask_time_prob,
            time_length=config.mask_time_length,
            feature_prob=config.mask_feature_prob,
            feature_length=config.mask_feature_length,
            seed=config.seed,
        )

    @property
    def on(self) -> bool:
        """Whether anything is masked."""
        return self.time_prob > 0 or self.feature_prob > 0

    def draw(self, utterance: str, epoch: int, frames: int, hidden: int) -> Masks:
        """Draw the masks of one utterance in one epoch."""
        rng = draw_from(self.seed, epoch, utterance)
        time = span_mask(rng, frames, self.time_prob, self.time_length, min_spans=2)
        feature = span_mask(rng, hidden, self.feature_prob, self.feature_length, min_spans=0)
        return Masks(time, feature)

    def batch(self, ids: Sequence[str], epoch: int, frames: Sequence[int], hidden: int, size: int) -> BatchMasks:
        """Draw the masks of a batch that is padded to `size` frames; padding is not masked."""
        time = torch.zeros(len(ids), size, dtype=torch.bool)
        feature = torch.zeros(len(ids), hidden, dtype=torch.bool) if self.feature_prob > 0 else None
        for row, (utterance, count) in enumerate(zip(ids, frames, strict=True)):
            masks = self.draw(utterance, epoch, count, hidden)
            time[row, :count] = torch.from_numpy(masks.time)
            if feature is not None:
                feature[row] = torch.from_numpy(masks.feature)
        return BatchMasks(time, feature)

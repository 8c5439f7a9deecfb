"""Utterances as padded tensors: examples in, a `Batch` out; and which utterances share a batch in an evaluation.

Pure arithmetic on lengths, and NumPy to torch. Called by the fine-tune's loader, the evaluation and the feature cache.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist

from hausa_asr.utterance import SAMPLE_RATE, Example

log = logging.getLogger("hausa_asr.trial")

PAD_LENGTHS = 16
"""The number of lengths that the batches of a trial are padded to."""
PAD_UNIT = 8
"""Frames of 20 ms that padded lengths are multiples of, which suits attention kernels."""
_UNIT_SAMPLES = PAD_UNIT * 320
_UNIT_REST = 80  # n * _UNIT_SAMPLES + _UNIT_REST samples are exactly n * PAD_UNIT frames

Frames = Callable[[torch.Tensor], torch.Tensor]
"""A model's frame counts: (B,) lengths in samples to (B,) lengths in frames."""


@dataclass(frozen=True)
class Share:
    """One rank's share of the work: every `world`-th item, from item `rank`."""

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Share:
        """This process's share under `torch.distributed`; all of the work without it."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    def of(self, items: np.ndarray) -> np.ndarray:
        """This rank's items."""
        return items[self.rank :: self.world]

    def gathered(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order; every rank must call this."""
        values = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value)
        return values


@dataclass
class Batch:
    """B utterances, padded to one length, with either their samples or their cached features.

    Attributes:
        ids: the B utterance ids.
        samples: (B, S) float32, normalised if the checkpoint wants it, padded with 0; None with features.
        features: (B, T, C) bfloat16 from the feature cache, padded with 0; None with samples.
        frames: (B,) int64 frames before padding. Stays on the CPU.
        n_samples: (B,) int64 samples before padding. Stays on the CPU; None with features.
        labels: (sum of lengths,) int64 label ids, one utterance after another.
        label_lengths: (B,) int64. Stays on the CPU.
        time_mask: (B, T) bool, frames to mask; None for no masks.
        feature_mask: (B, hidden) bool, features to mask; None for no masks.
        masked: the masked share of an utterance's frames, summed over the utterances.
    """

    ids: list[str]
    samples: torch.Tensor | None
    features: torch.Tensor | None
    frames: torch.Tensor
    n_samples: torch.Tensor | None
    labels: torch.Tensor
    label_lengths: torch.Tensor
    time_mask: torch.Tensor | None = None
    feature_mask: torch.Tensor | None = None
    masked: float = 0.0

    _ON_DEVICE: ClassVar = ("samples", "features", "labels", "time_mask", "feature_mask")

    def to(self, device: torch.device) -> Batch:
        """Copy what the model reads to `device`, without waiting for the copy."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """Copy it to pinned memory, which a GPU can read by itself."""
        return self._with(lambda tensor: tensor.pin_memory())

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        tensors = {name: getattr(self, name) for name in self._ON_DEVICE}
        changed: Any = {name: change(tensor) for name, tensor in tensors.items() if tensor is not None}
        return replace(self, **changed)


def collate(
    examples: Sequence[Example], do_normalize: bool, frames_of: Frames, edges: np.ndarray | None = None
) -> Batch:
    """Pad examples to a batch.

    Args:
        examples: B utterances, all with features or none.
        do_normalize: bring each utterance to zero mean and unit variance over its own samples, before padding, as
            `Wav2Vec2FeatureExtractor` does; a setting of the checkpoint's preprocessor.
        frames_of: the model's frame counts.
        edges: the lengths in samples that batches are padded to, from `pad_lengths`; None pads to the longest.
    """
    labels = torch.from_numpy(np.concatenate([np.asarray(example.labels, dtype=np.int64) for example in examples]))
    label_lengths = torch.tensor([len(example.labels) for example in examples])
    ids = [example.id for example in examples]
    cached = [example.features for example in examples if example.features is not None]
    if cached:
        frames = torch.tensor([len(one) for one in cached])
        features = _padded_features(cached, int(frames.max()), frames_of, edges)
        return Batch(ids, None, features, frames, None, labels, label_lengths)
    lengths = torch.tensor([len(example.samples) for example in examples])
    longest = int(lengths.max())
    size = longest if edges is None else padded(longest, edges)
    samples = np.zeros((len(examples), size), dtype=np.float32)
    for row, example in zip(samples, examples, strict=True):
        audio = example.samples
        if do_normalize:
            audio = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)
        row[: len(audio)] = audio
    return Batch(ids, torch.from_numpy(samples), None, frames_of(lengths), lengths, labels, label_lengths)


def _padded_features(
    cached: list[np.ndarray], longest: int, frames_of: Frames, edges: np.ndarray | None
) -> torch.Tensor:
    """B features of (T, C) as one (B, T, C) bfloat16 tensor."""
    if edges is not None:
        possible = frames_of(torch.from_numpy(np.asarray(edges)))
        longest = int(possible[int(torch.searchsorted(possible, longest))])
    bits = np.zeros((len(cached), longest, cached[0].shape[1]), dtype=np.uint16)
    for row, one in zip(bits, cached, strict=True):
        row[: len(one)] = one
    return torch.from_numpy(bits).view(torch.bfloat16)


def pad_lengths(n_samples: Sequence[int] | np.ndarray, count: int = PAD_LENGTHS) -> np.ndarray:
    """Choose the few lengths that utterances are padded to, with the least padding in all.

    Few, since a GPU plans its convolutions and its attention anew for every shape.

    Args:
        n_samples: (N,) lengths in samples.
        count: the largest number of padded lengths.

    Returns:
        (at most `count`,) int64 lengths in samples, rising, each a whole multiple of `PAD_UNIT` frames. The last holds
        the longest utterance.
    """
    units = np.maximum(1, -(-(np.asarray(n_samples, dtype=np.int64) - _UNIT_REST) // _UNIT_SAMPLES))
    lengths, counts = np.unique(units, return_counts=True)
    if len(lengths) <= count:
        return lengths * _UNIT_SAMPLES + _UNIT_REST
    # Exact, by dynamic programming: cost[k] is the least that the first k + 1 lengths can be padded to with the edges
    # used so far, and the last of these edges is the k-th length.
    before = np.concatenate([[0], np.cumsum(counts)])
    cost = lengths * before[1:]
    came_from = []
    for _ in range(count - 1):
        # candidate[k, m]: the edge before k is m, so all between them are padded to k.
        candidate = cost[None, :] + lengths[:, None] * (before[1:, None] - before[None, 1:])
        candidate[np.triu_indices(len(lengths))] = np.iinfo(np.int64).max
        best = candidate.argmin(axis=1)
        better = candidate[np.arange(len(lengths)), best] < cost
        came_from.append(np.where(better, best, -1))
        cost = np.where(better, candidate[np.arange(len(lengths)), best], cost)
    edges, edge = [len(lengths) - 1], len(lengths) - 1
    for step in reversed(came_from):
        if step[edge] >= 0:
            edge = int(step[edge])
            edges.append(edge)
    return lengths[sorted(edges)] * _UNIT_SAMPLES + _UNIT_REST


def padded(longest: int, edges: np.ndarray) -> int:
    """The length in samples that a batch is padded to: the first of `edges` that holds its longest utterance.

    Beyond the last edge (a clip played slower is longer) it is the next whole unit.
    """
    index = int(np.searchsorted(edges, longest))
    if index < len(edges):
        return int(edges[index])
    return max(1, -(-(longest - _UNIT_REST) // _UNIT_SAMPLES)) * _UNIT_SAMPLES + _UNIT_REST


def evaluation_batches(n_samples: np.ndarray, batch_s: float) -> Iterator[list[int]]:
    """Cut all utterances into batches of about equal lengths, the longest first.

    Longest first, so that what does not fit into memory fails at once.

    Args:
        n_samples: (N,) lengths in samples.
        batch_s: seconds of audio per batch, padding included.

    Yields:
        The indices of a batch.
    """
    batch: list[int] = []
    for index in np.argsort(-np.asarray(n_samples), kind="stable"):
        if batch and (len(batch) + 1) * n_samples[batch[0]] > batch_s * SAMPLE_RATE:
            yield batch
            batch = []
        batch.append(int(index))
    if batch:
        yield batch


class FittingBatches:
    """The batches of some utterances, the longest first, in halves from where memory was too little for one.

    Args:
        sizes: (N,) lengths in samples of a whole split.
        indices: (M,) those that are wanted.
        batch_s: seconds of audio per batch, padding included.
        what: is done with them, for the log.

    Attributes:
        batch_s: seconds of audio per batch by now.
    """

    def __init__(self, sizes: np.ndarray, indices: np.ndarray, batch_s: float, what: str) -> None:
        self.batch_s, self._what, self._sizes, self._fitted = batch_s, what, sizes, True
        self._left = [indices[part] for part in evaluation_batches(sizes[indices], batch_s)]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield (B,) indices, the same utterances again in smaller batches where `halve` was called."""
        while self._left:
            self._fitted = True
            yield self._left[0]
            if self._fitted:
                del self._left[0]

    def halve(self) -> None:
        """Memory was too little for the batch at hand."""
        self.batch_s /= 2
        self._fitted = False
        log.warning("too little memory: %s in batches of %g s of audio from now on", self._what, self.batch_s)
        rest = np.concatenate(self._left)
        self._left = [rest[part] for part in evaluation_batches(self._sizes[rest], self.batch_s)]

"""Utterances as padded tensors: a `Batch` from examples, and a `Loader` that has a trial's next batches ready.

Everything that can be done on the CPU is done here, beside the device's work: reading, augmentation, normalisation,
masks, padding to one of a few lengths. Called by the fine-tune, the evaluation and the feature cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from hausa_asr.training.augment import Augmentation
from hausa_asr.training.masking import Masking
from hausa_asr.training.updates import Plan, micro_batches, padded
from hausa_asr.utterance import Example, Split

AHEAD = 3
"""Updates that are prepared beforehand for a GPU. On a CPU none: the cores are busy training."""


@dataclass
class Batch:
    """B utterances, padded to one length; either their samples or their cached features.

    Attributes:
        ids: the B utterance ids.
        samples: (B, S) float32, normalised where the checkpoint wants it, padded with 0; None with features.
        features: (B, T, C) bfloat16 from the feature cache, padded with 0; None with samples.
        frames: (B,) int64 frames before padding. Stays on the CPU.
        labels: (sum of lengths,) int64 label ids, one utterance after another.
        label_lengths: (B,) int64. Stays on the CPU.
        time_mask: (B, T) bool, frames to mask; None where nothing is masked.
        feature_mask: (B, hidden) bool, features to mask; None likewise.
        masked: the sum over the utterances of the share of frames that is masked.
    """

    ids: list[str]
    samples: torch.Tensor | None
    features: torch.Tensor | None
    frames: torch.Tensor
    labels: torch.Tensor
    label_lengths: torch.Tensor
    time_mask: torch.Tensor | None = None
    feature_mask: torch.Tensor | None = None
    masked: float = 0.0

    _ON_DEVICE: ClassVar = ("samples", "features", "labels", "time_mask", "feature_mask")

    def to(self, device: torch.device) -> Batch:
        """The same batch with what the model reads on `device`; not waited for."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU can fetch by itself."""
        return self._with(lambda tensor: tensor.pin_memory())

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        found = {name: getattr(self, name) for name in self._ON_DEVICE}
        moved: Any = {name: change(tensor) for name, tensor in found.items() if tensor is not None}
        return replace(self, **moved)


Frames = Callable[[torch.Tensor], torch.Tensor]


def collate(
    examples: Sequence[Example], do_normalize: bool, frames_of: Frames, edges: np.ndarray | None = None
) -> Batch:
    """Pad examples to a batch.

    Args:
        examples: B utterances, all with features or none.
        do_normalize: bring each to zero mean and unit variance over its own samples, before padding, as
            `Wav2Vec2FeatureExtractor` does; the checkpoint's preprocessor says whether.
        frames_of: (B,) lengths in samples to (B,) frames of the model.
        edges: lengths in samples, one of which is padded to; None pads to the longest.
    """
    labels = torch.from_numpy(np.concatenate([np.asarray(example.labels, dtype=np.int64) for example in examples]))
    label_lengths = torch.tensor([len(example.labels) for example in examples])
    ids = [example.id for example in examples]
    cached = [example.features for example in examples if example.features is not None]
    if cached:
        frames = torch.tensor([len(one) for one in cached])
        longest = int(frames.max())
        if edges is not None:
            possible = frames_of(torch.from_numpy(np.asarray(edges)))
            longest = int(possible[int(torch.searchsorted(possible, longest))])
        bits = np.zeros((len(cached), longest, cached[0].shape[1]), dtype=np.uint16)
        for number, one in enumerate(cached):
            bits[number, : len(one)] = one
        return Batch(ids, None, torch.from_numpy(bits).view(torch.bfloat16), frames, labels, label_lengths)
    lengths = [len(example.samples) for example in examples]
    size = max(lengths) if edges is None else padded(max(lengths), edges)
    samples = np.zeros((len(examples), size), dtype=np.float32)
    for row, example in zip(samples, examples, strict=True):
        audio = example.samples
        if do_normalize:
            audio = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)
        row[: len(audio)] = audio
    return Batch(ids, torch.from_numpy(samples), None, frames_of(torch.tensor(lengths)), labels, label_lengths)


class Loader:
    """The batches of a trial, by its updates.

    Args:
        split: what is trained on.
        plan: which utterances make up which update.
        masking, augmentation: what is drawn for each utterance.
        do_normalize, frames_of: as in `collate`.
        hidden: features of the transformer, for their mask.
        micro_batch_s: seconds of audio, padding included, that fit into memory at once.
        few_lengths: pad to the plan's few lengths, and not just to the longest of a batch. Not for group-norm
            checkpoints, which hear the padding.
        rank, world: this rank's share.
        device: where batches are wanted; for a GPU, `AHEAD` updates are prepared in threads.
    """

    def __init__(
        self,
        split: Split,
        plan: Plan,
        masking: Masking,
        augmentation: Augmentation,
        *,
        do_normalize: bool,
        frames_of: Frames,
        hidden: int,
        micro_batch_s: float,
        few_lengths: bool,
        rank: int,
        world: int,
        device: torch.device,
    ) -> None:
        self._split, self._plan = split, plan
        self._masking, self._augmentation = masking, augmentation
        self._do_normalize, self._frames_of, self._hidden = do_normalize, frames_of, hidden
        self._few_lengths = few_lengths
        self._micro_batch_s, self._rank, self._world = micro_batch_s, rank, world
        self._device = device
        self._pool = ThreadPoolExecutor(2, "loader") if device.type == "cuda" else None
        self._ready: dict[int, Future[list[Batch]]] = {}

    def update(self, step: int) -> list[Batch]:
        """This rank's micro-batches of an update, on the device; none where it has no utterance of it."""
        if self._pool is None:
            return self._load(step)
        for ahead in range(step, min(step + 1 + AHEAD, self._plan.updates)):
            if ahead not in self._ready:
                self._ready[ahead] = self._pool.submit(self._load, ahead)
        return [batch.to(self._device) for batch in self._ready.pop(step).result()]

    def close(self) -> None:
        """Let the threads go."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _load(self, step: int) -> list[Batch]:
        epoch, indices = self._plan.batch(step)
        parts = micro_batches(
            indices, self._split.n_samples, self._plan.edges, self._micro_batch_s, self._rank, self._world
        )
        return [self._batch([self._augmentation(self._split[index], epoch) for index in part], epoch) for part in parts]

    def _batch(self, examples: list[Example], epoch: int) -> Batch:
        batch = collate(examples, self._do_normalize, self._frames_of, self._plan.edges if self._few_lengths else None)
        size = self._size(batch)
        if self._masking.on:
            time, feature = self._masking.batch(batch.ids, epoch, batch.frames.tolist(), self._hidden, size)
            masked = float((time.sum(dim=1) / batch.frames).sum())
            batch = replace(batch, time_mask=time, feature_mask=feature, masked=masked)
        return batch.pinned() if self._pool is not None else batch

    def _size(self, batch: Batch) -> int:
        """T, padding included."""
        if batch.features is not None:
            return batch.features.shape[1]
        assert batch.samples is not None
        return int(self._frames_of(torch.tensor([batch.samples.shape[1]])))

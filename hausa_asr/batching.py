"""Which utterances make up which update: a `Plan`, and its utterances as padded tensors, a `Batch`.

The plan is a pure function of the lengths, the seed and the seconds per update, so every rank makes the same one and
a resumed trial finds its place by the step alone. A *global* batch belongs to one update; it is then cut over ranks
and micro-batches, which changes nothing about what is learnt, since the loss is a mean over the global batch and
each utterance's mask is drawn from the seed, the epoch and the utterance's id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from hausa_asr.manifest import SAMPLE_RATE, Example, Split

POOL_BATCHES = 16
"""Utterances are sorted by length within pools of this many batches: little padding, and batches still vary."""


def epoch_order(n_samples: np.ndarray, batch_s: float, seed: int, epoch: int) -> list[np.ndarray]:
    """The global batches of one epoch, as arrays of indices; every utterance is in exactly one.

    Args:
        n_samples: (N,) lengths in samples.
        batch_s: the seconds of audio wanted per batch. The epoch is cut into equal parts closest to that, so that no
            small batch is left over.
        seed: the trial's seed.
        epoch: from 0.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(n_samples))
    total_s = float(n_samples.sum()) / SAMPLE_RATE
    batches = max(1, round(total_s / batch_s))
    pools = max(1, round(batches / POOL_BATCHES))
    parts = [pool[np.argsort(n_samples[pool], kind="stable")] for pool in np.array_split(order, pools)]
    # Every other pool falls in length, so that no batch joins the longest of one pool to the shortest of the next.
    order = np.concatenate([part[:: -1 if number % 2 else 1] for number, part in enumerate(parts)])
    ends = np.cumsum(n_samples[order])
    # A batch gets the utterances whose middle lies in its share of the audio.
    middle = ends - n_samples[order] / 2
    which = np.minimum((middle * batches / ends[-1]).astype(np.int64), batches - 1)
    cut = [part for part in np.split(order, np.flatnonzero(np.diff(which)) + 1) if len(part)]
    return [cut[i] for i in rng.permutation(len(cut))]


class Plan:
    """The updates of a whole trial.

    Args:
        n_samples: (N,) lengths in samples.
        batch_s: seconds of audio per update.
        length_s: the trial's length in seconds of audio trained on; its last update is the first to reach it.
        seed: the trial's seed.

    Attributes:
        updates: the number of updates.
        seen_s: (updates + 1,) float64; `seen_s[k]` is the seconds of audio trained on once k updates are done.
    """

    def __init__(self, n_samples: Sequence[int] | np.ndarray, batch_s: float, length_s: float, seed: int) -> None:
        self._n_samples = np.asarray(n_samples, dtype=np.int64)
        if len(self._n_samples) == 0:
            raise ValueError("a plan needs at least one utterance")
        self._batch_s, self._seed = batch_s, seed
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        seen, starts, epoch = [0.0], [0], 0
        while seen[-1] < length_s:
            for batch in self._epoch(epoch):
                seen.append(seen[-1] + float(self._n_samples[batch].sum()) / SAMPLE_RATE)
                if seen[-1] >= length_s:
                    break
            epoch += 1
            starts.append(len(seen) - 1)
        self.seen_s = np.array(seen)
        self.updates = len(seen) - 1
        self._starts = np.array(starts)

    def _make_epoch(self, epoch: int) -> list[np.ndarray]:
        return epoch_order(self._n_samples, self._batch_s, self._seed, epoch)

    def batch(self, step: int) -> tuple[int, np.ndarray]:
        """The epoch of an update and the indices of its global batch."""
        epoch = int(np.searchsorted(self._starts, step, side="right")) - 1
        return epoch, self._epoch(epoch)[step - int(self._starts[epoch])]


def micro_batches(indices: np.ndarray, n_samples: np.ndarray, micro_batch_s: float, rank: int, world: int) -> list:
    """One rank's share of a global batch, cut so that no part is larger than `micro_batch_s` with its padding.

    Args:
        indices: the global batch.
        n_samples: (N,) lengths in samples of the whole split.
        micro_batch_s: seconds of audio, padding included, that fit into memory at once.
        rank: this rank.
        world: the number of ranks.

    Returns:
        Lists of indices, each sorted by length; an utterance longer than `micro_batch_s` is alone. Empty when there
        are fewer utterances than ranks.
    """
    mine = indices[np.argsort(n_samples[indices], kind="stable")][rank::world]
    parts: list[list[int]] = []
    for index in mine:
        longest = n_samples[index] / SAMPLE_RATE  # sorted, so the newest is the longest
        if parts and (len(parts[-1]) + 1) * longest <= micro_batch_s:
            parts[-1].append(int(index))
        else:
            parts.append([int(index)])
    return parts


@dataclass
class Batch:
    """B utterances, padded to the longest.

    Attributes:
        ids: the B utterance ids.
        samples: (B, S) float32, normalised where the checkpoint wants it, padded with 0.
        n_samples: (B,) int64 lengths before padding.
        labels: (sum of lengths,) int64 label ids, one utterance after another.
        label_lengths: (B,) int64.
    """

    ids: list[str]
    samples: torch.Tensor
    n_samples: torch.Tensor
    labels: torch.Tensor
    label_lengths: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch with what the model reads on `device`."""
        return Batch(
            self.ids,
            self.samples.to(device, non_blocking=True),
            self.n_samples,
            self.labels.to(device, non_blocking=True),
            self.label_lengths.to(device, non_blocking=True),
        )


def collate(examples: Sequence[Example], do_normalize: bool) -> Batch:
    """Pad examples to a batch.

    Args:
        examples: B utterances.
        do_normalize: bring each to zero mean and unit variance over its own samples, before padding, as
            `Wav2Vec2FeatureExtractor` does; the checkpoint's preprocessor says whether.
    """
    lengths = [len(example.samples) for example in examples]
    samples = np.zeros((len(examples), max(lengths)), dtype=np.float32)
    for row, example in zip(samples, examples, strict=True):
        audio = example.samples
        if do_normalize:
            audio = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)
        row[: len(audio)] = audio
    return Batch(
        ids=[example.id for example in examples],
        samples=torch.from_numpy(samples),
        n_samples=torch.tensor(lengths),
        labels=torch.from_numpy(np.concatenate([np.asarray(example.labels, dtype=np.int64) for example in examples])),
        label_lengths=torch.tensor([len(example.labels) for example in examples]),
    )


def evaluation_batches(n_samples: np.ndarray, batch_s: float, one_by_one: bool) -> Iterator[list[int]]:
    """All indices in batches of nearly equal lengths, at most `batch_s` seconds each with padding, longest first.

    Longest first, so that what does not fit into memory fails at once. `one_by_one` is for group-norm checkpoints,
    whose output depends on padding.
    """
    batch: list[int] = []
    for index in np.argsort(-np.asarray(n_samples), kind="stable"):
        if batch and (one_by_one or (len(batch) + 1) * n_samples[batch[0]] > batch_s * SAMPLE_RATE):
            yield batch
            batch = []
        batch.append(int(index))
    if batch:
        yield batch


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

    def draw(self, utterance: str, epoch: int, frames: int, hidden: int) -> tuple[np.ndarray, np.ndarray]:
        """The masks of one utterance in one epoch, whatever batch or rank it is in: (frames,) and (hidden,) bool."""
        digest = hashlib.blake2b(f"{self.seed}/{epoch}/{utterance}".encode(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(digest, "little"))
        time = span_mask(rng, frames, self.time_prob, self.time_length, min_spans=2)
        feature = span_mask(rng, hidden, self.feature_prob, self.feature_length, min_spans=0)
        return time, feature

    def batch(self, ids: Sequence[str], epoch: int, frames: Sequence[int], hidden: int) -> tuple:
        """The masks of a batch: (B, T) and (B, hidden) bool tensors; padding is not masked."""
        time = torch.zeros(len(ids), max(frames), dtype=torch.bool)
        feature = torch.zeros(len(ids), hidden, dtype=torch.bool)
        for row, (utterance, count) in enumerate(zip(ids, frames, strict=True)):
            one_time, one_feature = self.draw(utterance, epoch, count, hidden)
            time[row, :count] = torch.from_numpy(one_time)
            feature[row] = torch.from_numpy(one_feature)
        return time, feature


def load(split: Split, indices: Sequence[int], do_normalize: bool) -> Batch:
    """The examples of a split at `indices`, as a batch."""
    return collate([split[index] for index in indices], do_normalize)

"""Which utterances make up which update, and to what lengths they are padded. Pure arithmetic on lengths.

The plan is a function of the lengths, the seed and the seconds per update, so every rank makes the same one and a
resumed trial finds its place by the step alone. A *global* batch belongs to one update; it is then cut over ranks and
micro-batches, which changes nothing about what is learnt, since the loss is a mean over the global batch and each
utterance's mask is drawn from the seed, the epoch and the utterance's id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from hausa_asr.utterance import SAMPLE_RATE

POOL_BATCHES = 64
"""Utterances are sorted into buckets within pools of this many batches: less leaves more padding where two buckets
meet in one batch (16: 8 to 9 % of Common Voice-like lengths, 32: 7 %, 64: 6 to 7 %)."""
PAD_LENGTHS = 16
PAD_UNIT = 8
"""Frames of 20 ms that padded lengths are multiples of, which suits attention kernels."""
_UNIT_SAMPLES = PAD_UNIT * 320
_UNIT_REST = 80  # so that so many units and this are exactly a multiple of PAD_UNIT frames


def epoch_order(n_samples: np.ndarray, edges: np.ndarray, batch_s: float, seed: int, epoch: int) -> list[np.ndarray]:
    """The global batches of one epoch, as arrays of indices; every utterance is in exactly one.

    Args:
        n_samples: (N,) lengths in samples.
        edges: the lengths that batches are padded to, from `pad_lengths`: each is a bucket. Within a bucket the order
            is left to chance, since all its utterances are padded to the same length.
        batch_s: the seconds of audio wanted per batch. The epoch is cut into equal parts closest to that, so that no
            small batch is left over.
        seed: the trial's seed.
        epoch: from 0.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(n_samples))
    bucket = np.searchsorted(edges, n_samples)
    total_s = float(n_samples.sum()) / SAMPLE_RATE
    batches = max(1, round(total_s / batch_s))
    pools = max(1, round(batches / POOL_BATCHES))
    parts = [pool[np.argsort(bucket[pool], kind="stable")] for pool in np.array_split(order, pools)]
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
        edges: the lengths that batches are padded to, in samples.
    """

    def __init__(self, n_samples: Sequence[int] | np.ndarray, batch_s: float, length_s: float, seed: int) -> None:
        self._n_samples = np.asarray(n_samples, dtype=np.int64)
        if len(self._n_samples) == 0:
            raise ValueError("a plan needs at least one utterance")
        self._batch_s, self._seed = batch_s, seed
        self.edges = pad_lengths(self._n_samples)
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
        return epoch_order(self._n_samples, self.edges, self._batch_s, self._seed, epoch)

    def batch(self, step: int) -> tuple[int, np.ndarray]:
        """The epoch of an update and the indices of its global batch."""
        epoch = int(np.searchsorted(self._starts, step, side="right")) - 1
        return epoch, self._epoch(epoch)[step - int(self._starts[epoch])]


def pad_lengths(n_samples: Sequence[int] | np.ndarray, count: int = PAD_LENGTHS) -> np.ndarray:
    """The few lengths that utterances are padded to, chosen so that the least is padded in all.

    Few, since a GPU plans its convolutions and its attention anew for every shape that it meets.

    Args:
        n_samples: (N,) lengths in samples.
        count: how many lengths there may be.

    Returns:
        (at most `count`,) int64 lengths in samples, rising; the last holds the longest utterance. Each makes a whole
        multiple of `PAD_UNIT` frames.
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
    """The length that a batch is padded to: the first of `edges` that holds its longest utterance, in samples.

    Beyond the last (a clip played slower is longer than it was) it is the next whole unit.
    """
    index = int(np.searchsorted(edges, longest))
    if index < len(edges):
        return int(edges[index])
    return max(1, -(-(longest - _UNIT_REST) // _UNIT_SAMPLES)) * _UNIT_SAMPLES + _UNIT_REST


def micro_batches(
    indices: np.ndarray, n_samples: np.ndarray, edges: np.ndarray, micro_batch_s: float, rank: int, world: int
) -> list[list[int]]:
    """One rank's share of a global batch, cut so that no part is larger than `micro_batch_s` with its padding.

    Args:
        indices: the global batch.
        n_samples: (N,) lengths in samples of the whole split.
        edges: the lengths that batches are padded to, from `pad_lengths`.
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
        longest = padded(int(n_samples[index]), edges) / SAMPLE_RATE  # sorted, so the newest is the longest
        if parts and (len(parts[-1]) + 1) * longest <= micro_batch_s:
            parts[-1].append(int(index))
        else:
            parts.append([int(index)])
    return parts


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

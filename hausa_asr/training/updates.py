"""Plan which utterances make up which update, and where evaluations are: lengths in, indices and steps out.

Pure arithmetic. Called by the fine-tune.

The plan follows from the lengths, the seed and the seconds per update, so every rank makes the same one, and a resumed
trial finds its place by the step alone. A *global* batch belongs to one update, and is then cut into ranks and
micro-batches. The cuts do not change the result, since the loss is a mean over the global batch and an utterance's mask
depends only on the seed, the epoch and its id.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hausa_asr.model.batch import Share, pad_lengths, padded
from hausa_asr.utterance import SAMPLE_RATE

POOL_BATCHES = 64
"""Utterances are sorted into buckets within pools of this many batches. Smaller pools have more batches with utterances
of two buckets, and so more padding (for lengths as in Common Voice, 16: 8 to 9 %, 32: 7 %, 64: 6 to 7 %)."""


class GlobalBatch(NamedTuple):
    """The utterances of one update: the epoch that it belongs to, and their indices in the split."""

    epoch: int
    indices: np.ndarray


def epoch_order(n_samples: np.ndarray, edges: np.ndarray, batch_s: float, seed: int, epoch: int) -> list[np.ndarray]:
    """Cut one epoch into global batches, as arrays of indices; every utterance is in exactly one.

    Args:
        n_samples: (N,) lengths in samples.
        edges: the lengths that batches are padded to, from `pad_lengths`: each is a bucket. Within a bucket the order
            is random, since all its utterances are padded to the same length.
        batch_s: the seconds of audio wanted per batch. The epoch is cut into equal parts of about that, so no small
            batch is left over.
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
    # Lengths fall in every other pool, so no batch has the longest of one pool and the shortest of the next.
    order = np.concatenate([part[:: -1 if number % 2 else 1] for number, part in enumerate(parts)])
    ends = np.cumsum(n_samples[order])
    # A batch gets the utterances whose middle is in its share of the audio.
    middle = ends - n_samples[order] / 2
    which = np.minimum((middle * batches / ends[-1]).astype(np.int64), batches - 1)
    cut = [part for part in np.split(order, np.flatnonzero(np.diff(which)) + 1) if len(part)]
    return [cut[i] for i in rng.permutation(len(cut))]


class UpdatePlan:
    """The updates of a whole trial.

    Args:
        n_samples: (N,) lengths in samples.
        batch_s: seconds of audio per update.
        length_s: the trial's length in seconds of audio trained on. The first update to reach it is the last.
        seed: the trial's seed.

    Attributes:
        updates: the number of updates.
        seen_s: (updates + 1,) float64; `seen_s[k]` is the seconds of audio trained on after k updates.
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

    def batch(self, step: int) -> GlobalBatch:
        """The global batch of an update."""
        epoch = int(np.searchsorted(self._starts, step, side="right")) - 1
        return GlobalBatch(epoch, self._epoch(epoch)[step - int(self._starts[epoch])])


def evaluations(plan: UpdatePlan, every_steps: int, at_s: Sequence[float] = ()) -> frozenset[int]:
    """The steps after which a trial is evaluated: regular ones, the rungs, and its end.

    Args:
        plan: the trial's updates.
        every_steps: updates between two regular evaluations. One shortly before a rung or the end is left out.
        at_s: the rungs in seconds of audio; each means the first step by which they were trained on.
    """
    fixed = {int(np.searchsorted(plan.seen_s, mark - 1e-6)) for mark in at_s}
    fixed = {step for step in fixed if 0 < step < plan.updates} | {plan.updates}
    near = every_steps / 4
    regular = range(every_steps, plan.updates, every_steps)
    return frozenset(fixed | {step for step in regular if not any(0 < one - step <= near for one in fixed)})


def micro_batches(
    indices: np.ndarray, n_samples: np.ndarray, edges: np.ndarray, micro_batch_s: float, share: Share
) -> list[list[int]]:
    """Cut one rank's share of a global batch into parts of at most `micro_batch_s`, padding included.

    Args:
        indices: the global batch.
        n_samples: (N,) lengths in samples of the whole split.
        edges: the lengths that batches are padded to, from `pad_lengths`.
        micro_batch_s: seconds of audio, padding included, that fit into memory at once.
        share: this rank's.

    Returns:
        Lists of indices, each sorted by length. An utterance longer than `micro_batch_s` is alone. Empty for a rank
        without an utterance of the batch.
    """
    mine = share.of(indices[np.argsort(n_samples[indices], kind="stable")])
    parts: list[list[int]] = []
    for index in mine:
        longest = padded(int(n_samples[index]), edges) / SAMPLE_RATE  # sorted, so the newest is the longest
        if parts and (len(parts[-1]) + 1) * longest <= micro_batch_s:
            parts[-1].append(int(index))
        else:
            parts.append([int(index)])
    return parts

"""Few padded lengths and little padding, batches of an evaluation, and utterances as tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hausa_asr.model.batch import collate, evaluation_batches, pad_lengths, padded
from hausa_asr.utterance import Example


@pytest.fixture
def lengths() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.gamma(6, 0.7, 500).clip(1, 15) * 16_000).astype(np.int64)


def test_padded_lengths_are_the_best_there_are() -> None:
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 60, 40) * 2560 - 700
    edges = pad_lengths(lengths, count=3)

    def cost(edges: np.ndarray) -> int:
        return sum(padded(int(n), edges) for n in lengths)

    every = np.unique([padded(int(n), np.array([])) for n in lengths])
    brute = min(
        cost(np.array([a, b, every[-1]])) for i, a in enumerate(every[:-2]) for b in every[i + 1 : -1]
    )  # fmt: skip
    assert cost(edges) == brute
    assert len(edges) == 3
    assert all(((edges - 400) // 320 + 1) % 8 == 0), "whole multiples of eight frames"


def test_one_length_or_few_need_no_more_edges_than_there_are() -> None:
    assert len(pad_lengths([16_000] * 5)) == 1
    assert len(pad_lengths([16_000, 32_000, 64_000])) == 3
    assert padded(100_000, pad_lengths([16_000])) >= 100_000  # a clip played slower


def test_evaluation_covers_everything_longest_first(lengths: np.ndarray) -> None:
    batches = list(evaluation_batches(lengths, 60))
    order = [i for batch in batches for i in batch]
    assert sorted(order) == list(range(500))
    assert [lengths[i] for i in order] == sorted(lengths, reverse=True)
    assert all(len(b) == 1 or len(b) * lengths[b].max() <= 60 * 16_000 for b in batches)


def frames_of(n_samples: torch.Tensor) -> torch.Tensor:
    return (n_samples - 400) // 320 + 1


def test_collate_normalises_each_utterance_before_padding() -> None:
    rng = np.random.default_rng(0)
    examples = [
        Example(f"u{n}", (3 + 2 * rng.standard_normal(n)).astype(np.float32), np.arange(2, 4), "", "")
        for n in (800, 500)
    ]
    batch = collate(examples, True, frames_of)
    assert batch.samples.shape == (2, 800)
    assert abs(float(batch.samples[1, :500].mean())) < 1e-4
    assert float(batch.samples[1, :500].std()) == pytest.approx(1, abs=1e-2)
    assert batch.samples[1, 500:].abs().max() == 0
    assert batch.labels.tolist() == [2, 3, 2, 3]
    assert batch.frames.tolist() == [2, 1]
    assert collate(examples, True, frames_of, np.array([2640])).samples.shape == (2, 2640)
    assert collate(examples, False, frames_of).samples[0, 0] == examples[0].samples[0]

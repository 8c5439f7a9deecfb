"""Every utterance once per epoch, the same global batch whatever the ranks, masks that follow the utterance."""

from __future__ import annotations

import numpy as np
import pytest
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

from hausa_asr.model.batch import Share, pad_lengths, padded
from hausa_asr.training.masking import Masking, span_mask
from hausa_asr.training.updates import UpdatePlan, epoch_order, micro_batches


@pytest.fixture
def lengths() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.gamma(6, 0.7, 500).clip(1, 15) * 16_000).astype(np.int64)


def test_an_epoch_has_every_utterance_once_in_batches_of_the_wanted_size(lengths: np.ndarray) -> None:
    batches = epoch_order(lengths, pad_lengths(lengths), 60, seed=1, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    seconds = [lengths[batch].sum() / 16_000 for batch in batches]
    assert max(seconds) < 75
    assert min(seconds) > 45


def test_epochs_and_seeds_differ_and_repeat(lengths: np.ndarray) -> None:
    def flat(seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_order(lengths, pad_lengths(lengths), 60, seed, epoch)).tolist()

    assert flat(1, 0) == flat(1, 0)
    assert flat(1, 0) != flat(1, 1)
    assert flat(1, 0) != flat(2, 0)


def test_the_utterances_of_a_batch_are_not_the_same_in_every_epoch(lengths: np.ndarray) -> None:
    edges = pad_lengths(lengths)
    first, second = ({frozenset(batch.tolist()) for batch in epoch_order(lengths, edges, 60, 0, e)} for e in (0, 1))
    assert len(first & second) < len(first) / 4


def test_few_padded_lengths_and_little_padding_on_lengths_as_in_common_voice() -> None:
    rng = np.random.default_rng(0)
    lengths = (rng.gamma(6, 4.35 / 6, 2000).clip(1, 15) * 16_000).astype(np.int64)
    plan = UpdatePlan(lengths, 140, length_s=20_000, seed=0)
    used, real, with_padding = set(), 0, 0
    for step in range(plan.updates):
        for part in micro_batches(plan.batch(step)[1], lengths, plan.edges, 80, Share()):
            size = padded(int(lengths[part].max()), plan.edges)
            assert size >= lengths[part].max()
            used.add(size)
            real, with_padding = real + int(lengths[part].sum()), with_padding + size * len(part)
    assert len(used) <= 16
    assert 1 - real / with_padding < 0.08


def test_plan_ends_with_the_first_update_that_reaches_the_length(lengths: np.ndarray) -> None:
    plan = UpdatePlan(lengths, 60, length_s=5000, seed=3)
    assert plan.seen_s[-2] < 5000 <= plan.seen_s[-1]
    assert len(plan.seen_s) == plan.updates + 1
    seen = 0.0
    for step in range(plan.updates):
        _, batch = plan.batch(step)
        seen += lengths[batch].sum() / 16_000
        assert seen == pytest.approx(plan.seen_s[step + 1])
    assert plan.batch(0)[0] == 0
    assert plan.batch(plan.updates - 1)[0] == int(5000 // (lengths.sum() / 16_000))


def test_plan_gives_any_step_without_the_ones_before(lengths: np.ndarray) -> None:
    step = 70
    walked = UpdatePlan(lengths, 60, 6000, 3)
    for earlier in range(step):
        walked.batch(earlier)
    jumped = UpdatePlan(lengths, 60, 6000, 3)
    assert jumped.batch(step)[1].tolist() == walked.batch(step)[1].tolist()


def test_one_short_utterance_makes_a_plan() -> None:
    plan = UpdatePlan([16_000], 60, length_s=3, seed=0)
    assert plan.updates == 3
    assert plan.batch(2)[1].tolist() == [0]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_ranks_and_micro_batches_share_the_global_batch_without_loss(lengths: np.ndarray, world: int) -> None:
    plan = UpdatePlan(lengths, 60, 600, 0)
    edges, (_, batch) = plan.edges, plan.batch(0)
    parts = [part for rank in range(world) for part in micro_batches(batch, lengths, edges, 20, Share(rank, world))]
    assert sorted(i for part in parts for i in part) == sorted(batch.tolist())
    assert all(len(part) == 1 or len(part) * padded(lengths[part].max(), edges) <= 20 * 16_000 for part in parts)


def test_more_ranks_than_utterances_leave_some_idle() -> None:
    one = np.array([16_000])
    assert micro_batches(np.array([0]), one, pad_lengths(one), 20, Share(rank=1, world=2)) == []


@pytest.mark.parametrize(("prob", "length", "size"), [(0.05, 10, 249), (0.3, 10, 249), (0.65, 10, 249), (0.75, 3, 100)])
def test_masks_as_much_as_transformers_does(prob: float, length: int, size: int) -> None:
    rng = np.random.default_rng(0)
    ours = np.mean([span_mask(rng, size, prob, length, 2).mean() for _ in range(400)])
    np.random.seed(0)
    theirs = np.mean([_compute_mask_indices((1, size), prob, length, min_masks=2).mean() for _ in range(400)])
    assert ours == pytest.approx(theirs, rel=0.04)


def test_masks_on_utterances_shorter_than_a_span_and_with_nothing_to_mask() -> None:
    rng = np.random.default_rng(0)
    assert span_mask(rng, 4, 0.5, 10, 2).shape == (4,)
    assert span_mask(rng, 0, 0.5, 10, 2).shape == (0,)
    assert not span_mask(rng, 100, 0.0, 10, 2).any()


def test_a_mask_follows_its_utterance_and_epoch_and_not_its_batch() -> None:
    masking = Masking(0.3, 5, 0.2, 4, seed=7)
    time, feature = masking.batch(["a", "b", "c"], 2, [100, 80, 60], 32, size=104)
    alone_time, alone_feature = masking.batch(["b"], 2, [80], 32, size=80)
    assert time.shape == (3, 104)
    assert (time[1, :80] == alone_time[0]).all()
    assert (feature[1] == alone_feature[0]).all()
    assert not time[1, 80:].any()
    assert (masking.draw("b", 3, 80, 32)[0] != alone_time[0].numpy()).any()
    assert (Masking(0.3, 5, 0.2, 4, seed=8).draw("b", 2, 80, 32)[0] != alone_time[0].numpy()).any()

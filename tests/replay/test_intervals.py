"""Intervals over replays and over settings: their width against figures with known variance, and against real draws."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.curves import made_up, options
from sweeps.replay.compare import Replays, Setup, compare
from sweeps.replay.curves import BASELINE
from sweeps.replay.intervals import KEPT, Column, Estimate, estimate, share, together
from sweeps.replay.rules import named_rule

RULES = ("full", "asha_wer_2", "asha_loss")


def test_a_paired_ratio_knows_that_hard_replays_are_hard_for_both() -> None:
    hard = np.random.default_rng(0).uniform(10, 1000, 200)
    ratio = estimate(Column(0.8 * hard, hard))
    assert (ratio.low, ratio.mean, ratio.high) == pytest.approx((0.8, 0.8, 0.8))


def test_without_parts_a_mean_has_the_interval_that_everybody_knows() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    found = estimate(Column(values))
    assert found.high - found.low == pytest.approx(4 * values.std(ddof=1) / 20)


def test_the_variance_by_settings_is_found_beneath_the_noise_of_few_replays() -> None:
    """Parts differ by 0.1 and replays by 0.4: the noise of ten replays must not be taken for a difference."""
    rng = np.random.default_rng(1)
    whole = Column(rng.normal(3.0, 0.4, 100_000))
    noise_only = [Column(rng.normal(3.0, 0.4, 10)) for _ in range(400)]
    differing = [Column(rng.normal(rng.normal(3.0, 0.1), 0.4, 10)) for _ in range(400)]
    of_noise, of_settings = estimate(whole, noise_only), estimate(whole, differing)
    expected = 4 * 0.1 * np.sqrt(KEPT / (1 - KEPT))
    assert of_settings.high - of_settings.low == pytest.approx(expected, rel=0.25)
    assert of_noise.high - of_noise.low < 0.4 * expected


def test_a_share_stays_a_share() -> None:
    stopped = share(Column(np.array([0.0, 0.0, 0.0, 1.0])))
    assert stopped.low == 0.0 and stopped.mean == 0.25 and stopped.high <= 1.0


def test_ratios_of_several_tables_are_averaged_by_their_logarithm() -> None:
    both = together([Estimate(0.5, 0.25, 1.0), Estimate(2.0, 1.0, 4.0)])
    assert both.mean == pytest.approx(1.0)
    # Each is within a factor of 2, so the mean of two is within a factor of 2 to the power of 1 / sqrt(2).
    assert both.high == pytest.approx(2**0.5**0.5) and both.low == pytest.approx(1 / both.high)


def test_parts_hold_two_thirds_of_the_settings_and_always_the_baseline() -> None:
    parts = Replays(made_up(31, 1), Setup(2, trials=40, resamples=8, part_replays=3)).parts()
    assert len(parts) == 8 and all(len(part.settings) == 21 and len(part.draws) == 3 for part in parts)
    assert all(draw[0].source == BASELINE for part in parts for draw in part.draws)
    names = [frozenset(seeds[0].name for seeds in part.settings) for part in parts]
    assert len(set(names)) == 8 and len(frozenset.union(*names)) == 31


def test_intervals_with_the_settings_drawn_again_are_wider_than_over_replays_alone() -> None:
    settings, rules = made_up(40, 2), [named_rule(name, options()) for name in RULES]
    alone = compare(Replays(settings, Setup(200)), rules, 4).figures
    both = compare(Replays(settings, Setup(200, resamples=12, part_replays=40)), rules, 4).figures
    narrow, wide = alone["asha_loss"], both["asha_loss"]
    assert wide.time_vs_full.mean == narrow.time_vs_full.mean
    assert wide.time_vs_full.log_se > 2 * narrow.time_vs_full.log_se
    # All replays of the same settings end at much the same WER: they say nothing of what others would have given.
    assert wide.wer_at_half.high - wide.wer_at_half.low > 2 * (narrow.wer_at_half.high - narrow.wer_at_half.low)
    assert both["full"].time_vs_full == Estimate(1.0, 1.0, 1.0)


def test_the_interval_is_as_wide_as_tables_of_other_settings_differ() -> None:
    rules = [named_rule(name, options()) for name in RULES]
    setup = Setup(60, resamples=12, part_replays=30)
    found = [compare(Replays(made_up(30, seed), setup), rules, 4).figures["asha_loss"] for seed in range(24)]
    seen = float(np.std([np.log(one.time_vs_full.mean) for one in found], ddof=1))
    said = float(np.sqrt(np.mean([one.time_vs_full.log_se**2 for one in found])))
    assert 0.7 < said / seen < 1.4, (said, seen)

"""The finalists' verdict: on made-up models of known quality, what is named the winner and how surely."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from sweeps.verdict.compare import RunScores
from sweeps.verdict.margin import margin
from sweeps.verdict.verdict import Verdict, verdict

WORDS = np.random.default_rng(0).integers(3, 12, 600)
NOBODY = [""] * 600


def run(setting: str, wer: float, seed: int = 1, draw: int = 0) -> RunScores:
    """A model that hears each word wrongly with the same probability."""
    errors = np.random.default_rng([draw, seed]).binomial(WORDS, wer)
    return RunScores(setting, f"{setting}-s{seed}", seed, errors, WORDS)


def judged(*models: RunScores, baseline: str | None = "t000", **options: Any) -> Verdict:
    return verdict(models, baseline, **{"speakers": NOBODY, "resamples": 2_000, **options})


def test_the_winner_has_the_lowest_mean_over_seeds_and_not_the_luckiest_run() -> None:
    steady = [run("t001", wer, seed) for seed, wer in enumerate([0.20, 0.20, 0.20])]
    lucky = [run("t002", wer, seed) for seed, wer in enumerate([0.12, 0.28, 0.30])]
    base = [run("t000", 0.4, seed) for seed in range(3)]
    found = judged(*base, *lucky, *steady)
    assert found.winner == "t001"
    assert [standing.setting for standing in found.standings] == ["t001", "t002", "t000"]
    mean = np.mean([model.errors.sum() / WORDS.sum() for model in steady])
    assert found.of("t001").wer == pytest.approx(mean)
    assert found.of("t001").trials == ["t001-s0", "t001-s1", "t001-s2"]
    assert found.relative == pytest.approx(mean / found.of("t000").wer - 1)
    assert sum(standing.p_best for standing in found.standings) == pytest.approx(1)
    # Of two settings whose dev sets overlap, the one with unsteady runs has the wider interval.
    width = {standing.setting: standing.high - standing.low for standing in found.standings}
    assert width["t002"] > 3 * width["t001"]


def twice(setting: str, wer: float, draw: int = 0) -> list[RunScores]:
    """The same on two seeds."""
    return [run(setting, wer, seed, draw) for seed in (1, 2)]


def test_what_is_clearly_better_is_told_apart_and_what_is_not_is_said() -> None:
    found = judged(*twice("t000", 0.40), *twice("t001", 0.20), *twice("t002", 0.201, draw=1))
    assert found.to_baseline is not None and found.to_runner_up is not None
    assert found.to_baseline.is_clear and found.to_baseline.high < 0
    assert found.to_runner_up.is_clear is False
    said = found.sentences()[0]
    assert said.startswith(f"winner {found.winner}  dev WER 0.")
    assert said.count("too close to call") == 1 and said.endswith("too close to call")
    assert "lower [0.1" in said or "lower [0.2" in said
    assert "P(best) 0." in said and "one seed" not in said


def test_with_one_seed_each_nothing_is_said_to_be_better() -> None:
    found = judged(run("t000", 0.40), run("t001", 0.20), run("t002", 0.201, draw=1))
    assert found.to_baseline is not None and found.to_runner_up is not None
    assert found.to_baseline.is_clear is found.to_runner_up.is_clear is None
    assert [standing.p_best for standing in found.standings] == [None] * 3
    said = "\n".join(found.sentences())
    assert "P(best)" not in said and "too close" not in said
    assert found.sentences()[0].endswith("one seed cannot tell which is better")
    one_lost = judged(*twice("t000", 0.4), *twice("t001", 0.2), run("t002", 0.21))
    assert one_lost.to_baseline is not None and one_lost.to_baseline.is_clear, "both have two"
    assert one_lost.to_runner_up is not None and one_lost.to_runner_up.is_clear is None
    assert one_lost.of("t001").p_best is None, "it would count the one of t002"


@pytest.mark.parametrize(("seeds", "most"), [(1, 0), (2, 25)])
def test_of_equal_settings_few_are_called_different(seeds: int, most: int) -> None:
    """Settings of one quality, whose runs differ by the noise of training, in a hundred sweeps."""
    draw = np.random.default_rng(2)
    called = 0
    for _ in range(100):
        models = [
            RunScores(name, f"{name}-s{seed}", seed, draw.binomial(WORDS, max(0.01, draw.normal(0.2, 0.02))), WORDS)
            for name in ("t001", "t002")
            for seed in range(seeds)
        ]
        found = judged(*models, baseline=None, resamples=300)
        assert found.to_runner_up is not None
        called += bool(found.to_runner_up.is_clear)
    assert called <= most


def test_pairing_tells_apart_what_separate_intervals_would_not() -> None:
    errors = run("t001", 0.3).errors
    worse = errors + (np.arange(600) % 25 == 0)
    models = [
        RunScores(name, f"{name}-s{seed}", seed, of, WORDS)
        for name, of in (("t001", errors), ("t002", worse))
        for seed in (1, 2)
    ]
    found = judged(*models, baseline=None)
    assert found.of("t001").high > found.of("t002").low  # they overlap
    assert found.to_runner_up is not None and found.to_runner_up.is_clear
    assert (found.of("t001").p_best or 0.0) > 0.99


def test_where_nothing_beats_the_baseline_it_is_the_winner_and_that_is_said() -> None:
    found = judged(run("t000", 0.2), run("t001", 0.3))
    assert found.winner == "t000" and found.to_baseline is None and found.relative == 0.0
    assert "the baseline: nothing beat it" in found.sentences()[0]
    assert "runner-up t001" in found.sentences()[0]


def test_equal_settings_share_and_the_order_decides() -> None:
    one = run("t005", 0.2).errors
    same = [RunScores(name, f"{name}-s{seed}", seed, one, WORDS) for name in ("t005", "t003") for seed in (1, 2)]
    found = judged(*same, baseline=None)
    assert found.winner == "t005"
    assert [standing.p_best for standing in found.standings] == [0.5, 0.5]
    assert found.to_runner_up is not None and not found.to_runner_up.is_clear


def test_a_lost_seed_is_named_and_a_setting_without_any_is_left_out() -> None:
    models = [run("t000", 0.4, 1), run("t000", 0.4, 2), run("t001", 0.2, 2)]
    assert judged(*models).missing == {"t001": 1}
    found = judged(*models, seeds=2, settings=["t001", "t002", "t000"])
    assert found.winner == "t001"
    assert found.missing == {"t001": 1, "t002": 0}
    notes = "\n".join(found.sentences()[1:])
    assert "t001 has 1 of 2 seeds" in notes
    assert "t002 has 0 of 2 seeds, so it is left out" in notes
    assert "t001 with one seed" in notes
    with pytest.raises(KeyError):
        found.of("t002")


def test_without_a_run_of_the_baseline_there_is_no_comparison_and_that_is_said() -> None:
    found = judged(run("t001", 0.2), settings=["t001", "t000"])
    assert found.to_baseline is found.relative is found.to_runner_up is None
    assert any("t000, the baseline, has 0 of 1 seed, so it is left out" in note for note in found.sentences())
    with pytest.raises(ValueError, match="no finalist"):
        judged(settings=["t001"])


def test_speakers_are_resampled_where_known_and_it_is_said() -> None:
    hard = np.where(np.arange(600) % 12 < 3, 0.5, 0.05)  # a quarter of the speakers are hard to hear
    errors = np.random.default_rng(0).binomial(WORDS, hard)
    model = RunScores("t001", "t001-s1", 1, errors, WORDS)
    by_utterance = judged(model, baseline=None)
    by_speaker = judged(model, baseline=None, speakers=[f"s{number % 12}" for number in range(600)])
    assert (by_utterance.unit, by_utterance.units) == ("utterance", 600)
    assert (by_speaker.unit, by_speaker.units) == ("speaker", 12)
    width = by_speaker.of("t001").high - by_speaker.of("t001").low
    assert width > 2 * (by_utterance.of("t001").high - by_utterance.of("t001").low)
    assert "12 speakers" in by_speaker.sentences()[1]


def test_the_noise_of_training_is_in_the_interval_of_several_seeds() -> None:
    """Against the truth: how often the interval holds the mean that endless seeds and speech would give."""
    draw = np.random.default_rng(1)
    held = {1: 0, 3: 0}
    for _ in range(150):
        for seeds in held:
            rates = np.clip(draw.normal(0.2, 0.02, seeds), 0.01, 1)
            models = [RunScores("t", f"t-s{s}", s, draw.binomial(WORDS, rate), WORDS) for s, rate in enumerate(rates)]
            found = judged(*models, baseline=None, resamples=300)
            held[seeds] += found.of("t").low <= 0.2 <= found.of("t").high
    assert held[1] < 0.75 * 150  # so it says that this noise is not in it
    assert held[3] > held[1]
    assert "noise of training is not in them" in judged(run("t", 0.2), baseline=None).sentences()[1]


def test_it_is_the_same_again_and_survives_json() -> None:
    models = [run(name, wer, seed) for name, wer in [("t000", 0.4), ("t001", 0.2)] for seed in (1, 2)]
    found = judged(*models)
    assert found == judged(*models)
    assert Verdict.from_json(json.loads(json.dumps(found.to_json()))) == found
    found = found.with_test(margin(models, "t001", "t000", speakers=NOBODY, resamples=200))
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert Verdict.from_json(told) == found


def test_runs_on_other_utterances_are_refused() -> None:
    other = RunScores("t002", "t002-s1", 1, np.zeros(600, int), WORDS + 1)
    with pytest.raises(ValueError, match="same utterances"):
        judged(run("t001", 0.2), other)


def test_five_thousand_utterances_and_twelve_models_take_seconds() -> None:
    draw = np.random.default_rng(0)
    words = draw.integers(3, 15, 5_000)
    models = [
        RunScores(f"t{m // 3}", f"t{m // 3}-s{m % 3}", m % 3, draw.binomial(words, 0.1), words) for m in range(12)
    ]
    started = time.process_time()
    judged(*models, speakers=[""] * 5_000, resamples=10_000)
    assert time.process_time() - started < 10

"""The winner's margin on test: paired, over seeds and speakers, and the headline of the verdict."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.verdict.compare import RunScores
from sweeps.verdict.margin import margin
from sweeps.verdict.verdict import verdict

WORDS = np.random.default_rng(0).integers(3, 12, 400)
NOBODY = [""] * 400


def run(setting: str, wer: float, seed: int = 1) -> RunScores:
    errors = np.random.default_rng([int(setting[1:]), seed]).binomial(WORDS, wer)
    return RunScores(setting, f"{setting}-s{seed}", seed, errors, WORDS)


def runs(setting: str, *rates: float) -> list[RunScores]:
    return [run(setting, wer, seed) for seed, wer in enumerate(rates, start=1)]


def test_it_is_the_paired_difference_of_the_means_over_seeds() -> None:
    winner, base = runs("t001", 0.2, 0.24), runs("t000", 0.3, 0.34)
    found = margin([*winner, *base, *runs("t002", 0.9)], "t001", "t000", speakers=NOBODY, resamples=2_000)
    of_winner, of_base = np.mean([one.wer for one in winner]), np.mean([one.wer for one in base])
    assert found.winner.wer == pytest.approx(of_winner) and found.winner.seeds == 2
    assert found.difference is not None and found.baseline is not None
    assert found.difference.wer == pytest.approx(of_winner - of_base)
    assert found.difference.low < found.difference.wer < found.difference.high < 0
    assert found.relative == pytest.approx(of_winner / of_base - 1)
    said = found.sentence()
    assert said.startswith(f"winner t001  test WER {of_winner:.3f} [") and "over 2 seeds" in said
    assert f"{of_base - of_winner:.3f} lower [" in said and "one seed" not in said


def test_with_one_seed_it_says_that_this_cannot_tell() -> None:
    said = margin([run("t001", 0.2), run("t000", 0.4)], "t001", "t000", speakers=NOBODY).sentence()
    assert said.endswith("; one seed cannot tell which is better")
    assert "lower [0." in said


def test_a_winner_on_dev_that_loses_on_test_is_said_to() -> None:
    found = margin([*runs("t001", 0.40, 0.41), *runs("t000", 0.30, 0.31)], "t001", "t000", speakers=NOBODY)
    assert "higher [0.0" in found.sentence() or "higher [0.1" in found.sentence()


def test_without_a_baseline_to_compare_with_there_is_no_difference() -> None:
    alone = margin(runs("t001", 0.2), "t001", "t000", speakers=NOBODY)
    assert alone.difference is alone.baseline is None and "baseline" not in alone.sentence()
    won = margin(runs("t000", 0.2), "t000", "t000", speakers=NOBODY)
    assert won.difference is None and "the baseline: nothing beat it" in won.sentence()
    with pytest.raises(ValueError, match="no run on test"):
        margin(runs("t000", 0.2), "t001", "t000", speakers=NOBODY)


def test_speakers_are_resampled_where_they_are_known() -> None:
    speakers = [f"s{number % 10}" for number in range(400)]
    found = margin([*runs("t001", 0.2, 0.2), *runs("t000", 0.3, 0.3)], "t001", "t000", speakers=speakers)
    assert (found.unit, found.units) == ("speaker", 10)


def test_once_test_is_scored_it_is_the_headline_and_dev_comes_second() -> None:
    models = [*runs("t000", 0.4, 0.4), *runs("t001", 0.2, 0.2), *runs("t002", 0.3, 0.3)]
    on_dev = verdict(models, "t000", speakers=NOBODY, resamples=500)
    on_test = margin(models, "t001", "t000", speakers=NOBODY, resamples=500)
    headline, second, *notes = on_dev.with_test(on_test).sentences()
    assert headline == on_test.sentence()
    assert second.startswith("on dev, which chose it: t001 0.") and "P(best)" in second and "runner-up t002" in second
    assert "400 utterances of dev and 400 utterances of test" in notes[0]

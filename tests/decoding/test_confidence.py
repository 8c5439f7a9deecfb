"""Calibrated confidences mean what they say, on words that the calibration has not seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hausa_asr.decoding.confidence import (
    CONFIDENCE_FILE,
    FEWEST,
    GREEDY,
    WITH_LM,
    calibrated,
    expected_error,
    stored_calibration,
    write_calibrations,
)
from hausa_asr.errors import UserError


def words(count: int, sureness: float, seed: int = 0) -> list[tuple[list[float], list[bool]]]:
    """Utterances of five words, each with a chance of being right; the model says more the surer it is."""
    rng = np.random.default_rng(seed)
    chances = rng.uniform(0.3, 0.95, (count // 5, 5))
    odds = (chances / (1 - chances)) ** sureness
    said, right = odds / (1 + odds), rng.random(chances.shape) < chances
    return [(a.tolist(), b.tolist()) for a, b in zip(said, right, strict=True)]


def as_arrays(utterances: list[tuple[list[float], list[bool]]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([a for a, _ in utterances]), np.concatenate([b for _, b in utterances])


@pytest.mark.parametrize("sureness", [0.5, 1.0, 3.0])
def test_a_model_that_is_too_sure_or_not_sure_enough_is_set_right(sureness: float) -> None:
    made = calibrated(words(5000, sureness))
    assert made is not None and made.words == 5000
    fresh, right = as_arrays(words(20_000, sureness, seed=1))
    after = expected_error(np.array([made(one) for one in fresh]), right)
    assert after < 0.02
    if sureness != 1.0:
        assert expected_error(fresh, right) > 0.08 and made.raw_error > 0.08
    assert made.error == pytest.approx(after, abs=0.02), "what it says of itself holds for others"
    assert made(0.9) > made(0.6), "the order stays"


def test_what_it_says_of_itself_is_of_words_that_it_was_not_made_of() -> None:
    luck = [([0.5, 0.5], [bool(number % 5), bool(number % 5)]) for number in range(100)]  # one fold is all wrong
    made = calibrated(luck)
    assert made is not None and made.error > 0.3, "each fold is judged by the others"


def test_all_right_or_too_few_words() -> None:
    sure = calibrated([([0.99] * 5, [True] * 5)] * 40)
    assert sure is not None and 0.98 < sure(0.99) <= 1 and 0 <= sure(0.0) < 1
    assert calibrated([([0.5], [True])] * (FEWEST - 1)) is None


def test_the_error_is_weighed_by_words() -> None:
    assert expected_error(np.array([0.95] * 9 + [0.15]), np.array([True] * 9 + [True])) == pytest.approx(
        0.9 * 0.05 + 0.1 * 0.85
    )


def test_it_is_kept_in_the_models_folder(tmp_path: Path) -> None:
    made = calibrated(words(500, 2.0))
    assert made is not None
    assert stored_calibration(tmp_path, GREEDY) is None
    write_calibrations(tmp_path, {GREEDY: made})
    assert stored_calibration(tmp_path, GREEDY) == made and stored_calibration(tmp_path, WITH_LM) is None


@pytest.mark.parametrize(
    "content", ["", "[]", '{"greedy": {"slope": 1}}', json.dumps({"greedy": dict.fromkeys(
        ("slope", "shift", "words", "error", "raw_error"), "x")})]
)  # fmt: skip
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / CONFIDENCE_FILE).write_text(content)
    with pytest.raises(UserError, match="calibration") as refused:
        stored_calibration(tmp_path, GREEDY)
    assert str(refused.value.where).endswith(CONFIDENCE_FILE)

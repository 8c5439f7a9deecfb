"""Error rates: against hand counts, and laws that any alignment must obey."""

import random

import numpy as np
import pytest

from hausa_asr.metrics import (
    Counts,
    bootstrap_units,
    bootstrap_wer,
    cer,
    char_counts,
    counts_by_utterance,
    edit_counts,
    interval,
    wer,
    word_counts,
)


def distance(reference: list[str], hypothesis: list[str]) -> int:
    """Levenshtein's distance by the textbook recurrence, as a second opinion."""
    row = list(range(len(hypothesis) + 1))
    for i, a in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(hypothesis, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def test_hand_counts() -> None:
    counts = word_counts(["ina kwana yau", "lafiya"], ["ina gwana", "lafiya lau"])
    assert counts == Counts(errors=3, substitutions=1, deletions=1, insertions=1, reference_length=4)
    assert counts.rate == wer(["ina kwana yau", "lafiya"], ["ina gwana", "lafiya lau"]) == 0.75
    assert char_counts(["ab c"], ["abc"]) == Counts(1, 0, 1, 0, 4)
    assert cer(["ƙa'ida"], ["ka'ida"]) == pytest.approx(1 / 6)


def test_rate_is_of_the_corpus_and_not_a_mean_of_utterances() -> None:
    assert wer(["a", "a b c d e f g h i"], ["x", "a b c d e f g h i"]) == 0.1


def test_blank_lines_count_and_nothing_divides_by_zero() -> None:
    assert word_counts(["", "a b"], ["x y", ""]) == Counts(4, 0, 2, 2, 2)
    assert word_counts([], []) == char_counts([], []) == Counts(0, 0, 0, 0, 0)
    assert wer([], []) == wer([""], [" "]) == cer([""], [""]) == 0.0
    assert wer([""], ["a b"]) == 2.0
    assert wer(["a b"], [""]) == cer(["a b"], [""]) == 1.0


def test_spacing_is_no_error() -> None:
    assert char_counts([" a  b\tc"], ["a b c "]).errors == 0


def test_unpaired_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="2 references but 1"):
        wer(["a", "b"], ["a"])
    with pytest.raises(TypeError, match="not one text"):
        cer("abc", ["abc"])


def test_laws() -> None:
    draw = random.Random(1)
    texts = [" ".join(draw.choices(["da", "ta", "ƙi", "a"], k=draw.randint(0, 6))) for _ in range(300)]
    others = texts[1:] + texts[:1]
    assert word_counts(texts, texts).errors == char_counts(texts, texts).errors == 0
    total = word_counts(texts, others)
    each = [word_counts([a], [b]) for a, b in zip(texts, others, strict=True)]
    assert total.errors == sum(counts.errors for counts in each)
    assert total.reference_length == sum(len(text.split()) for text in texts)
    assert total.errors == total.substitutions + total.deletions + total.insertions
    assert word_counts(others, texts).errors == total.errors
    for a, b, counts in zip(texts, others, each, strict=True):
        assert counts.errors == distance(a.split(), b.split())
        assert counts.reference_length - counts.deletions + counts.insertions == len(b.split())
        assert char_counts([a], [b]).errors == distance(list(a), list(b))


def test_counts_by_utterance_are_those_of_each_alone() -> None:
    draw = random.Random(2)
    texts = [" ".join(draw.choices(["da", "ta", "ƙi", "a"], k=draw.randint(0, 6))) for _ in range(200)]
    others = [*texts[1:], ""]
    errors, words = counts_by_utterance(texts, others)
    each = [word_counts([a], [b]) for a, b in zip(texts, others, strict=True)]
    assert errors.tolist() == [counts.errors for counts in each]
    assert words.tolist() == [counts.reference_length for counts in each]
    assert errors.sum() == word_counts(texts, others).errors
    assert [part.shape for part in counts_by_utterance([], [])] == [(0,), (0,)]
    with pytest.raises(ValueError, match="2 references but 1"):
        counts_by_utterance(["a", "b"], ["a"])


def test_counts_without_an_alignment_are_those_of_jiwer() -> None:
    draw = random.Random(3)
    texts = [" ".join(draw.choices(["da", "ta", "ƙi", "'ya", "a"], k=draw.randint(0, 6))) for _ in range(200)]
    others = [text[draw.randint(0, 3) :] for text in texts[1:]] + ["  sai\tda  "]
    words, chars = word_counts(texts, others), char_counts(texts, others)
    expected = [[words.errors, chars.errors], [words.reference_length, chars.reference_length]]
    assert edit_counts(texts, others).tolist() == expected
    assert edit_counts([], []).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(TypeError, match="not one text"):
        edit_counts("ab", ["ab"])


def test_speakers_are_resampled_where_all_are_known_and_enough() -> None:
    eight = [f"s{number % 8}" for number in range(24)]
    unit, units = bootstrap_units(eight)
    assert (unit, units.tolist()) == ("speaker", [number % 8 for number in range(24)])
    for few in (eight[:7], [*eight, ""], ["", ""]):
        unit, units = bootstrap_units(few)
        assert (unit, units.tolist()) == ("utterance", list(range(len(few))))


def test_the_interval_has_the_width_that_theory_gives() -> None:
    draw = np.random.default_rng(0)
    words = np.full(1_000, 10)
    errors = draw.binomial(10, 0.2, size=(1, 1_000))
    rates = bootstrap_wer(errors, words, np.arange(1_000))
    expected = np.sqrt(0.2 * 0.8 / 10_000)
    assert rates.shape == (10_000, 1)
    assert rates.std() == pytest.approx(expected, rel=0.1)
    low, high = interval(rates[:, 0])
    assert high - low == pytest.approx(2 * 1.96 * expected, rel=0.1)
    assert low < errors.sum() / words.sum() < high


def test_speakers_who_differ_widen_the_interval() -> None:
    draw = np.random.default_rng(0)
    speakers = np.repeat(np.arange(20), 50)
    words = np.full(1_000, 10)
    errors = draw.binomial(10, np.repeat(draw.uniform(0.0, 0.4, 20), 50))[None]
    by_utterance = bootstrap_wer(errors, words, np.arange(1_000)).std()
    assert bootstrap_wer(errors, words, speakers).std() > 3 * by_utterance


def test_models_are_resampled_together_and_a_seed_repeats_them() -> None:
    draw = np.random.default_rng(0)
    words = draw.integers(1, 12, 300)
    easy = draw.binomial(words, 0.1)
    rates = bootstrap_wer(np.stack([easy, easy + 1]), words, np.arange(300), resamples=500, seed=4)
    assert (rates[:, 1] > rates[:, 0]).all()  # on every dev set, though the two intervals overlap or not
    again = bootstrap_wer(np.stack([easy, easy + 1]), words, np.arange(300), resamples=500, seed=4)
    assert (rates == again).all()
    assert (rates != bootstrap_wer(np.stack([easy, easy + 1]), words, np.arange(300), resamples=500, seed=5)).any()


def test_one_utterance_and_none_with_words_give_finite_rates() -> None:
    assert bootstrap_wer(np.array([[1]]), np.array([4]), np.array([0]), resamples=3).tolist() == [[0.25]] * 3
    assert np.isfinite(bootstrap_wer(np.array([[1, 0]]), np.array([0, 0]), np.arange(2), resamples=50)).all()

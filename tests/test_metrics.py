"""Error rates: against hand counts, and laws that any alignment must obey."""

import random

import pytest

from hausa_asr.metrics import Counts, cer, char_counts, wer, word_counts


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

"""Digits in a transcript must become the words that were spoken, each number its own."""

from __future__ import annotations

import pytest

from hausa_asr.numbers import LARGEST, spell


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (0, "sifili"),
        (1, "ɗaya"),
        (4, "huɗu"),
        (10, "goma"),
        (11, "goma sha ɗaya"),
        (19, "goma sha tara"),
        (20, "ashirin"),
        (21, "ashirin da ɗaya"),
        (40, "arba'in"),
        (78, "saba'in da takwas"),
        (99, "tis'in da tara"),
        (100, "ɗari"),
        (101, "ɗari da ɗaya"),
        (200, "ɗari biyu"),
        (315, "ɗari uku da goma sha biyar"),
        (999, "ɗari tara da tis'in da tara"),
        (1_000, "dubu"),
        (1_960, "dubu da ɗari tara da sittin"),
        (2_026, "dubu biyu da ashirin da shida"),
        (12_000, "dubu goma sha biyu"),
        (100_000, "dubu ɗari"),
        (250_500, "dubu ɗari biyu da hamsin da ɗari biyar"),
    ],
)
def test_a_number_is_spelled_as_it_is_said(n: int, words: str) -> None:
    assert spell(n) == words


def test_numbers_below_ten_thousand_have_spellings_of_their_own() -> None:
    spelled = [spell(n) for n in range(10_000)]
    assert len(set(spelled)) == len(spelled)


def test_every_number_is_words_of_the_alphabet_with_single_spaces() -> None:
    for n in (*range(0, LARGEST + 1, 997), LARGEST):
        words = spell(n).split(" ")
        assert all(words)
        assert set("".join(words)) <= set("abcdefghijklmnorstuwyɗ'")


@pytest.mark.parametrize("n", [-1, LARGEST + 1])
def test_a_number_out_of_range_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=str(n)):
        spell(n)

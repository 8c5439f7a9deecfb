"""Spelling: what is trained on and scored must be the same letters, however a corpus writes them."""

import random
import string
import unicodedata

import pytest

from hausa_asr.numbers import spell
from hausa_asr.text import LETTERS, PAD, UNK, VOCAB, WORD, encode, fold, normalise, unknown_characters

APOSTROPHES = "'’‘ʼʻʾ`´"


@pytest.mark.parametrize(
    ("written", "strict"),
    [
        ("Ƙasa, Ɗaki; ƁERA!", "ƙasa ɗaki ɓera"),
        ("Ќasa Ќasa Кasa", "ƙasa ƙasa ƙasa"),  # Cyrillic, typed for the hooked letter
        ("k̇asa ḱasa ḳasa ḍaki Ḍaki Ḳasa", "ƙasa ƙasa ƙasa ɗaki ɗaki ƙasa"),
        ("bаbа", "baba"),  # Cyrillic а among Latin letters
        ("ƴan ƴar Ƴan", "'yan 'yar 'yan"),
        ("‘ƴan ’ya’ya", "'yan 'ya'ya"),
        ("bàbban râi mā r̃ ẹ̀kọ́", "babban rai ma r eko"),
        ("sau\u0301ƙaƙe̱", "sauƙaƙe"),
        ("kasuwa-kasuwa gida/gona (sosai) a|b", "kasuwa kasuwa gida gona sosai a b"),
        ("zero\u200bwidth \ufeffso\u00adft non\u00a0breaking", "zerowidth soft non breaking"),
        ("  ina \t kwana\n ", "ina kwana"),
        ("“Ina kwana?” ''lafiya''", "ina kwana lafiya"),
        ("ya ce ‘mun gode’.", "ya ce mun gode"),
        ("‘Yan sanda", "'yan sanda"),
        ("wannan ' shi", "wannan shi"),
        ("ﬁlin ＦＩＬＩ", "filin fili"),
        ("", ""),
        ("?! …", ""),
    ],
)
def test_strict_spelling(written: str, strict: str) -> None:
    assert normalise(written) == strict


@pytest.mark.parametrize("apostrophe", APOSTROPHES)
@pytest.mark.parametrize("word", ["ƙa'ida", "'yan", "al'umma", "ma'aikaci", "'yan'uwa"])
def test_any_apostrophe_is_the_same_letter_and_never_splits_a_word(apostrophe: str, word: str) -> None:
    assert normalise(word.replace("'", apostrophe)) == word


def test_whole_numbers_are_spelled_and_others_are_reported() -> None:
    assert normalise("a 2020, mutum 1,500") == f"a {spell(2020)} mutum {spell(1500)}"
    assert normalise("covid-19") == f"covid {spell(19)}"
    assert normalise("999999 0") == f"{spell(999_999)} sifili"
    for unreadable in ("1000000", "1,000,000", "3.5", "½", "10:30", "₦500", "$5", "4g", "0803", "٣"):
        assert unknown_characters(normalise(f"farashi {unreadable} ne")), unreadable


def test_punctuation_is_never_an_unknown_character() -> None:
    for mark in string.punctuation + "“”„«»–—…•·‚¡¿₦€™":
        assert not unknown_characters(normalise(f"wani{mark} {mark} abu {mark}nan")), mark


def test_laws_hold_for_any_text() -> None:
    pool = "abkKdyƙƁɗƴ'’ʼ`´ḍḳ\u0301\u0307 К\t0123,.:/⁄½₦$%-_|\u200b\u00adÀşİẞИ²“é"
    draw = random.Random(0)
    for _ in range(5_000):
        text = "".join(draw.choices(pool, k=draw.randint(1, 14)))
        strict = normalise(text)
        assert normalise(strict) == strict, text
        assert fold(strict) == fold(text), text
        assert unicodedata.normalize("NFC", strict) == strict, text
        assert strict == " ".join(strict.split()), text
        assert normalise(unicodedata.normalize("NFD", text)) == strict, text
        if not unknown_characters(strict):
            assert [list(VOCAB)[label] for label in encode(strict)] == list(strict.replace(" ", WORD))
        else:
            with pytest.raises(ValueError, match="not in the alphabet"):
                encode(strict)


def test_fold_forgives_hooks_and_apostrophes_only() -> None:
    assert fold("Ƙa’ida, ƴan ɗaki ɓera") == "kaida yan daki bera"
    assert fold("hada") == fold("haɗa") != fold("hana")


def test_vocabulary_is_what_saved_models_were_trained_with() -> None:
    assert (VOCAB[PAD], VOCAB[UNK], VOCAB[WORD]) == (0, 1, 2)
    assert LETTERS == "abcdefghijklmnopqrstuvwxyzɓɗƙ'"
    assert [VOCAB[letter] for letter in LETTERS] == list(range(3, 33))
    assert encode("ƙa 'y") == [VOCAB["ƙ"], VOCAB["a"], VOCAB["|"], VOCAB["'"], VOCAB["y"]]


def test_unknown_characters_are_counted() -> None:
    assert unknown_characters("abc ƙ'") == {}
    assert unknown_characters("a1b1é") == {"1": 2, "é": 1}

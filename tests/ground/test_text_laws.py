"""Laws of spelling, on text that nobody would think of: any characters at all, and Hausa as keyboards make it."""

from __future__ import annotations

import unicodedata

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hausa_asr.decoding.greedy import greedy
from hausa_asr.text import LETTERS, UNK, VOCAB, encode, fold, normalise, unknown_characters

_PIECES = (
    *LETTERS, *LETTERS.upper(), *"ɓɗƙƴƁƊƘƳ", "'y", "’y", "ʼY", "ts", "sh", "ƙw", *"‘’ʼʻ`´“”\"'.,:;?!/|_…-\u2011",
    " ", "  ", "\t", "\n", "\u00a0", *"К̇кḱḳḍḅɖđƀ", *"àáâãāèéìīòóùūr̃", *"\u0300\u0301\u0302\u0304\u0323\u0307",
    *"\u200b\u200c\u200d\ufeff\u00ad\u2060", *"0123456789", "3.5", "1,500", "₦500", "10:30", "½", "٣",
    *"ﬁＡéİß中",
)  # fmt: skip
# The same examples each time, and none kept on disk: a failure here is one that everybody can repeat.
laws = settings(max_examples=600, deadline=None, derandomize=True, database=None)
any_text = st.text(max_size=40)
hausa = st.lists(st.sampled_from(_PIECES), max_size=25).map("".join)
texts = any_text | hausa


@laws
@given(texts)
def test_both_spellings_are_stable(text: str) -> None:
    strict, folded = normalise(text), fold(text)
    assert normalise(strict) == strict
    assert fold(folded) == folded
    assert fold(strict) == folded
    for spelled in (strict, folded):
        assert spelled == " ".join(spelled.split(" ")).strip()
        assert "  " not in spelled
        assert unicodedata.is_normalized("NFC", spelled)
    assert not set(folded) & set("ɓɗƙ'")


@laws
@given(texts)
def test_all_that_comes_out_is_in_the_alphabet_or_reported(text: str) -> None:
    strict = normalise(text)
    unknown = unknown_characters(strict)
    assert set(strict) <= set(LETTERS) | {" "} | set(unknown)
    assert not {"ƴ", "’", "-", '"', "\u200b", "\u00a0"} & set(strict)
    if not unknown:
        assert VOCAB[UNK] not in encode(strict)
        assert VOCAB[UNK] not in encode(fold(strict))


@laws
@given(texts)
def test_case_and_composition_make_no_difference(text: str) -> None:
    strict = normalise(text)
    assert normalise(unicodedata.normalize("NFD", text)) == strict
    assert normalise(unicodedata.normalize("NFC", text)) == strict
    assert normalise(text.lower()) == strict


@laws
@given(hausa)
def test_capitals_make_no_difference_in_hausa(text: str) -> None:
    if len(text.upper()) == len(text):  # ß has no capital of its own
        assert normalise(text.upper().lower()) == normalise(text.lower())
        assert normalise(text.upper()) == normalise(text)


@settings(laws, max_examples=200)
@given(st.lists(st.integers(0, len(VOCAB) - 1), max_size=30))
def test_what_a_model_writes_is_spelled_as_what_it_learned(labels: list[int]) -> None:
    logits = torch.eye(len(VOCAB))[labels].reshape(1, -1, len(VOCAB))
    (written,) = greedy(logits, torch.tensor([len(labels)]))
    assert set(written) <= set(LETTERS) | {" "}
    assert "ƴ" not in written

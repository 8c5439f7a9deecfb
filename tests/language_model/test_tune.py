"""Weights are tuned on what a real decoder makes of made-up speech; what can't be learnt is left out and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hausa_asr.dataset.prepared import Prepared
from hausa_asr.decoding.beam import BeamDecoder
from hausa_asr.decoding.ngram import estimate, read_words
from hausa_asr.decoding.path import greedy_texts
from hausa_asr.decoding.weights import Weights, store_weights, stored_weights
from hausa_asr.errors import UserError
from hausa_asr.language_model.train import train
from hausa_asr.language_model.tune import Heard, best_of, try_weights
from hausa_asr.metrics import wer
from hausa_asr.text import normalise
from hausa_asr.utterance import Example
from helpers.spoken import TEXT, spoken


def test_the_best_weights_beat_greedy_decoding_where_words_ran_together_and_letters_are_unsure(tmp_path: Path) -> None:
    file = tmp_path / "lm.arpa"
    estimate([text.split() for text in TEXT * 3], 3).write(file)
    logits = [spoken(text, space=0.3, noise=1.5, seed=seed) for seed, text in enumerate(TEXT * 2)]
    heard = Heard(logits, TEXT * 2, [""] * len(logits), 20.0)
    decoder, watched = BeamDecoder(file), []
    tried = try_weights(decoder, heard, 20, lambda done, of: watched.append((done, of)))
    best = best_of(tried)
    decoder.weigh(best)
    assert wer(heard.references, decoder(logits)) == pytest.approx(tried[best].wer)
    assert tried[best].wer < 0.5 * wer(heard.references, greedy_texts(logits))
    assert tried[best].wer == min(one.wer for one in tried.values())
    assert [done for done, _ in watched] == list(range(len(tried)))


def test_where_the_model_knows_nothing_it_counts_for_little(tmp_path: Path) -> None:
    file = tmp_path / "lm.arpa"
    words = sorted({word for text in TEXT for word in text.split()})
    estimate([[word] for word in words], 2).write(file)
    logits = [spoken(text) for text in TEXT]
    best = best_of(try_weights(BeamDecoder(file), Heard(logits, list(TEXT), [""] * len(TEXT), 9.0), 20))
    assert (best.lm, best.word) == (0.0, 0.0)


def test_text_is_spelled_as_transcripts_are_and_what_cannot_be_is_counted(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Ina da mota 3. ‘Ƴar ɗaki ce!\n\nTa ba shi ₦500.\n", encoding="utf-8")
    made = train([text, text], tmp_path / "new/lm.arpa", n=3)
    assert (made.sentences, made.words, made.unspelled, made.held_out) == (4, 14, 2, 0)
    assert set(read_words(made.file)) == {"ina", "da", "mota", "uku", "'yar", "ɗaki", "ce"}
    assert made.dev is None


def test_bad_texts_are_refused_in_one_message(tmp_path: Path) -> None:
    out, text = tmp_path / "lm.arpa", tmp_path / "text.txt"
    for content, message in (
        (b"", "no text to learn from"), ("₦500 €3".encode(), "1 sentences have characters"),
        (b"\xff\xfe\x00ina", "not in UTF-8"), (None, "can't be read"),
    ):  # fmt: skip
        if content is None:
            text.unlink()
        else:
            text.write_bytes(content)
        with pytest.raises(UserError) as refused:
            train([text], out)
        assert message in str(refused.value) and str(text) in str(refused.value)
        assert not out.exists()
    text.write_text("ina da gida", encoding="utf-8")
    with pytest.raises(UserError, match="can't be written"):
        train([text], text / "lm.arpa")
    with pytest.raises(UserError, match="this is a folder"):
        train([text], tmp_path)
    with pytest.raises(UserError, match="Lower --min-count"):
        train([text], out, min_count=2)
    train([text], out, n=6)
    assert BeamDecoder(out)([spoken("ina da gida")]) == ["ina da gida"], "the longest n-grams that KenLM reads"


def test_a_new_model_does_not_inherit_the_old_ones_weights(tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "lm.arpa"
    text.write_text("ina da gida", encoding="utf-8")
    train([text], out)
    store_weights(out, Weights(9.0, 9.0, 9))
    train([text], out)
    assert stored_weights(out) is None


class Spoken(Prepared):
    """A dataset of transcripts alone."""

    def __init__(self, **splits: list[str]) -> None:
        object.__setattr__(self, "splits", {name: Transcripts(texts) for name, texts in splits.items()})


class Transcripts:
    def __init__(self, raw: list[str]) -> None:
        self._raw = raw

    def __len__(self) -> int:
        return len(self._raw)

    def without_samples(self, index: int) -> Example:
        return Example("", np.zeros(0), np.zeros(0), normalise(self._raw[index]), "")

    def transcripts(self, count: int) -> list[tuple[str, str]]:
        return [(raw, normalise(raw)) for raw in self._raw[:count]]


def test_no_sentence_of_dev_or_test_is_learnt_whole_or_in_parts(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Ina kwana. Ya tafi kasuwa.\nYAYA GIDA? Dakin ruwa ne!\nIna kwana yaya gida\n", encoding="utf-8")
    data = Spoken(train=["Ta zo."], dev=["Ina kwana. Yaya gida?"], test=["Ɗakin ruwa ne"])
    made = train([text], tmp_path / "lm.arpa", data, n=2)
    assert set(read_words(made.file)) == {"ta", "zo", "ya", "tafi", "kasuwa"}
    assert (made.sentences, made.held_out) == (2, 4), "hooks are folded, and a line may hold a whole transcript"
    assert made.dev is not None and made.dev.unknown == 4

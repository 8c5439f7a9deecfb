"""Beam search with language models on made-up logits: it mends what a model of the text can know, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hausa_asr.decoding.beam import BeamDecoder
from hausa_asr.decoding.beam_pool import BeamPool
from hausa_asr.decoding.ngram import estimate, letters_of
from hausa_asr.decoding.path import greedy_texts
from hausa_asr.decoding.weights import Weights, store_weights, stored_weights, weights_file
from hausa_asr.errors import UserError
from hausa_asr.text import PAD, VOCAB
from helpers.spoken import TEXT, spoken


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("words") / "lm.arpa"
    estimate([text.split() for text in TEXT * 3], 3).write(file)
    return file


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("letters") / "lm.arpa"
    estimate([letters_of(text.split()) for text in TEXT * 3], 5).write(file)
    return file


def test_clear_speech_is_decoded_as_greedily_it_is(words: Path, letters: Path) -> None:
    logits = [spoken(text) for text in TEXT]
    assert greedy_texts(logits) == TEXT
    for file in (words, letters):
        assert BeamDecoder(file, Weights(0.5, 0.0))(logits) == TEXT


def test_words_that_ran_together_are_parted(words: Path, letters: Path) -> None:
    logits = [spoken(text, space=0.3) for text in TEXT]
    assert all(" " not in heard for heard in greedy_texts(logits))
    for file in (words, letters):
        assert BeamDecoder(file, Weights(1.0, 0.5))(logits) == TEXT, file


def test_a_model_of_letters_hears_new_words_and_one_of_words_only_its_own(words: Path, letters: Path) -> None:
    logits = [spoken("ina da ganda")]
    assert BeamDecoder(letters, Weights(0.5, 0.0))(logits) == ["ina da ganda"]
    heard = BeamDecoder(words, Weights(0.5, 0.0))(logits)[0]
    assert heard != "ina da ganda" and set(heard.split()) <= set(" ".join(TEXT).split())


def test_the_weight_decides_how_much_the_model_counts(words: Path) -> None:
    said = 0.3 * spoken("ruwa yana gida")  # "yana gida" was never read, and "yana da" was
    decoder = BeamDecoder(words, Weights(0.1, 0.2))
    assert decoder([said]) == ["ruwa yana gida"]
    decoder.weigh(Weights(3.0, 6.0))
    assert decoder([said]) == ["ruwa yana da gida"]


def test_a_score_for_each_word_makes_more_of_them(words: Path) -> None:
    logits = [spoken(text, noise=2.0, seed=seed) for seed, text in enumerate(TEXT * 3)]
    counts = []
    decoder = BeamDecoder(words)
    for score in (-15.0, 0.0, 15.0):
        decoder.weigh(Weights(0.5, score))
        counts.append(sum(len(text.split()) for text in decoder(logits)))
    assert counts[0] < counts[1] < counts[2]


def test_silence_and_nothing_give_no_words(words: Path, letters: Path) -> None:
    silence = np.full((50, len(VOCAB)), -9.0, dtype=np.float32)
    silence[:, VOCAB[PAD]] = 0.0
    for file in (words, letters):
        assert BeamDecoder(file)([silence, np.zeros((0, len(VOCAB)), dtype=np.float32)]) == ["", ""]


@pytest.mark.slow
def test_several_processes_find_what_one_does(words: Path) -> None:
    said = [spoken(text, noise=2.0, seed=seed) for seed, text in enumerate(TEXT * 8)]
    logits = [np.concatenate(said), *said, np.zeros((0, len(VOCAB)), dtype=np.float32)]
    assert len(logits[0]) > 1500, "one is searched in parts"
    decoder = BeamDecoder(words)
    pool = BeamPool(decoder, words, 2)
    try:
        for one, other in zip(pool.paths(logits), decoder.paths(logits), strict=True):
            assert np.array_equal(one, other)
    finally:
        pool.close()


def test_kenlm_writes_nothing_to_the_terminal(words: Path, capfd: pytest.CaptureFixture[str]) -> None:
    BeamDecoder(words)
    assert capfd.readouterr() == ("", "")


def test_tuned_weights_are_found_beside_the_model(words: Path, tmp_path: Path) -> None:
    file = tmp_path / "ha.arpa"
    file.write_bytes(words.read_bytes())
    assert stored_weights(file) is None and BeamDecoder(file).weights == Weights()
    store_weights(file, Weights(2.25, -0.75, 30), dev_wer=0.1)
    assert BeamDecoder(file).weights == stored_weights(file) == Weights(2.25, -0.75, 30)
    for broken in ("", "[]", json.dumps({"lm": 1.0})):
        weights_file(file).write_text(broken)
        with pytest.raises(UserError, match="weights of the language model"):
            BeamDecoder(file)


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "ARPA"), (b"\x00\xff\xfe" * 9, "no text"), (b"ina da gida\n", "ARPA"),
     ("\\data\\\nngram 1=1\n\n\\1-grams:\n-1\tпривет\n\n\\end\\\n".encode(), "none of its words"),
     (b"\\data\\\nngram 1=2\n\n\\1-grams:\n-1\tina\n\n\\end\\\n", "can't be used")],
)  # fmt: skip
def test_what_is_no_language_model_is_refused_in_one_message(content: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "lm.arpa"
    file.write_bytes(content)
    with pytest.raises(UserError, match=why) as refused:
        BeamDecoder(file)
    assert str(file) in str(refused.value)
    with pytest.raises(UserError, match="no such language model"):
        BeamDecoder(tmp_path / "none.arpa")

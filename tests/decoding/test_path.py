"""Words come with the times at which they were said, whether a path was found greedily or by a beam search."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from hausa_asr.decoding.beam import BeamDecoder, pause_ends
from hausa_asr.decoding.greedy import greedy
from hausa_asr.decoding.ngram import estimate, letters_of
from hausa_asr.decoding.path import FRAME_S, greedy_paths, greedy_texts, text_of, words_of
from hausa_asr.decoding.subtitles import subtitles
from hausa_asr.decoding.weights import Weights
from hausa_asr.text import PAD, VOCAB
from helpers.spoken import TEXT, spoken

SILENCE = spoken("a")[2:3]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> BeamDecoder:
    file = tmp_path_factory.mktemp("lm") / "lm.arpa"
    estimate([text.split() for text in TEXT * 3], 3).write(file)
    return BeamDecoder(file, Weights(0.5, 0.0))


def test_texts_are_those_of_the_greedy_decoder_that_scores_models() -> None:
    import torch

    logits = [spoken(text, noise=3.0, seed=seed) for seed, text in enumerate(TEXT * 5)]
    assert greedy_texts(logits) == [greedy(torch.from_numpy(one)[None], torch.tensor([len(one)]))[0] for one in logits]


def test_each_word_is_where_its_letters_are(decoder: BeamDecoder) -> None:
    logits = np.concatenate([np.repeat(SILENCE, 50, axis=0), spoken("ina"), np.repeat(SILENCE, 25, axis=0),
                             spoken(" da gida"), np.repeat(SILENCE, 10, axis=0)])  # fmt: skip
    for path in (greedy_paths([logits])[0], decoder.paths([logits])[0]):
        assert len(path) == len(logits) and text_of(path) == "ina da gida"
        ina, da, gida = words_of(path, logits)
        assert (ina.text, da.text, gida.text) == ("ina", "da", "gida")
        # Letters are two frames and a blank, spaces a frame and a blank.
        assert ina.start_s == pytest.approx(50 * FRAME_S) and ina.end_s == pytest.approx((50 + 8) * FRAME_S)
        first = 50 + 9 + 25 + 2
        assert da.start_s == pytest.approx(first * FRAME_S) and da.end_s == pytest.approx((first + 5) * FRAME_S)
        assert gida.end_s == pytest.approx((len(logits) - 10 - 1) * FRAME_S)


def test_the_words_of_any_path_make_its_text(decoder: BeamDecoder) -> None:
    for seed in range(30):
        logits = spoken(TEXT[seed % 6], noise=3.0, seed=seed)
        for path in (greedy_paths([logits])[0], decoder.paths([logits])[0]):
            words = words_of(path, logits)
            assert " ".join(word.text for word in words) == text_of(path)
            times = [time for word in words for time in (word.start_s, word.end_s)]
            assert times == sorted(times) and all(0 <= time <= len(logits) * FRAME_S for time in times)
            assert all(0 <= word.confidence <= 1 for word in words)


def test_an_unsure_word_has_the_lower_confidence() -> None:
    sure, unsure = spoken("ina"), spoken("da")
    unsure = unsure * 0.5  # the same order of labels, and flatter chances
    logits = np.concatenate([sure, spoken(" "), unsure])
    ina, da = words_of(greedy_paths([logits])[0], logits)
    assert 0.3 < da.confidence < 0.8 < ina.confidence


def test_long_recordings_are_parted_in_their_pauses_and_lose_nothing(decoder: BeamDecoder) -> None:
    said = [TEXT[at % 6] for at in range(120)]
    logits = np.concatenate([part for text in said for part in (spoken(f"{text} "), np.repeat(SILENCE, 20, axis=0))])
    ends = pause_ends(logits)
    assert len(ends) >= len(logits) // 1500
    assert max(np.diff([0, *ends, len(logits)])) <= 1500
    for end in ends:
        assert (logits[end - 5 : end + 5].argmax(axis=1) == VOCAB[PAD]).all(), "in the middle of a pause"
    assert decoder([logits]) == [" ".join(said)]
    unparted = np.concatenate([part for text in said for part in (spoken(text), np.repeat(SILENCE, 20, axis=0))])
    ends = len(decoder.paths([unparted])[0]), len(unparted)
    assert ends[0] == ends[1]
    assert decoder([unparted])[0].replace(" ", "") == "".join(said).replace(" ", "")
    assert all(" " in decoder([unparted])[0][at : at + 60] for at in range(0, 1200, 60)), "a part does not run on"
    assert pause_ends(logits[:1500]) == []
    no_pause = np.tile(spoken("gidagida")[:2], (2000, 1))
    assert max(np.diff([0, *pause_ends(no_pause), 4000])) <= 1500


def test_a_model_of_letters_keeps_words_apart_where_a_recording_was_parted(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = tmp_path_factory.mktemp("letters") / "lm.arpa"
    estimate([letters_of(text.split()) for text in TEXT * 3], 5).write(file)
    pause = np.repeat(SILENCE, 700, axis=0)
    said = [TEXT[at % 6] for at in range(8)]
    logits = np.concatenate([part for text in said for part in (spoken(text), pause)])
    parted = len(pause_ends(logits))
    assert parted >= 3
    heard = BeamDecoder(file, Weights(0.5, 0.0))([logits])[0]
    assert heard.replace(" ", "") == "".join(said).replace(" ", "")
    assert heard.count(" ") >= " ".join(said).count(" ") - (len(said) - 1 - parted), "a space at each part's end"


def test_subtitles_are_read_back_with_all_words_and_no_overlap() -> None:
    import pysubs2

    parts, words = [], []
    for at in range(40):
        parts += [spoken(f"{TEXT[at % 6]} "), np.repeat(SILENCE, 60 if at % 5 == 4 else 3, axis=0)]
    logits = np.concatenate(parts)
    words = words_of(greedy_paths([logits])[0], logits)
    for kind in ("srt", "vtt"):
        made = subtitles(words, kind)
        assert made.startswith("WEBVTT") is (kind == "vtt")
        read = list(pysubs2.SSAFile.from_string(made))
        lines = [line.text.replace("\\N", " ").split() for line in read]
        assert [word for line in lines for word in line] == [word.text for word in words]
        assert all(one.end <= two.start for one, two in pairwise(read))
        assert all(line.start < line.end <= line.start + 7_000 for line in read)
        assert max(len(part) for line in read for part in line.text.split("\\N")) <= 45
        assert abs(read[0].start - 1000 * words[0].start_s) <= 10
    [only] = pysubs2.SSAFile.from_string(subtitles(words[:1], "srt"))
    assert only.text == words[0].text and only.end - only.start >= 990
    assert subtitles([], "vtt").startswith("WEBVTT")


def test_one_letter_throughout_is_one_word() -> None:
    """As a model says that has learned nothing."""
    logits = np.zeros((30, len(VOCAB)), dtype=np.float32)
    logits[:, VOCAB["a"]] = 5.0
    [word] = words_of(greedy_paths([logits])[0], logits)
    assert (word.text, word.start_s, word.end_s) == ("a", 0.0, 0.6)

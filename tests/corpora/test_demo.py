"""The synthetic corpora must be fair (nothing of test heard in training), learnable, and the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hausa_asr.corpora import demo, espeak, pseudo
from hausa_asr.errors import UserError
from hausa_asr.text import encode, normalise
from hausa_asr.utterance import Utterance

espeakng_loader = pytest.importorskip("espeakng_loader")

SEEDS = (0, 1, 2, 3, 4)
HAUSA_LETTERS = "abcdefghijklmnorstuwyzɓɗƙ'"
DIGRAPHS = ("sh", "ts", "kw", "ky", "gw", "gy", "ƙw", "ƙy", "'y", "ai", "au")
MINIMAL_PAIRS = [
    ("doki", "ɗoki"),
    ("bari", "ɓari"),
    ("kara", "ƙara"),
    ("kare", "ƙare"),
    ("baki", "baƙi"),
    ("yaya", "'ya'ya"),
    ("saa", "sa'a"),
    ("sa", "tsa"),
    ("gana", "ganna"),
]
HEARD_BEFORE = """
import hashlib, json, sys
from hausa_asr.corpora import demo, espeak
lines = demo.lines()
sounds = [espeak.speak(l.text, l.voice, l.pitch, l.rate).tobytes() for l in lines[:: int(sys.argv[1])]]
print(json.dumps([hashlib.sha256(repr(lines).encode()).hexdigest(), hashlib.sha256(sounds[-1]).hexdigest()]))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def corpus(cache: Path) -> list[Utterance]:
    return list(demo.utterances(cache))


@pytest.fixture(scope="module")
def pseudo_corpus(cache: Path) -> list[Utterance]:
    return list(pseudo.utterances(cache, count=80))


def samples_of(utterance: Utterance) -> np.ndarray:
    with wave.open(utterance.audio) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (22_050, 2, 1)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def run_python(code: str, *arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    path = os.pathsep.join(filter(None, (environment.pop("FIRST_ON_PATH", ""), *sys.path)))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("seed", SEEDS)
def test_no_sentence_and_no_voice_is_in_two_splits(seed: int) -> None:
    lines = demo.lines(seed)
    assert len({normalise(line.text) for line in lines}) == len(lines)
    assert len({line.id for line in lines}) == len(lines)
    voices = {split: {line.voice for line in lines if line.split == split} for split in ("train", "dev", "test")}
    assert sum(map(len, voices.values())) == len(set.union(*voices.values()))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_word_of_dev_and_test_is_often_said_in_train(seed: int) -> None:
    lines = demo.lines(seed)
    train = Counter(word for line in lines if line.split == "train" for word in line.text.split())
    assert all(train[word] >= 10 for line in lines for word in line.text.split())
    assert all(train[word] >= 30 for word in ("da", "a", "ta", "ya", "su", "ba", "na", "ne"))  # the ones models drop
    assert len(train) >= 120


def test_texts_are_normalised_and_use_every_letter_of_hausa() -> None:
    for lines in (demo.lines(), pseudo.lines()):
        for line in lines:
            assert normalise(line.text) == line.text
            encode(line.text)
        text = " ".join(line.text for line in lines if line.split == "train")
        assert set(HAUSA_LETTERS) <= set(text)
        assert all(digraph in text for digraph in DIGRAPHS)


def test_counts_durations_and_files(corpus: list[Utterance]) -> None:
    counts = Counter(utterance.split for utterance in corpus)
    assert counts["train"] >= 700
    assert (counts["dev"], counts["test"]) == (120, 120)
    durations = []
    for utterance in corpus:
        samples = samples_of(utterance)
        durations.append(len(samples) / 22_050)
        assert utterance.duration_s == pytest.approx(durations[-1], abs=1e-3)
        assert np.abs(samples.astype(int)).max() > 3_000, "next to silent"
        assert np.mean(np.abs(samples.astype(int)) >= 32_767) < 1e-3, "clipped"
    assert 1 <= min(durations) <= max(durations) <= 8
    assert 2 <= np.mean(durations) <= 3


def test_a_second_call_speaks_nothing(corpus: list[Utterance], cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert list(demo.utterances(cache)) == corpus
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before
    without = f"""
import sys; sys.modules["espeakng_loader"] = None
from pathlib import Path; from hausa_asr.corpora import demo
print(len(list(demo.utterances(Path({str(cache)!r})))))"""
    assert int(run_python(without)) == len(corpus)


def test_speech_is_the_same_whatever_was_spoken_before(corpus: list[Utterance]) -> None:
    lines = {line.id: line for line in demo.lines()}
    for utterance in corpus[::-31]:
        line = lines[utterance.id]
        samples = np.trim_zeros(espeak.speak(line.text, line.voice, line.pitch, line.rate))
        assert np.array_equal(samples, np.trim_zeros(samples_of(utterance))), line


def test_another_process_draws_and_speaks_the_same() -> None:
    last = (len(demo.lines()) - 1) // 60 * 60
    once = run_python(HEARD_BEFORE, "60", PYTHONHASHSEED="1")
    again = run_python(HEARD_BEFORE, str(last), PYTHONHASHSEED="2")
    assert json.loads(once) == json.loads(again)


def test_another_seed_is_another_corpus_beside_the_first(tmp_path: Path) -> None:
    first = list(pseudo.utterances(tmp_path, seed=0, count=3))
    second = list(pseudo.utterances(tmp_path, seed=1, count=3))
    assert {u.text for u in first}.isdisjoint(u.text for u in second)
    assert all(Path(u.audio).is_file() for u in first + second)


def test_an_interrupted_corpus_leaves_nothing_behind(tmp_path: Path) -> None:
    good = espeak.Line("good", "ina kwana", "train", "f1", 50, 130)
    broken = espeak.Line("broken", "ina kwana", "train", "nobody", 50, 130)
    with pytest.raises(ValueError, match="nobody"):
        list(espeak.recorded(tmp_path, "demo", [good, broken]))
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    occupied = tmp_path / "cache"
    occupied.write_text("a file")
    with pytest.raises(UserError, match="demo corpus") as caught:
        demo.utterances(occupied)
    assert caught.value.fix


def test_a_missing_espeak_says_what_to_install() -> None:
    code = """
import sys; sys.modules["espeakng_loader"] = None
from hausa_asr.corpora import espeak; from hausa_asr.errors import UserError
try: espeak.speak("ina kwana", "f1")
except UserError as error: print(error)"""
    assert "pip install 'hausa-asr-sweeps[demo]'" in run_python(code)


def test_espeak_speaks_from_a_very_long_path(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*("x" * 50,) * 4)  # beyond what the library itself can take
    deep.mkdir(parents=True)
    (deep / "espeakng_loader").symlink_to(Path(espeakng_loader.__file__).parent)
    code = """
import hashlib, espeakng_loader; from hausa_asr.corpora import espeak
print(len(espeakng_loader.get_data_path()), hashlib.sha256(espeak.speak("ina kwana", "f1")).hexdigest())"""
    length, digest = run_python(code, FIRST_ON_PATH=str(deep)).split()
    assert int(length) > 200
    assert digest == hashlib.sha256(espeak.speak("ina kwana", "f1").tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("text", "mnemonics"),
    [
        ("doki", "d'oki"),
        ("ɗoki", "?d'oki"),
        ("ɓarawo", "?bar'awo"),
        ("ƙarfe", "k`'arfe"),
        ("ƙwai", "k`waj"),
        ("ƙyalle", "k`j'alle"),
        ("'ya'ya", "?j'a?ja"),
        ("ƴata", "?j'ata"),
        ("tsuntsu", "ts?'unts?u"),
        ("shayi da kyau", "S'aji da kjaw"),
        ("gwanda gyaɗa", "gw'anda gj'a?da"),
        ("kwano ce jaka", "kw'ano tSe dZ'aka"),
        ("jama'a", "dZam'a?a"),
        ("sannu aiki", "s'annu 'ajki"),
        ("paris xaq", "f'aris ksak"),
    ],
)
def test_letters_become_sounds(text: str, mnemonics: str) -> None:
    assert espeak.phonemes(text) == mnemonics


@pytest.mark.parametrize("text", ["Bala", "doki!", "4", "naïra"])
def test_text_that_is_not_normalised_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="normalise"):
        espeak.phonemes(text)


@pytest.mark.parametrize(("plain", "hooked"), MINIMAL_PAIRS)
@pytest.mark.parametrize("voice", ["f1", "m4", "f5", "m7"])
def test_minimal_pairs_are_clearly_apart(voice: str, plain: str, hooked: str) -> None:
    first, second = log_spectrogram(espeak.speak(plain, voice)), log_spectrogram(espeak.speak(hooked, voice))
    shorter = min(len(first), len(second))
    assert np.abs(first[:shorter] - second[:shorter]).mean() > 0.5


def log_spectrogram(samples: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(samples.astype(float), 512)[::128]
    return np.log(np.abs(np.fft.rfft(windows * np.hanning(512))) ** 2 + 1e3)


def test_pseudo_words_share_nothing_with_the_demo_corpus() -> None:
    lines = pseudo.lines()
    said = {word for line in lines for word in line.text.split()}
    assert said.isdisjoint(demo.words())
    assert {line.voice for line in lines}.isdisjoint(voice for voices in demo.VOICES.values() for voice in voices)
    assert len({line.text for line in lines}) == len(lines) == 2_400
    assert Counter(line.split for line in lines) == {"train": 2_280, "dev": 120}


def test_pseudo_utterances_are_spoken(pseudo_corpus: list[Utterance]) -> None:
    assert {utterance.split for utterance in pseudo_corpus} == {"train", "dev"}
    for utterance in pseudo_corpus:
        samples = samples_of(utterance)
        assert 1 <= len(samples) / 22_050 <= 5
        assert np.abs(samples.astype(int)).max() > 3_000


def test_every_voice_is_one_of_its_own() -> None:
    voices = [*pseudo.VOICES, *(voice for split in demo.VOICES.values() for voice in split)]
    sounds = {voice: espeak.speak("bala ya sayi doki a kasuwa", voice) for voice in voices}
    assert len({sound.tobytes() for sound in sounds.values()}) == len(voices) >= 10
    assert all(1 <= len(sound) / 22_050 <= 4 for sound in sounds.values())

"""Overlap: what test shares with train is found, reported and refused, however it is named or coded."""

import io
import json
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hausa_asr.audio import fingerprint
from hausa_asr.audio.resample import to_16_khz
from hausa_asr.dataset import splits
from hausa_asr.dataset.prepare import Prepared, PrepareSettings, prepare
from hausa_asr.errors import UserError
from hausa_asr.utterance import Utterance


@cache
def voice(seed: int, speaker: int = 0, duration_s: float = 3.0) -> np.ndarray:
    """(S,) at 16 kHz like speech: syllables of a pitch and formants that belong to the sentence and the speaker."""
    rng = np.random.default_rng((seed, speaker))
    count = round(duration_s * 16_000)
    time_s = np.arange(count) / 16_000
    steps = np.arange(0, duration_s + 0.2, 0.12) + rng.uniform(-0.03, 0.03, len(np.arange(0, duration_s + 0.2, 0.12)))
    pitch = np.interp(time_s, steps, rng.uniform(100, 160, len(steps)) * (1 + 0.3 * speaker))
    loudness = np.interp(time_s, steps, rng.uniform(0.05, 1, len(steps)))
    phase = 2 * np.pi * np.cumsum(pitch) / 16_000
    formants = [np.interp(time_s, steps, rng.uniform(low, high, len(steps))) for low, high in _FORMANTS]
    made = np.zeros(count)
    for harmonic in range(1, 24):
        hertz = harmonic * pitch
        made += sum(np.exp(-(((hertz - each) / 150) ** 2)) for each in formants) * np.sin(harmonic * phase)
    made = made * loudness + 0.003 * rng.normal(size=count)
    return (0.3 * made / np.abs(made).max()).astype(np.float32)


_FORMANTS = ((300, 800), (900, 2_200), (2_300, 3_300))


def coded(samples: np.ndarray, rate: int, **how: object) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **how)  # type: ignore[arg-type]
    file.seek(0)
    samples, rate = soundfile.read(file, dtype="float32")
    return to_16_khz(np.ascontiguousarray(samples), rate)


def changed(samples: np.ndarray, how: str) -> np.ndarray:
    """The same recording as it may come back from elsewhere."""
    noise = np.random.default_rng(1).normal(0, 1e-3, 4_000).astype(np.float32)
    return {
        "mp3": lambda: coded(samples, 16_000, format="MP3"),
        "ogg": lambda: coded(samples, 16_000, format="OGG"),
        "opus": lambda: coded(samples, 16_000, format="OGG", subtype="OPUS"),
        "8 kHz": lambda: to_16_khz(to_16_khz(samples, 32_000), 8_000),
        "level": lambda: 0.1 * samples,
        "trimmed": lambda: samples[3_333:-2_222],
        "padded": lambda: np.concatenate([noise, samples, noise]),
        "all": lambda: coded(0.3 * to_16_khz(samples[1_234:], 32_000), 8_000, format="MP3"),
    }[how]()


@pytest.mark.parametrize("how", ["mp3", "ogg", "opus", "8 kHz", "level", "trimmed", "padded", "all"])
def test_a_recording_is_known_again_however_it_was_coded(how: str) -> None:
    originals = [voice(seed, seed % 4) for seed in range(30)]
    index = fingerprint.Index([(n, fingerprint.of(fingerprint.power(each))) for n, each in enumerate(originals)])
    matches = [index.find(fingerprint.of(fingerprint.power(changed(each, how)))) for each in originals]
    assert sum(each == [n] for n, each in enumerate(matches)) >= 29  # measured on real speech: docs/log.md
    assert all(each in ([], [n]) for n, each in enumerate(matches))


def test_other_recordings_are_not_taken_for_the_same() -> None:
    """Another speaker with the same sentence, and the same speaker reading it faster, are other recordings."""
    first = [voice(seed, seed % 4) for seed in range(30)]
    index = fingerprint.Index([(n, fingerprint.of(fingerprint.power(each))) for n, each in enumerate(first)])
    for seed in range(30):
        slower = to_16_khz(first[seed], 14_800)
        for other in (voice(seed, 5), slower):
            assert index.find(fingerprint.of(fingerprint.power(other))) == []


def test_the_silent_and_the_short_match_nothing() -> None:
    for samples in (np.zeros(16_000, np.float32), voice(0)[:1_000], voice(0)[:3_000]):
        numbers = fingerprint.of(fingerprint.power(samples))
        assert fingerprint.Index([(0, numbers)]).find(numbers) == []
    assert fingerprint.Index([]).find(fingerprint.of(fingerprint.power(voice(0)))) == []


def test_looking_up_a_hundred_thousand_clips_takes_seconds_and_not_hours() -> None:
    rng = np.random.default_rng(0)
    index = fingerprint.Index([(n, rng.integers(1, 2**32, 260, dtype=np.uint32)) for n in range(2_000)])
    start = time.perf_counter()
    for _ in range(200):
        index.find(rng.integers(1, 2**32, 260, dtype=np.uint32))
    assert (time.perf_counter() - start) / 200 < 0.01  # measured: 0.1 ms


# -- whole corpora ----------------------------------------------------------------------------------------------------


class Corpus:
    """Utterances with sounds of their own, made as they are named."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, list[Utterance]()
        folder.mkdir()

    def add(self, name: str, split: str | None, text: str = "", speaker: str = "", **more: object) -> Utterance:
        """One more; `like` and `how` make it the recording of an earlier one."""
        like, how = more.pop("like", None), str(more.pop("how", ""))
        number = next((n for n, each in enumerate(self.made) if each.id == like), len(self.made))
        samples = voice(number, duration_s=2.0)
        path = self.folder / f"{len(self.made)}.wav"
        soundfile.write(path, changed(samples, how) if how else samples, 16_000)
        sentence = (
            text or f"magana ta {'abcdefghijklmnopqrstuwyz'[len(self.made) % 24]} {'aeiou'[len(self.made) // 24]}"
        )
        self.made.append(Utterance(name, str(path), sentence, split, speaker, None, "demo", **more))  # type: ignore[arg-type]
        return self.made[-1]


@pytest.fixture
def leaky(tmp_path: Path) -> Corpus:
    """Six of train, two of dev, five of test: each kind of leak once, and a clean one."""
    corpus = Corpus(tmp_path / "audio")
    for n in range(6):
        corpus.add(f"train-{n}", "train", speaker=f"s{n}")
    corpus.add("dev-0", "dev", speaker="d")
    corpus.add("dev-1", "dev", text="Magana ta a, a!")
    corpus.add("copy", "test", like="train-1", speaker="t")
    corpus.add("prompt", "test", text="Magana ta ƙ a".replace("ƙ", "c"), speaker="t")
    corpus.add("person", "test", speaker="s3")
    corpus.add("coded", "test", like="train-4", how="all", speaker="t")
    corpus.add("clean", "test", speaker="t")
    return corpus


def overlaps(made: Prepared, pair: str = "train/test") -> dict[str, dict[str, int]]:
    return {kind: about["utterances"] for kind, about in made.report["overlap"].get(pair, {}).items()}


def refused(made: Prepared) -> dict[str, str]:
    lines = (made.path / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    return {each["id"]: f"{each['reason']}, {each['detail']}" for each in map(json.loads, lines)}


def test_train_in_test_is_refused_by_kind_and_number_and_nothing_decoded_is_lost(tmp_path: Path, leaky: Corpus) -> None:
    with pytest.raises(UserError) as error:
        prepare(leaky.made, tmp_path / "out")
    message = str(error.value)
    for kind, pair in {
        "clip": "train-1 with copy", "sentence": "train-2 with prompt",
        "speaker": "train-3 with person", "audio": "train-4 with coded",
    }.items():  # fmt: skip
        assert f"{kind}: 1 utterances of train" in message and pair in message, message
    assert "data.overlap=drop" in message and "data.allow_overlap=[clip, sentence, speaker, audio]" in message
    shards = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "audio").iterdir()}
    assert shards
    made = prepare(leaky.made, tmp_path / "out", PrepareSettings(overlap="drop"), progress=_never)
    assert {path.name: path.stat().st_mtime_ns for path in (made.path / "audio").iterdir()} == shards
    assert refused(made) == {
        "train-1": "in test too, clip: copy of test",
        "train-2": "in test too, sentence: prompt of test",
        "train-3": "in test too, speaker: person of test",
        "train-4": "in test too, audio: coded of test",
    }
    assert overlaps(made) == {kind: {"train": 1, "test": 1} for kind in ("clip", "sentence", "speaker", "audio")}
    assert len(made.splits["test"]) == 5 and [each.id for each in made.splits["train"]] == ["train-0", "train-5"]
    assert overlaps(made, "train/dev") == {"sentence": {"train": 1, "dev": 1}}
    warnings = "\n".join(made.report["warnings"])
    assert "1 utterances of dev share sentences with 1 of train" in warnings
    assert "of test share" not in warnings and "4 utterances were left out of train" in warnings


def _never(*reports: object) -> None:
    raise AssertionError("decoded again")


def test_an_overlap_that_is_meant_is_allowed_by_name_and_reported(tmp_path: Path, leaky: Corpus) -> None:
    with pytest.raises(UserError) as error:
        prepare(leaky.made, tmp_path / "out", PrepareSettings(allow_overlap=("clip", "audio", "speaker")))
    assert "sentence: 1" in str(error.value) and "clip: 1" not in str(error.value)
    made = prepare(
        leaky.made, tmp_path / "out", PrepareSettings(allow_overlap=("clip", "audio", "speaker", "sentence"))
    )
    assert made.report["utterances"]["refused"] == 0
    example = made.report["overlap"]["train/test"]["audio"]["examples"][0]
    assert (example["train"], example["test"]) == ("train-4", "coded")
    assert "1 utterances of test share recordings with 1 of train: test flatters the model" in made.report["warnings"]
    for wrong, named in (
        (PrepareSettings(allow_overlap=("voice",)), "voice"),
        (PrepareSettings(overlap="keep"), "keep"),
    ):
        with pytest.raises(UserError, match=named):
            prepare(leaky.made, tmp_path / "out", wrong)


def test_a_corpus_of_one_speaker_is_reported_and_not_refused(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "audio")
    for split, count in (("train", 4), ("dev", 2), ("test", 2)):
        for n in range(count):
            corpus.add(f"{split}-{n}", split, speaker="Audu")
    made = prepare(corpus.made, tmp_path / "out")
    assert overlaps(made) == {"speaker": {"train": 4, "test": 2}}
    assert "2 utterances of test share speakers with 4 of train: test flatters the model" in made.report["warnings"]


def test_a_clip_that_is_listed_in_two_splits_is_a_leak_and_no_duplicate(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "audio")
    for split, count in (("train", 4), ("dev", 1), ("test", 2)):
        for n in range(count):
            corpus.add(f"{split}-{n}", split)
    both = [*corpus.made, replace(corpus.made[0], split="test")]
    with pytest.raises(UserError, match="clip: 1 utterances of train"):
        prepare(both, tmp_path / "out")
    made = prepare(both, tmp_path / "out", PrepareSettings(overlap="drop"))
    assert [each.id for each in made.splits["test"]] == ["test-0", "test-1", "train-0"]


def test_a_cut_of_our_own_makes_no_leak(tmp_path: Path) -> None:
    """Speakers who share a few prompts, one recording under two names: cut by speaker, and train goes without them."""
    corpus = Corpus(tmp_path / "audio")
    for n in range(60):
        corpus.add(f"u{n}", None, speaker=f"s{n % 6}", text="gaisuwa ta kowa" if n in (0, 1, 2, 3) else "")
    corpus.add("again", None, speaker="", like="u5", how="mp3", text="wata magana daban")
    made = prepare(corpus.made, tmp_path / "out")
    assert "by speaker" in made.report["warnings"][0]
    by_split = {name: list(split) for name, split in made.splits.items()}
    for other in ("dev", "test"):
        assert not {each.speaker for each in by_split["train"]} & {each.speaker for each in by_split[other]}
        assert not {each.text for each in by_split["train"]} & {each.text for each in by_split[other]}
    assert 0 < len(refused(made)) <= 5
    assert all(reason.startswith(("in test too", "in dev too")) for reason in refused(made).values())


def test_speakers_who_all_read_the_same_are_cut_by_sentence_and_that_is_said(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "audio")
    for n in range(60):
        corpus.add(f"u{n}", None, speaker=f"s{n % 6}", text=f"magana ta {'abcdefghij'[n // 6]}")
    made = prepare(corpus.made, tmp_path / "out")
    assert "by sentence, as its speakers read the same ones" in made.report["warnings"][0]
    assert refused(made) == {}
    assert overlaps(made)["speaker"]["test"] > 0 and set(overlaps(made)) == {"speaker"}


def test_joined_corpora_are_cut_each_by_itself_and_not_where_one_has_a_test() -> None:
    made = [Utterance(str(n), "", f"t{n}", None, f"s{n % 8}", None, name) for name in ("a", "b") for n in range(80)]
    texts = [f"{each.corpus} {each.id}" for each in made]
    places, cut, warnings = splits.assign(made, texts, given=splits.named(made), seed=0)
    assert cut == {"dev", "test"} and len(warnings) == 2 and warnings[0].startswith("a: the corpus has no dev")
    for name in ("a", "b"):
        mine = [place for place, each in zip(places, made, strict=True) if each.corpus == name]
        assert {split: mine.count(split) for split in ("train", "dev", "test")} == {"train": 60, "dev": 10, "test": 10}
    official = [replace(each, split=("train", "dev", "test")[int(each.id) % 3]) if each.corpus == "a" else each
                for each in made]  # fmt: skip
    places, cut, warnings = splits.assign(official, texts, given=splits.named(official), seed=0)
    assert not cut and {p for p, each in zip(places, official, strict=True) if each.corpus == "b"} == {"train"}
    assert warnings == ["b: 80 utterances are all in train, since another corpus has dev and test of its own"]
    # A missing dev is cut where the test comes from.
    no_dev = [replace(each, split="test" if int(each.id) % 3 == 2 else "train") if each.corpus == "a" else each
              for each in made]  # fmt: skip
    places, cut, _ = splits.assign(no_dev, texts, given=splits.named(no_dev), seed=0)
    assert cut == {"dev"}
    assert {each.corpus for place, each in zip(places, no_dev, strict=True) if place == "dev"} == {"a"}

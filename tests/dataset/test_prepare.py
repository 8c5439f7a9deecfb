"""Preparation: what is kept is exact, what is bad costs only itself, and a dataset is there whole or not at all."""

import json
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from hausa_asr.dataset.prepare import PreparedSplit, PrepareProgress, PrepareSettings, _locked, load_prepared, prepare
from hausa_asr.errors import UserError
from hausa_asr.text import encode
from hausa_asr.utterance import Utterance
from helpers.noise import corpus, sound


@pytest.fixture
def three(tmp_path: Path) -> list[Utterance]:
    return corpus(tmp_path / "audio", {"train": 4, "dev": 2, "test": 2})


def refusals(path: Path) -> dict[str, str]:
    lines = (path / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["id"]: line["reason"] for line in map(json.loads, lines)}


def test_examples_come_back_bit_for_bit(tmp_path: Path, three: list[Utterance]) -> None:
    three[0] = replace(three[0], text="Ƙasa, ‘ƴan ɗaki: 3!", speaker="Audu")
    reports: list[PrepareProgress] = []
    made = prepare(three, tmp_path / "out", progress=reports.append, origin={"corpus": "test"})
    last = reports[-1]
    assert (last.done, last.total, last.share, last.left_h, last.eta_s) == (8, 8, 1.0, 0.0, 0.0)
    assert last.done_h == pytest.approx(8 * 1.5 / 3600) and last.clips_per_s > 0
    assert made.path == tmp_path / "out" and not made.reused
    assert {name: len(split) for name, split in made.splits.items()} == {"train": 4, "dev": 2, "test": 2}
    train = made.splits["train"]
    assert [example.id for example in train] == [f"train-{n}" for n in range(4)]
    for number, example in enumerate(train):
        assert example.samples.dtype == np.float32 and example.labels.dtype == np.int64
        np.testing.assert_array_equal(example.samples * 32_768, sound(number))
        assert example.labels.tolist() == encode(example.text)
    assert train[0].text == "ƙasa 'yan ɗaki uku" and train[0].speaker == "Audu" and train[1].speaker == ""
    assert train.n_samples.dtype == np.int64 and train.n_samples.tolist() == [24_000] * 4
    assert train[-1].id == train[np.int64(3)].id == "train-3"  # type: ignore[index]
    for beyond in (4, -5):
        with pytest.raises(IndexError):
            train[beyond]
    assert made.report["utterances"] == {"in": 8, "kept": 8, "refused": 0}
    assert made.report["hours"]["kept"] == pytest.approx(8 * 1.5 / 3600, abs=1e-5)
    assert made.report["warnings"] == []
    assert json.loads((made.path / "prepared.json").read_text())["origin"] == {"corpus": "test"}


def test_splits_that_span_many_record_batches(tmp_path: Path) -> None:
    many = corpus(tmp_path / "audio", {"train": 70, "dev": 33})
    made = prepare([many[n] for n in np.random.default_rng(0).permutation(len(many))], tmp_path / "out")
    for split in made.splits.values():
        by_id = {utterance.id: (number, utterance) for number, utterance in enumerate(many)}
        for index in range(len(split)):
            example = split[index]
            number, utterance = by_id.pop(example.id)
            assert example.text == utterance.text and split.n_samples[index] == len(example.samples)
            np.testing.assert_array_equal(example.samples * 32_768, sound(number))


def test_the_files_are_plain_arrow_for_anyone_to_read(tmp_path: Path, three: list[Utterance]) -> None:
    made = prepare(three, tmp_path / "out")
    table = pa.ipc.open_file(str(made.splits["train"].path)).read_all()
    columns = ["id", "shard", "row", "n_samples", "text", "text_raw", "speaker", "duration_s", "corpus"]
    assert table.column_names == columns
    assert table["text_raw"].to_pylist() == [utterance.text for utterance in three[:4]]
    assert table["duration_s"].to_pylist() == [1.5] * 4
    (shard,) = (made.path / "audio").glob("*.arrow")
    assert json.loads(table.schema.metadata[b"shards"]) == [shard.name]
    samples = pa.ipc.open_file(str(shard)).read_all()["samples"]
    assert samples.type == pa.list_(pa.int16())
    for number, row in enumerate(table["row"].to_pylist()):
        np.testing.assert_array_equal(samples[row].values.to_numpy(), sound(number))


def test_another_process_reads_the_same_without_the_audio(tmp_path: Path, three: list[Utterance]) -> None:
    made = prepare(three, tmp_path / "out")
    shutil.rmtree(tmp_path / "audio")
    pickled = pickle.dumps(made.splits["dev"])
    assert len(pickled) < 500  # its path, not its samples
    code = "import pickle, sys; s = pickle.load(sys.stdin.buffer); print(len(s), s[1].id, s[1].samples.sum())"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickled, capture_output=True, cwd=Path(__file__).parents[2]
    )
    example = made.splits["dev"][1]
    assert done.stdout.decode().split() == ["2", example.id, str(example.samples.sum())], done.stderr


def test_reading_is_quick_enough_to_train_from(tmp_path: Path) -> None:
    one = corpus(tmp_path / "audio", {"train": 1, "dev": 1})
    soundfile.write(one[0].audio, sound(0, 3.0), 16_000)
    train = prepare(one, tmp_path / "out").splits["train"]
    times = []
    for _ in range(200):
        start = time.perf_counter()
        train[0]
        times.append(time.perf_counter() - start)
    assert np.median(times) < 1e-3  # measured: 0.03 ms


def test_every_bad_utterance_is_refused_by_name_and_the_rest_prepared(tmp_path: Path, three: list[Utterance]) -> None:
    folder = tmp_path / "audio ƙ 'and' \"so\""
    folder.mkdir()
    soundfile.write(folder / "silent.wav", np.zeros(16_000, np.int16), 16_000)
    soundfile.write(folder / "short.wav", sound(1, 0.29), 16_000)
    soundfile.write(folder / "long.wav", sound(1, 31), 16_000)
    soundfile.write(folder / "nan.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    soundfile.write(folder / "none.wav", np.zeros(0), 16_000)
    soundfile.write(folder / "one.wav", sound(1)[:1], 16_000)
    soundfile.write(folder / "good.wav", sound(1, 1.0), 16_000)  # 49 frames
    (folder / "zero.wav").touch()
    (folder / "text.wav").write_text("ina kwana")
    (folder / "folder.wav").mkdir()
    (folder / "dangling.wav").symlink_to(folder / "gone.wav")

    def bad(name: str, text: str = "ina kwana", file: str | None = None, **more: object) -> Utterance:
        return Utterance(name, str(folder / (file or f"{name}.wav")), text, **{"split": "train", **more})  # type: ignore[arg-type]

    expected = {
        "silent": "silent",
        "short": "too short",
        "long": "too long",
        "nan": "nan",
        "none": "empty",
        "one": "one sample",
        "zero": "empty",
        "text": "unreadable",
        "folder": "a folder",
        "dangling": "missing",
        "nul": "unreadable",
        "no audio": "missing",
        "blank": "no transcript",
        "marks": "no transcript",
        "digits": "unknown characters",
        "repeats": "transcript too long for its audio",
        "letters": "transcript too long for its audio",
        "eval": "unknown split",
        "number": "failed",
        "surrogate \udcff": "unknown characters",
    }
    given = [bad(name) for name in list(expected)[:10]] + [
        bad("nul", file="a\0b.wav"),
        Utterance("no audio", "", "ina kwana", "train"),
        bad("blank", "  ", "good.wav"),
        bad("marks", "?!", "good.wav"),
        bad("digits", "ya biya 3.50", "good.wav"),
        bad("repeats", "a" * 26, "good.wav"),  # 25 blanks between them: 51 frames
        bad("letters", "ab" * 25, "good.wav"),
        bad("eval", file="good.wav", split="eval"),
        bad("number", 5, "good.wav"),  # type: ignore[arg-type]
        bad("surrogate \udcff", "ina \udcff", "good.wav"),
    ]
    fits = [bad("fits", "a" * 25, "good.wav"), bad("fits too", "ab" * 24 + "a", "good.wav")]
    named = bad("named \udcff", file="good.wav", speaker="\udcff")
    made = prepare([*given, *three, *fits, named, replace(three[0], text="wani")], tmp_path / "out ƙ '::*'")
    assert refusals(made.path) == {**expected, "train-0": "duplicate id"}
    assert [example.id for example in made.splits["train"]] == [
        *(f"train-{n}" for n in range(4)),
        "fits",
        "fits too",
        "named \\udcff",
    ]
    report = made.report
    assert report["utterances"] == {"in": 32, "kept": 11, "refused": 21}
    assert report["refused"]["transcript too long for its audio"]["utterances"] == 2
    assert "51 frames" in report["refused"]["transcript too long for its audio"]["example"]["detail"]
    assert report["characters_refused"]["."] == {"count": 1, "utterances": 1, "example": "ya biya 3.50"}
    assert any("21 of 32" in warning for warning in report["warnings"])


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, KeyError, RecursionError])
def test_whatever_a_transcript_raises_ends_one_utterance(
    tmp_path: Path, three: list[Utterance], error: type[Exception]
) -> None:
    class Trap(str):
        def isascii(self) -> bool:
            raise error("sprung")

    made = prepare([replace(three[0], id="trap", text=Trap("a")), *three], tmp_path / "out")
    assert refusals(made.path) == {"trap": "failed"} and made.report["utterances"]["kept"] == 8


def test_limits_are_settings(tmp_path: Path, three: list[Utterance]) -> None:
    soundfile.write(three[0].audio, sound(0, 0.5), 16_000)
    soundfile.write(three[1].audio, sound(0, 2.0), 16_000)
    made = prepare(three, tmp_path / "out", PrepareSettings(min_s=1.0, max_s=1.9))
    assert refusals(made.path) == {"train-0": "too short", "train-1": "too long"}


def test_a_split_left_empty_is_an_error_and_leaves_nothing_behind(tmp_path: Path, three: list[Utterance]) -> None:
    for split in ("train", "dev", "test"):
        spoilt = [replace(each, text="") if each.split == split else each for each in three]
        with pytest.raises(UserError, match=f"Nothing is left in {split}.*no transcript"):
            prepare(spoilt, tmp_path / "out")
        silenced = [replace(each, audio="/nowhere.wav") if each.split == split else each for each in three]
        with pytest.raises(UserError, match=f"Nothing is left in {split}.*missing"):
            prepare(silenced, tmp_path / "out")
    with pytest.raises(UserError, match="nothing for train"):
        prepare([each for each in three if each.split != "train"], tmp_path / "out")
    with pytest.raises(UserError, match="no utterances"):
        prepare([], tmp_path / "out")
    with pytest.raises(UserError, match="not a prepared dataset"):
        load_prepared(tmp_path / "out")


def test_what_nothing_could_be_decoded_for_leaves_no_folder(tmp_path: Path, three: list[Utterance]) -> None:
    for spoilt in ({"text": "?"}, {"audio": "/nowhere.wav"}):
        with pytest.raises(UserError, match="Nothing is left"):
            prepare([replace(each, **spoilt) for each in three], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["audio"]


def test_an_interruption_leaves_nothing_or_what_was_there(tmp_path: Path, three: list[Utterance]) -> None:
    def stop(now: PrepareProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(three, tmp_path / "out", progress=stop)
    with pytest.raises(UserError, match="prepared dataset"):
        load_prepared(tmp_path / "out")
    before = prepare(three, tmp_path / "out")
    soundfile.write(three[0].audio, sound(9), 16_000)
    with pytest.raises(KeyboardInterrupt):
        prepare(three, tmp_path / "out", progress=stop)
    assert load_prepared(tmp_path / "out").fingerprint == before.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio", "out"]


def test_nothing_is_redone_unless_something_changed(tmp_path: Path, three: list[Utterance]) -> None:
    first = prepare(three, tmp_path / "out")

    def never(now: PrepareProgress) -> None:
        raise AssertionError("decoded again")

    again = prepare(three, tmp_path / "out", progress=never)
    assert again.reused and again.fingerprint == first.fingerprint and again.report == first.report
    mapped = first.splits["train"]
    for changed, settings in (
        ([replace(three[0], text="wani abu"), *three[1:]], PrepareSettings()),
        (three[1:], PrepareSettings()),
        (three[1:], PrepareSettings(max_s=20)),
    ):
        made = prepare(changed, tmp_path / "out", settings, progress=never)
        assert not made.reused and made.fingerprint != first.fingerprint
    soundfile.write(three[2].audio, sound(99, 1.2), 16_000)
    assert not prepare(three, tmp_path / "out").reused
    np.testing.assert_array_equal(mapped[2].samples * 32_768, sound(2))  # a reader keeps what it had opened


def test_what_is_in_the_way_is_never_replaced(tmp_path: Path, three: list[Utterance]) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    for name in ("file", "folder"):
        with pytest.raises(UserError, match="something else"):
            prepare(three, tmp_path / name)
    with pytest.raises(UserError, match="can't be written"):
        prepare(three, tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "thesis.txt").read_text() == "mine"


def test_a_damaged_dataset_is_refused_and_prepared_again(tmp_path: Path, three: list[Utterance]) -> None:
    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-100])

    for name, damage, message in (
        ("splits/*/train.arrow", cut, "cut short"),
        ("splits/*/dev.arrow", Path.unlink, "missing"),
        ("splits/*/report.json", cut, "cut short"),
        ("audio/*.arrow", cut, "cut short"),
        ("audio/*.arrow", Path.unlink, "missing"),
        ("prepared.json", Path.unlink, "not a prepared dataset"),
    ):
        out = tmp_path / f"out-{name.count('/')}-{message}-{name.split('.')[0][-5:].replace('*/', '')}"
        prepare(three, out)
        damage(next(out.glob(name)))
        with pytest.raises(UserError, match=message):
            load_prepared(out)
        if name != "prepared.json":
            assert len(prepare(three, out).splits["train"]) == 4
    for nothing in (tmp_path / "nowhere", tmp_path / "audio"):
        with pytest.raises(UserError):
            load_prepared(nothing)


def test_the_report_warns_of_what_a_listener_would_notice(tmp_path: Path) -> None:
    made = corpus(tmp_path / "audio", {"train": 40, "dev": 2, "test": 2})
    made = [replace(each, text=each.text.translate(str.maketrans("ƙɗɓ", "kdb")) * 3) for each in made]
    soundfile.write(made[0].audio, sound(0, rate=8_000), 8_000)
    made[1] = replace(made[1], duration_s=9.0)
    made[-1] = replace(made[-1], text=made[0].text, speaker="Audu")
    made[2] = replace(made[2], speaker="Audu")
    made[3] = replace(made[3], duration_s=0.5)
    report = prepare(made, tmp_path / "out", PrepareSettings(allow_overlap=("sentence",))).report
    warnings = "\n".join(report["warnings"])
    for expected in (
        "1 clips were resampled from 8 kHz",
        "1 clips are longer than the corpus states",
        "1 clips: no sound above 4 kHz",
        "1 utterances of test share sentences with 1 of train",
        "1 utterances of test share speakers with 1 of train",
        "no transcript has a hooked letter",
    ):
        assert expected in warnings
    assert refusals(tmp_path / "out") == {"train-1": "shorter than stated"}
    assert report["source_rates_hz"] == {"8000": 1, "16000": 42}
    assert report["speakers"] == 1 and report["splits"]["train"]["speakers"] == 1


def test_utterances_may_come_from_a_generator(tmp_path: Path, three: list[Utterance]) -> None:
    def each() -> Iterator[Utterance]:
        yield from three

    assert isinstance(prepare(each(), str(tmp_path / "out")).splits["dev"], PreparedSplit)


def test_a_folder_that_is_deleted_meanwhile_is_no_fault_of_the_lock(tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    out.mkdir()
    with pytest.raises(FileNotFoundError, match="clips"), _locked(out):
        shutil.rmtree(out)
        (out / "clips").stat()

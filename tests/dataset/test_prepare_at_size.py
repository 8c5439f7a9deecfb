"""Preparation at size: killed, it goes on; changed, it redoes what changed; twice at once, it happens once."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from hausa_asr.dataset import clip_store, decode_pool
from hausa_asr.dataset.decode_progress import ProgressMeter
from hausa_asr.dataset.decoder import ClipResult, Task
from hausa_asr.dataset.prepare import PrepareProgress, PrepareSettings, load_prepared, prepare
from hausa_asr.errors import UserError
from hausa_asr.utterance import Utterance

ROOT = Path(__file__).parents[2]
_CODE = """
import json, os, sys, time
from pathlib import Path
from hausa_asr.utterance import Utterance
from hausa_asr.dataset.prepare import PrepareSettings, prepare
folder, out = Path(sys.argv[1]), sys.argv[2]
listed = [Utterance(**json.loads(line)) for line in (folder / "list.jsonl").read_text().splitlines()]
made = prepare(listed, out, progress=lambda now: print(now.done, flush=True))
print("finished", made.fingerprint, made.reused, flush=True)
"""


def corpus(folder: Path, count: int, duration_s: float = 3.0) -> list[Utterance]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    made = []
    for n in range(count):
        soundfile.write(folder / f"{n}.wav", rng.integers(-9_000, 9_000, round(duration_s * 48_000), np.int16), 48_000)
        split = ("train", "train", "train", "train", "dev", "test")[n % 6]
        word = "".join("abcdefghij"[int(digit)] for digit in str(n))
        made.append(Utterance(f"u{n}", str(folder / f"{n}.wav"), f"magana {word}", split, "", None, "c"))
    (folder / "list.jsonl").write_text("".join(json.dumps(each.__dict__) + "\n" for each in made))
    return made


def rows(out: Path) -> list[bytes]:
    """The keys of all the clips that are on disk, with their repetitions: what has ever been decoded and kept."""
    return [
        key for file in (out / "audio").glob("*.arrow") for key in clip_store.mapped(file).column("key").to_pylist()
    ]


def start(folder: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _CODE, str(folder), str(out)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


@pytest.mark.slow
def test_killed_again_and_again_it_goes_on_and_decodes_nothing_twice(tmp_path: Path) -> None:
    made = corpus(tmp_path / "audio", 600, 2.0)
    out = tmp_path / "out"
    kept = [0]
    for _ in range(3):
        process = start(tmp_path / "audio", out)
        assert process.stdout
        for line in process.stdout:
            if not line.startswith("finished") and int(line) >= kept[-1] + 60:
                break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        deadline = time.monotonic() + 10
        while len(rows(out)) < kept[-1] + 50 and time.monotonic() < deadline:
            time.sleep(0.05)  # the decoders write what they have when they see that their reports are not read
        time.sleep(0.3)
        with pytest.raises(UserError):
            load_prepared(out)
        kept.append(len(rows(out)))
        assert kept[-1] >= kept[-2] + 50, kept
    before = {file: file.stat().st_mtime_ns for file in (out / "audio").glob("*.arrow")}
    reports: list[PrepareProgress] = []
    prepared = prepare(made, out, progress=reports.append)
    assert reports[0].done >= kept[-1]
    assert sorted(rows(out)) == sorted({clip_store.key(each.audio, _stamp(each)) for each in made})  # each of them once
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in before.items())
    assert {name: len(split) for name, split in prepared.splits.items()} == {"train": 400, "dev": 100, "test": 100}
    fresh = prepare(made, tmp_path / "fresh")
    for name, split in prepared.splits.items():
        for mine, other in zip(split, fresh.splits[name], strict=True):
            assert mine.id == other.id and mine.text == other.text
            np.testing.assert_array_equal(mine.samples, other.samples)
    assert not list(out.rglob("*.tmp-*")) and not list(out.rglob("*.partial"))


def _stamp(utterance: Utterance) -> tuple[int, int]:
    status = os.stat(utterance.audio)
    return status.st_size, status.st_mtime_ns


def test_only_what_changed_is_decoded_again(tmp_path: Path) -> None:
    made = corpus(tmp_path / "audio", 60, 1.0)
    out = tmp_path / "out"
    reports: list[PrepareProgress] = []

    def decoded(listed: list[Utterance], settings: PrepareSettings | None = None) -> int:
        reports.clear()
        prepare(listed, out, settings or PrepareSettings(), progress=reports.append)
        return len(reports)

    prepare(made, out)
    before = set(rows(out))
    for settings in (PrepareSettings(min_s=0.9), PrepareSettings(max_s=45), PrepareSettings(seed=3),
                     PrepareSettings(overlap="drop")):  # fmt: skip
        assert decoded(made, settings) == 0 and set(rows(out)) == before
    assert decoded([replace(made[0], text="wata magana", split="dev", speaker="Audu"), *made[1:]]) == 0
    soundfile.write(made[7].audio, np.random.default_rng(9).normal(0, 0.1, 48_000), 48_000)
    soundfile.write(tmp_path / "audio" / "new.wav", np.random.default_rng(8).normal(0, 0.1, 48_000), 48_000)
    added = Utterance("new", str(tmp_path / "audio" / "new.wav"), "sabuwar magana", "train")
    prepare([*made, added], out)
    assert len(set(rows(out)) - before) == 2 and len(rows(out)) == 62
    # Files that hold nothing of the corpus any more go with the next change.
    prepare([added, *made[4:6]], out)
    assert len(list((out / "audio").glob("*.arrow"))) <= 3
    assert len(list((out / "splits").iterdir())) == 1


def test_a_longer_limit_decodes_only_what_had_been_cut_off(tmp_path: Path) -> None:
    made = corpus(tmp_path / "audio", 6, 1.0)
    soundfile.write(made[0].audio, np.random.default_rng(9).normal(0, 0.1, 62 * 8_000), 8_000)
    first = prepare(made, tmp_path / "out")
    assert first.report["refused"]["too long"]["utterances"] == 1
    before = len(rows(tmp_path / "out"))
    second = prepare(made, tmp_path / "out", PrepareSettings(max_s=70.0))
    assert "too long" not in second.report["refused"] and len(second.splits["train"]) == 4
    assert len(rows(tmp_path / "out")) <= before + 1


def test_two_preparations_of_one_folder_share_the_work(tmp_path: Path) -> None:
    corpus(tmp_path / "audio", 120)
    both = [start(tmp_path / "audio", tmp_path / "out") for _ in range(2)]
    ends = [process.communicate(timeout=60)[0].splitlines()[-1].split() for process in both]
    assert ends[0][:2] == ends[1][:2] and ends[0][0] == "finished"
    assert sorted(end[2] for end in ends) == ["False", "True"]
    assert len(rows(tmp_path / "out")) == 120


def test_a_reader_keeps_its_dataset_while_it_is_replaced(tmp_path: Path) -> None:
    made = corpus(tmp_path / "audio", 30, 1.0)
    split = prepare(made, tmp_path / "out").splits["train"]
    expected = [example.samples.sum() for example in prepare(made, tmp_path / "out").splits["train"]]
    open_before = len(os.listdir("/proc/self/fd"))
    for each in made:
        soundfile.write(each.audio, np.random.default_rng(7).normal(0, 0.1, 40_000), 48_000)
    prepare([replace(each, text=f"{each.text} kuma") for each in made], tmp_path / "out",
            PrepareSettings(allow_overlap=("clip",)))  # fmt: skip
    assert not split.path.exists()
    assert [example.samples.sum() for example in split] == expected
    assert len(os.listdir("/proc/self/fd")) <= open_before  # maps, and no open files


def test_an_older_format_is_refused_and_replaced(tmp_path: Path) -> None:
    made = corpus(tmp_path / "audio", 12, 1.0)
    out = tmp_path / "out"
    out.mkdir()
    (out / "prepared.json").write_text('{"format": 1, "fingerprint": "x", "splits": {"train": {}}}')
    (out / "train.arrow").write_bytes(b"old")
    with pytest.raises(UserError, match="format 1, older than 2"):
        load_prepared(out)
    assert len(prepare(made, out).splits["train"]) == 8
    assert not (out / "train.arrow").exists()


def test_a_damaged_file_of_clips_is_decoded_again(tmp_path: Path) -> None:
    made = corpus(tmp_path / "audio", 12, 1.0)
    first = prepare(made, tmp_path / "out")
    expected = [example.samples for example in first.splits["dev"]]
    for file in (tmp_path / "out" / "audio").iterdir():
        file.write_bytes(b"ARROW1" + bytes(100))
    again = prepare(made, tmp_path / "out")
    for mine, other in zip(again.splits["dev"], expected, strict=True):
        np.testing.assert_array_equal(mine.samples, other)


def test_a_clip_that_ends_the_decoder_costs_itself_alone(tmp_path: Path) -> None:
    """A real process, ended from outside in the middle of its work, as a fault in a decoder's C code would end it."""
    made = corpus(tmp_path / "audio", 200)
    tasks = [Task(n, clip_store.key(each.audio, ()), each.audio) for n, each in enumerate(made)]
    (tmp_path / "out" / "audio").mkdir(parents=True)
    decoded: list[ClipResult] = []
    killed = False
    for each in decode_pool.decode_all(tasks, tmp_path / "out" / "audio", 60.0):
        decoded.append(each)
        if len(decoded) == 40 and not killed:
            killed = True
            for child in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
                for pid in child.read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
    refused = [each for each in decoded if each.refused]
    assert killed and 1 <= len(refused) <= len(os.sched_getaffinity(0))
    assert {each.refused[0] for each in refused if each.refused} == {"crashes the decoder"}
    assert sorted(each.number for each in decoded) == list(range(200))
    assert len(set(rows(tmp_path / "out"))) == len(rows(tmp_path / "out")) == 200 - len(refused)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """The largest memory of the whole tree of processes (PSS), for a corpus and for one three times as large."""
    peaks = []
    for count in (150, 450):
        corpus(tmp_path / str(count), count)
        process = start(tmp_path / str(count), tmp_path / f"out{count}")
        assert process.stdout
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(pss(pid) for pid in tree(process.pid)))
            time.sleep(0.03)
        assert process.stdout.read().splitlines()[-1].startswith("finished")
        peaks.append(peak / 2**20)
    assert peaks[1] < 1.25 * peaks[0] + 30 and peaks[1] < 600, peaks  # MiB; samples of the larger: 41 MiB


def tree(pid: int) -> list[int]:
    pids = [pid]
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids += [one for child in file.read_text().split() for one in tree(int(child))]
        except OSError:
            continue
    return pids


def pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def test_hours_left_are_the_stated_ones_or_those_of_the_mean(tmp_path: Path) -> None:
    made = corpus(tmp_path / "audio", 24, 1.0)
    for stated, left_s in ((None, 1.0), (1.0, 1.0)):
        listed = [replace(each, duration_s=stated) for each in made]
        reports: list[PrepareProgress] = []
        nothing = clip_store.Clips(tmp_path / "nowhere", [bytes(16)] * 24, 30.0)
        tasks = [Task(n, bytes(16), "") for n in range(24)]
        meter = ProgressMeter(listed, dict.fromkeys(range(24), ""), nothing, tasks, reports.append)
        for _ in range(6):
            meter.add(1.0)
        meter.report_now()
        last = reports[-1]
        assert (last.done, last.total, last.share) == (6, 24, 0.25)
        assert last.done_h * 3600 == pytest.approx(6) and last.left_h * 3600 == pytest.approx(18 * left_s)
        assert last.eta_s is not None and last.eta_s > 0


def test_the_picture_is_drawn_and_the_report_has_what_it_shows(tmp_path: Path) -> None:
    made = corpus(tmp_path / "audio", 24, 1.0)
    made = [replace(each, speaker=f"s{n % 4}-{each.split}", text=f"{each.text} ƙasa") for n, each in enumerate(made)]
    made[5] = replace(made[5], corpus="other")
    prepared = prepare([*made, Utterance("bad", "", "ya biya ₦500", "train")], tmp_path / "out")
    picture = (prepared.path / "report.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n" and len(picture) > 20_000
    train = prepared.report["splits"]["train"]
    assert sum(train["durations_s"]["histogram"]) == train["utterances"] == 16
    assert train["durations_s"]["percentiles"]["50"] == pytest.approx(1.0, abs=0.1)
    assert train["speakers"] == len(train["speaker_hours"]["by_speaker"]) == 4
    assert sum(train["speaker_hours"]["histogram"].values()) == 4
    assert sum(train["speaker_hours"]["by_speaker"].values()) == pytest.approx(train["hours"], abs=1e-5)
    assert prepared.report["corpora"]["other"]["utterances"] == 1
    assert sum(each["share"] for each in prepared.report["corpora"].values()) == pytest.approx(1, abs=1e-3)
    assert prepared.report["characters_refused"]["₦"]["example"] == "ya biya ₦500"
    refused = json.loads((prepared.path / "refused.jsonl").read_text())
    assert set(refused) == {"id", "audio", "reason", "detail", "text"}
    assert pa.ipc.open_file(str(prepared.splits["dev"].path)).read_all()["corpus"].to_pylist() == ["c"] * 4

"""How fast a corpus is prepared, and in how much memory, beside `datasets.map` doing the same work.

    python benchmarks/prepare.py [--clips 1500] [--rounds 3] [--json FILE]
    python benchmarks/prepare.py --flat          5,000 and then 20,000 clips: memory must not grow with the corpus

Method. The clips are made up and like those of Common Voice: mono mp3 at 48 kHz and about 64 kbit/s, lengths drawn
from a gamma distribution with a mean of 4.35 s. They are runs of frames, each from another place of half an hour of
noise with the rhythm of speech, so that every file has sounds and bytes of its own and none can be skipped. Both sides
decode every clip to 16 kHz mono, normalise its transcript with `hausa_asr.text.normalise`, check it (numbers that are
none, silence, length, frames against letters) and write Arrow with 16-bit samples:

    ours      dataset/prepare.py, which also fingerprints the clips, compares the splits and draws its report
    theirs    datasets.Dataset.map(num_proc=2): soundfile, and torchaudio's Resample with its filters kept

Each run is a process of its own with an empty folder, the two sides take turns, and the clips are read once before, so
that all come from the page cache. Time is that of the call, without imports; ours starts its processes within it.
Memory is the largest sum over the tree of processes of the proportional set size (PSS: pages that are shared count
once), seen every 50 ms. Figures are medians over the rounds; `speed_ratio` is the median of ours over theirs, round by
round.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

RATE = 48_000
FRAME = 1_152
"""Samples of an mp3 frame."""
WORDS = "ina kwana lafiya gida ruwa ƙasa ɗaki ɓera yara hanya kasuwa abinci aiki gari mota ‘yan mata Kano".split()  # noqa: SIM905


# -- clips ------------------------------------------------------------------------------------------------------------


def speech_like(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """(S,) float32 at 48 kHz: coloured noise that comes and goes four times a second."""
    count = round(seconds * RATE)
    noise = rng.standard_normal(count).astype(np.float32)
    coloured = np.convolve(noise, np.hanning(24).astype(np.float32) / 6, "same") + 0.05 * noise
    knots = np.arange(0, seconds + 0.25, 0.125)
    return 0.1 * coloured * np.interp(np.arange(count) / RATE, knots, rng.uniform(0, 1, len(knots))).astype(np.float32)


def frames_of(path: Path) -> list[bytes]:
    """The frames of an mp3 file of constant bit rate, without its tags."""
    from hausa_asr.audio.container_faults import _FRAMES

    data, at, found = path.read_bytes(), 0, []
    while at + 4 <= len(data):
        frame = _FRAMES.get((data[at + 1] & 0xFE, data[at + 2] & 0xFC)) if data[at] == 0xFF else None
        if frame is None:
            at += 1
            continue
        length = frame[1] + (data[at + 2] >> 1 & 1)
        found.append(data[at : at + length])
        at += length
    return found[2:-2]  # not the one that tells of the encoder


def make_clips(folder: Path, count: int, minutes: float = 30.0) -> float:
    """Write the clips and `list.jsonl`; the hours of audio."""
    import soundfile

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    pool: list[bytes] = []
    for _ in range(max(1, round(minutes))):
        soundfile.write(folder / "pool.mp3", speech_like(rng, 60), RATE, bitrate_mode="CONSTANT", compression_level=0.8)
        pool += frames_of(folder / "pool.mp3")
    (folder / "pool.mp3").unlink()
    lengths = np.clip(rng.gamma(9.0, 4.35 / 9.0, count), 1.5, 12.0)
    starts = rng.permutation(np.linspace(0, len(pool) - 12.0 * RATE / FRAME - 2, count).astype(int))
    seconds = 0.0
    with (folder / "list.jsonl").open("w") as listed:
        for number, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            many = round(length * RATE / FRAME)
            seconds += many * FRAME / RATE
            path = folder / f"common_voice_ha_{number}.mp3"
            path.write_bytes(b"".join(pool[start : start + many]))
            text = " ".join(rng.choice(WORDS, max(2, round(length)))) + f" {number}."
            split = "train" if number % 20 else ("dev", "test")[number // 20 % 2]
            listed.write(json.dumps([str(path), text, split], ensure_ascii=False) + "\n")
    return seconds / 3600


# -- the two sides, each in a process of its own ----------------------------------------------------------------------


def ours(folder: Path, out: Path) -> float:
    from hausa_asr.dataset.prepare import PrepareSettings, prepare
    from hausa_asr.utterance import Utterance

    rows = map(json.loads, (folder / "list.jsonl").read_text(encoding="utf-8").splitlines())
    listed = [Utterance(Path(path).stem, path, text, split, "", None, "cv") for path, text, split in rows]
    # The clips overlap in the half hour that they are cut from.
    settings = PrepareSettings(allow_overlap=("clip", "sentence", "speaker", "audio"))
    start = time.perf_counter()
    made = prepare(listed, out, settings)
    seconds = time.perf_counter() - start
    assert made.report["utterances"]["kept"] == len(listed), made.report["refused"]
    return seconds


def theirs(folder: Path, out: Path) -> float:
    import soundfile
    import torch
    from datasets import Dataset, Features, List, Value, disable_progress_bars
    from torchaudio.transforms import Resample

    from hausa_asr.text import encode, normalise

    torch.set_num_threads(1)
    disable_progress_bars()
    resamplers = {}

    def work(row: dict) -> dict:
        samples, rate = soundfile.read(row["path"], dtype="float32", always_2d=True)
        samples = samples.mean(axis=1)
        if not np.isfinite(samples).all():
            return {"ok": False, "text": "", "samples": np.zeros(0, np.int16), "n_samples": 0}
        if rate not in resamplers:
            resamplers[rate] = Resample(rate, 16_000)
        samples = resamplers[rate](torch.from_numpy(samples)).numpy()
        text = normalise(row["raw"])
        labels = encode(text)
        needed = len(labels) + sum(a == b for a, b in pairwise(labels))
        ok = 0.3 <= len(samples) / 16_000 <= 30 and np.ptp(samples) > 2e-4 and (len(samples) - 400) // 320 + 1 >= needed
        integers = np.rint(samples * 32_768).clip(-32_768, 32_767).astype(np.int16)
        return {"ok": bool(ok), "text": text, "samples": integers, "n_samples": len(integers)}

    rows = [json.loads(line) for line in (folder / "list.jsonl").read_text(encoding="utf-8").splitlines()]
    out.mkdir(parents=True)
    columns = dict(zip(("path", "raw", "split"), map(list, zip(*rows, strict=True)), strict=True))
    features = Features(
        {
            "path": Value("string"), "raw": Value("string"), "split": Value("string"), "ok": Value("bool"),
            "text": Value("string"), "samples": List(Value("int16")), "n_samples": Value("int64"),
        }
    )  # fmt: skip
    start = time.perf_counter()
    made = Dataset.from_dict(columns).map(work, num_proc=2, features=features, cache_file_name=str(out / "made.arrow"))
    seconds = time.perf_counter() - start
    assert all(made["ok"])
    return seconds


def measured(side: str, folder: Path, out: Path) -> tuple[float, float]:
    """Seconds and the largest memory in GiB of one side, in a process of its own."""
    shutil.rmtree(out, ignore_errors=True)
    process = subprocess.Popen(
        [sys.executable, __file__, "--side", side, str(folder), str(out)], stdout=subprocess.PIPE, text=True
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(pss, tree(process.pid))))
        time.sleep(0.05)
    output = process.communicate()[0]
    shutil.rmtree(out, ignore_errors=True)
    if process.returncode:
        raise SystemExit(f"{side} failed")
    return float(output.splitlines()[-1]), peak / 2**30


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [one for child in file.read_text().split() for one in tree(int(child))]
        except OSError:
            continue
    return found


def pss(pid: int) -> int:
    """Bytes of proportional set size."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


# -- the tables -------------------------------------------------------------------------------------------------------


def compare(work: Path, clips: int, rounds: int) -> dict[str, float]:
    """Both sides on the same clips, in turns."""
    hours = make_clips(work / "clips", clips)
    for file in (work / "clips").iterdir():
        file.read_bytes()
    runs: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    for number in range(rounds):
        for side in sorted(runs, reverse=number % 2 == 1):
            runs[side].append(measured(side, work / "clips", work / side))
    speed = {side: [60 * hours / seconds for seconds, _ in runs[side]] for side in runs}
    memory = {side: statistics.median(peak for _, peak in runs[side]) for side in runs}
    print(f"{clips} clips, {hours:.2f} h of audio, {rounds} rounds")
    print(f"{'':26}{'ours':>10}{'datasets.map':>14}")
    medians = {side: statistics.median(each) for side, each in speed.items()}
    print(f"{'audio-hours per minute':26}{medians['ours']:10.1f}{medians['theirs']:14.1f}")
    print(f"{'peak memory, GiB':26}{memory['ours']:10.2f}{memory['theirs']:14.2f}")
    ratios = [one / other for one, other in zip(speed["ours"], speed["theirs"], strict=True)]
    print(f"speed ratio {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")
    return {
        "clips": clips,
        "audio_hours": hours,
        "rounds": rounds,
        "speed_ratio": statistics.median(ratios),
        "speed_ratio_least": min(ratios),
        "speed_ratio_most": max(ratios),
        "hours_per_minute": medians["ours"],
        "their_hours_per_minute": medians["theirs"],
        "peak_gib": memory["ours"],
        "their_peak_gib": memory["theirs"],
    }


def flat(work: Path, counts: tuple[int, ...]) -> dict[str, float]:
    """Ours alone, on ever more clips."""
    found: dict[str, float] = {}
    print(f"{'clips':>8}{'hours':>8}{'minutes':>9}{'peak GiB':>10}")
    for count in counts:
        hours = make_clips(work / str(count), count)
        seconds, peak = measured("ours", work / str(count), work / "out")
        shutil.rmtree(work / str(count))
        print(f"{count:8,}{hours:8.2f}{seconds / 60:9.2f}{peak:10.2f}", flush=True)
        found |= {f"peak_gib_{count}": peak, f"hours_per_minute_{count}": 60 * hours / seconds}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flat", action="store_true", help="memory at 5,000 and 20,000 clips instead")
    parser.add_argument("--counts", type=int, nargs="+", default=[5_000, 20_000], help="for --flat")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, folder, out = arguments.side
        print({"ours": ours, "theirs": theirs}[side](Path(folder), Path(out)))
        return
    with tempfile.TemporaryDirectory() as work:
        if arguments.flat:
            found = flat(Path(work), tuple(arguments.counts))
        else:
            found = compare(Path(work), arguments.clips, arguments.rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

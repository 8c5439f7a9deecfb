"""Transcribing one long recording: ours in windows, beside transformers' pipeline in chunks.

    python benchmarks/long_recording.py --model DIR --prepared DIR [--minutes 60] [--pause 0.5] [--json FILE]

Method. The clips of a prepared dataset's train, dev and test, in random order with half a second between, make one
recording, with noise of a room under all of it (40 dB below the speech), so that no pause is silent; their transcripts
in that order are what is said. `--pause 0` leaves hardly a pause to cut in. Each contestant transcribes the file in a
process of its own, on all threads, with greedy decoding: `hausa_asr.transcribe`; and `transformers.pipeline` with
`chunk_length_s=30`, its default stride and batches of 8. Figures: seconds of audio per second, the model's loading
included; the most memory of the process; WER over the whole recording; and the same for a tenth of it, to see whether
memory grows with its length.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench
import numpy as np
import soundfile

from hausa_asr.dataset.prepared import load_prepared
from hausa_asr.metrics import wer
from hausa_asr.utterance import SAMPLE_RATE

OURS = """
import sys
from hausa_asr import transcribe
print(transcribe(sys.argv[1], sys.argv[2], lm=False))
"""
PEER = """
import sys
from transformers import pipeline
import soundfile
samples, _ = soundfile.read(sys.argv[1], dtype="float32")
hear = pipeline("automatic-speech-recognition", model=sys.argv[2], chunk_length_s=30, batch_size=8)
print(hear(samples)["text"])
"""
_ROOM_DB = -40.0
WATCHED = "import resource\n{}\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"


def recording(prepared: Path, minutes: float, pause_s: float, file: Path) -> str:
    """Write the recording; what is said in it. Clip by clip: this process's memory counts for those that it starts."""
    splits = load_prepared(prepared).splits.values()
    order = [(split, index) for split in splits for index in range(len(split))]
    random.Random(0).shuffle(order)
    draw = np.random.default_rng(0)
    loud = np.mean([split[index].samples.std() for split, index in order[:100]]) * 10 ** (_ROOM_DB / 20)
    pause = np.zeros(round(SAMPLE_RATE * pause_s), dtype=np.float32)
    texts: list[str] = []
    with soundfile.SoundFile(file, "w", SAMPLE_RATE, 1) as opened:
        while opened.tell() < minutes * 60 * SAMPLE_RATE:
            split, index = order[len(texts) % len(order)]
            example = split[index]
            part = np.concatenate([example.samples, pause])
            opened.write(part + draw.normal(0, loud, len(part)).astype(np.float32))
            texts.append(example.text)
    return " ".join(texts)


def hear(code: str, file: Path, model: Path) -> tuple[str, float, float]:
    """Transcribe in a process of its own: the text, seconds, and GiB of memory at most."""
    began = time.monotonic()
    command = [sys.executable, "-c", WATCHED.format(code), str(file), str(model)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=bench.ROOT)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    took_s = time.monotonic() - began
    return " ".join(done.stdout.split()), took_s, int(done.stderr.split()[-1]) / 1024**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="an exported model")
    parser.add_argument("--prepared", type=Path, required=True, help="a prepared dataset")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the recording (60)")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two clips (0.5)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    figures: dict[str, float] = {}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for minutes in (given.minutes / 10, given.minutes):
            file = Path(name) / f"{minutes:g}.wav"
            said = recording(given.prepared, minutes, given.pause, file)
            seconds = soundfile.info(file).duration
            for who, code in (("ours", OURS), ("pipeline", PEER)):
                text, took_s, memory = hear(code, file, given.model)
                rate, errors = seconds / took_s, wer([said], [text])
                rows.append([f"{who}, {minutes:g} min", f"{rate:.1f}", f"{memory:.2f}", f"{errors:.4f}"])
                figures |= {f"{who}_{minutes:g}_{key}": value for key, value in
                            (("audio_s_per_s", rate), ("gib", memory), ("wer", errors))}  # fmt: skip
    print(bench.table(["", "audio-s/s", "GiB", "WER"], rows))
    whole = f"{given.minutes:g}"
    figures["speed_vs_pipeline"] = figures[f"ours_{whole}_audio_s_per_s"] / figures[f"pipeline_{whole}_audio_s_per_s"]
    print(f"\nours is {figures['speed_vs_pipeline']:.2f} times as fast on {whole} minutes")
    bench.write(given.json, figures)


if __name__ == "__main__":
    main()

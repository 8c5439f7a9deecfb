"""What only a GPU can show, in one command of under five minutes: speed, memory, resume, torch.compile, precision.

    python benchmarks/gpu_check.py --json FILE [--small] [--without compile]

Needs torch, torchaudio, transformers and jiwer; with accelerate the peer is the real Trainer. `--small` runs every part
on a CPU with tiny models, to show that it runs.

Method. Each check has a process of its own, and a time limit of its own, so one that fails or hangs costs the others
nothing. The process of a row of 1 is started while the row before it measures, imports its packages and waits for its
turn. A part of the time is kept for each of 1, 2 and the rest, so that none of them uses up another's. Findings go to
the file as they come. All models have random weights, all speech is noise with the lengths of Common Voice Hausa.

1. The step of XLS-R 300M: the Trainer and ours, as in `step.py`, with and without torch.compile and the feature cache.
2. Many demo models at once on the GPU, and on the machine's CPUs.
3. `finetune()` on XLS-R 300M: evaluations, checkpoints, a pause, and a resume that sends the same report again.
4. torch.compile over trials of different dropouts in one process: graphs, seconds, memory left behind.
5. Training losses of the demo model in bfloat16 against float32.

1 and 2 are timed alone; 3, 4 and 5 run side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

ROWS: dict[str, dict[str, Any]] = {
    "Trainer": {"row": "trainer"},
    "ours": {"row": "ours"},
    "ours, without the feature cache": {"row": "ours", "cache": False},
    "ours, with torch.compile": {"row": "ours", "compile": "on"},
}
PROCESSES = (1, 4, 12)
SHARES = {"step": 0.43, "small": 0.76}
"""Shares of the time by which these are over, also where something hung; the rest of it belongs to 3, 4 and 5."""
PARTS = ("step", "small", "resume", "compile", "precision")


class Figures:
    """The findings so far, on disk at all times."""

    def __init__(self, path: Path | None) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self._path, self._lock, self._started = path, threading.Lock(), time.monotonic()

    def add(self, check: str, finding: dict[str, Any]) -> None:
        """Add to the findings of a check, and write all of them."""
        with self._lock:
            self.found.setdefault(check, {}).update(finding)
            print(f"{time.monotonic() - self._started:6.1f} s  {check}: {str(finding)[:300]}", flush=True)
            if self._path is not None:
                partial = self._path.with_suffix(".partial")
                partial.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
                os.replace(partial, self._path)


class Check:
    """One check in a process of its own, which imports its packages at once and begins when it is asked to."""

    def __init__(self, figures: Figures, name: str, part: str, task: dict[str, Any]) -> None:
        self.name, self.lines, self._figures = name, 0, figures
        self._last: dict[str, Any] = {}
        self._faults = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in `end`)
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--part", part, "--task", json.dumps(task)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._faults, text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(task["threads"]), "TORCHINDUCTOR_CACHE_DIR": task["inductor"]},
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def send(self, line: str = "go") -> Check:
        """Write a line to the process."""
        with suppress(OSError):  # where it has failed, `end` says why
            print(line, file=self._process.stdin, flush=True)
        return self

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if line.startswith('{"'):
                self._last = json.loads(line)
                self.lines += 1
                if self.name:
                    self._figures.add(self.name, self._last)

    def wait_for(self, lines: int, until: float) -> dict[str, Any] | None:
        """Wait for this many findings and return the newest; None if time runs out or the process ends first."""
        while self.lines < lines and time.monotonic() < until and self._process.poll() is None:
            time.sleep(0.02)
        return self._last if self.lines >= lines else None

    def end(self, until: float) -> str | None:
        """Wait for the process, end it at its limit, and return why it failed, if it did."""
        fault = None
        try:
            if self._process.stdin:
                self._process.stdin.close()
            if self._process.wait(max(0.1, until - time.monotonic())) != 0:
                self._faults.seek(0)
                fault = self._faults.read()[-3000:]
        except (subprocess.TimeoutExpired, BrokenPipeError):
            fault = "stopped at its time limit"
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._faults.close()
        if fault and self.name:
            self._figures.add(self.name, {"fault": fault})
        return fault


def main() -> None:
    """Run all checks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the findings here as they come")
    parser.add_argument("--small", action="store_true", help="tiny models on a CPU")
    parser.add_argument("--seconds", type=float, default=290.0, help="begin nothing after this, and end what runs")
    parser.add_argument("--without", action="append", default=[], choices=PARTS, help="leave this out; may be repeated")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        run_part(given.part, json.loads(given.task))
        return
    figures = Figures(given.json)
    work = Path(tempfile.mkdtemp(prefix="gpu-check-"))
    try:
        run_all(figures, [part for part in PARTS if part not in given.without], given.small, work, given.seconds)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(report(figures.found), flush=True)


def run_part(name: str, task: dict[str, Any]) -> None:
    """One check, in its own process."""
    import torch
    from gpu_check_parts import CHECKS

    device = torch.device(task["device"])
    torch.set_num_threads(task["threads"])
    if not sys.stdin.readline():  # its turn; nothing comes where the parent has ended
        return
    with tempfile.TemporaryDirectory(dir=task["work"]) as folder:
        for finding in CHECKS[name](task, device, Path(folder)):
            print(json.dumps(finding), flush=True)


def tasks(small: bool, work: Path) -> dict[str, dict[str, Any]]:
    """The work of each check, at full size or small."""

    def sized(full: int, tiny: int) -> int:
        return tiny if small else full

    clips = sized(32, 2)
    common = {
        "device": "cpu" if small else "cuda",
        "model": "demo" if small else "xlsr-300m",
        "work": str(work),
        "bases": str(work / "bases"),
        "inductor": str(work / "inductor"),
        "threads": sized(8, 1),
        "clips": clips,
        "batch_s": clips * 4.35,
        "micro_batch_s": clips * 4.35 * 1.2,
        "utterances": sized(400, 12),
    }
    demo, layers = {"model": "demo"}, {"model": "tiny" if small else "xlsr-6-layers"}
    worker = {"threads": 1, "batch_s": 4.0 if small else 16.0, "utterances": sized(200, 12)}
    return {
        "bases": {**common, "kinds": ["tiny"] if small else ["xlsr-300m", "xlsr-6-layers"]},
        "rate": common,
        "step": {**common, "updates": sized(25, 2), "warm_up": sized(20, 1), "utterances": sized(800, 12)},
        "resume": {**common, "updates": sized(12, 4), "dev": sized(830, 6)},
        "compile": {**common, **layers, "trials": sized(4, 2), "updates": sized(5, 1), "compile": "on"},
        "precision": {**common, **demo, "updates": sized(60, 2)},
        "worker": {**common, **demo, **worker},
    }


def run_all(figures: Figures, parts: list[str], small: bool, work: Path, seconds: float) -> None:
    """The wanted checks in their order."""
    work_of, began = tasks(small, work), time.monotonic()
    over = {part: began + share * seconds for part, share in SHARES.items()}
    rate = Check(figures, "rate", "rate", work_of["rate"]).send()
    bases = Check(figures, "bases", "bases", work_of["bases"]).send()
    if "step" in parts:
        rows = {**ROWS, "Trainer": {"row": _peer()}}
        ready = [(f"step: {name}", what) for name, what in rows.items() if "compile" in parts or "compile" not in what]
        coming = [Check(figures, ready[0][0], "step", {**work_of["step"], **ready[0][1]})]
    for check in (rate, bases):
        check.end(over["step"])
    if "step" in parts:
        for name, what in [*ready[1:], ("", {})]:
            running = coming.pop().send()
            if name:
                coming.append(Check(figures, name, "step", {**work_of["step"], **what}))
            running.end(min(over["step"], time.monotonic() + 60 * seconds / 290))
    if "small" in parts:
        workers = [
            Check(figures, "", "worker", work_of["worker"]).send() for _ in range(2 if small else max(PROCESSES))
        ]
        small_models(figures, workers, work_of["worker"]["device"], small, over["small"])
    last = [Check(figures, part, part, work_of[part]).send() for part in PARTS[2:] if part in parts]
    for check in last:
        check.end(began + seconds)


def _peer() -> str:
    from importlib.util import find_spec

    return "trainer" if find_spec("accelerate") else "loop"


def small_models(figures: Figures, workers: list[Check], device: str, small: bool, until: float) -> None:
    """Updates a second of 1, 4 and 12 demo models at once; of those that are ready after half of the time."""
    seconds = 0.5 if small else 6.0
    half = (time.monotonic() + until) / 2
    ready = [worker for worker in workers if worker.wait_for(1, half)]
    figures.add("small models", {"workers": {"asked": len(workers), "ready": len(ready)}})
    for where, count in [(device, count) for count in ((1, 2) if small else PROCESSES)] + [("cpu", len(workers))]:
        chosen = ready[:count]
        lines = [worker.lines for worker in chosen]
        for worker in chosen:
            worker.send(f"{where} {seconds}")
        found = [worker.wait_for(before + 1, until) for worker, before in zip(chosen, lines, strict=True)]
        done = [one for one in found if one]
        if done:
            rates = [one["updates_per_s"] for one in done]
            figures.add("small models", {
                f"{where}, {count} at once": {
                    "answered": len(done), "updates_per_s_each": sum(rates) / len(rates), "updates_per_s": sum(rates),
                    "slowest": min(rates), "evaluation_s": max(one["evaluation_s"] for one in done),
                }
            })  # fmt: skip
    faults = [fault for fault in (worker.end(until) for worker in workers) if fault]
    if faults:
        figures.add("small models", {"fault": faults[0]})


def report(found: dict[str, dict[str, Any]]) -> str:
    """The findings as a table."""
    from bench import table
    from step import GFLOP_PER_AUDIO_S

    tflops = found.get("rate", {}).get("tflops")
    rows = [["matrix rate", f"{tflops:.0f} TFLOP/s"]] if tflops else []
    for name, one in found.items():
        if name.startswith("step: ") and "audio_s_per_s" in one:
            speed = one["audio_s_per_s"]
            share = f", {speed * GFLOP_PER_AUDIO_S['xlsr-300m'] / 1e3 / tflops:.1%} of the rate" if tflops else ""
            rows.append([name, f"{speed:.0f} audio-s/s, {one['peak_gib']:.2f} GiB{share}, {one['graphs']} graphs"])
        for key, part in one.items():
            if name in ("resume", "compile", "small models") and isinstance(part, dict):
                cells = [f"{k} {v:.3g}" for k, v in part.items() if isinstance(v, int | float)]
                rows.append([f"{name}: {key}", ", ".join(cells)])
        rows += [[name, f"{key}: {one[key]}"] for key in ("same_report", "left_gib") if key in one]
        rows += [[name, f"{key}: {value:.2e}"] for key, value in one.items() if key.endswith("against float32")]
        if "fault" in one:
            rows.append([name, f"FAULT {one['fault'].strip().splitlines()[-1][:150]}"])
    return "\n".join([found.get("rate", {}).get("device", ""), "", table(["check", "found"], rows)])


if __name__ == "__main__":
    main()

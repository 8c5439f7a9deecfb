"""One run of a race of sweeps: start a contestant, end it at the clock's end, and read what it did.

Called by `sweeps.py`. All contestants are read and scored by the same code, after the clock.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench
from race_trial import EVENTS_FILE

from hausa_asr.dataset.prepare import load_prepared
from hausa_asr.model.evaluate import evaluate
from hausa_asr.recipe import CHECKPOINT, step_folder
from hausa_asr.training import checkpoint
from sweeps.record.ledger import read_events
from sweeps.record.names import LEDGER_FILE, TRIALS_FOLDER

CONTESTANTS = ("ours", "stock", "optuna", "random")
WORKERS, TRIALS = 2, 200
"""Trials side by side, of one thread each; and more of them than any contestant can train within the clock."""
_NAME = "race"
_GENTLE_S, _GONE_S = 20.0, 10.0
"""How long a contestant has to end by itself after a SIGTERM, and its Ray's processes after it."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on dev, at seconds since the command's start; `last` is that of a whole trial."""

    at_s: float
    trial: str
    wer: float
    cer: float
    loss: float
    checkpoint: Path
    last: bool


def settings_for_all(folder: Path, prepared: str, seed: int) -> list[str]:
    """What is set for every contestant beyond the world's settings file."""
    return [
        f"name={_NAME}",
        f"storage={folder}",
        f"mlflow.uri=sqlite:///{folder}/mlflow.db",
        f"data.prepared={prepared}",
        f"search.trials={TRIALS}",
        f"search.seed={seed}",
        f"finetune.seed={seed}",
        "search.warm_start=[]",
        "starting_points={}",
        "budget={}",
        "finalists={k: 0}",
        "resources={workers_per_trial: 1, gpus_per_worker: 0, cpus_per_worker: 1}",
        f"cluster={{local_cpus: {WORKERS}}}",
    ]


def run(contestant: str, world: Path, prepared: str, seed: int, clock_s: float) -> dict[str, Any]:
    """Run one contestant for the length of the clock; what it did, and the test WER of its best checkpoint.

    Raises:
        SystemExit: it failed, or nothing was evaluated within the clock.
    """
    with tempfile.TemporaryDirectory(prefix="hausa-asr-race-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        settings = settings_for_all(folder, prepared, seed)
        began = _run(_command(contestant, world, settings), folder, clock_s)
        begun, evaluations = read(contestant, folder, began, clock_s)
        best = best_of(evaluations)
        if best is None:
            raise SystemExit(f"{contestant} evaluated nothing within {clock_s:g} s:\n{_tail(folder)}")
        model, processor = checkpoint.load(best.checkpoint)
        test = evaluate(model, processor, load_prepared(Path(prepared)).splits["test"])
    return {
        "begun": begun,
        "finished": sum(one.last for one in evaluations),
        "first_report_s": round(evaluations[0].at_s, 2),
        "dev_wer": best.wer,
        "test_wer": test.wer,
        "evaluations": [[round(one.at_s, 2), round(one.wer, 5), one.trial] for one in evaluations],
    }


def _command(contestant: str, world: Path, settings: list[str]) -> list[str]:
    if contestant == "ours":
        words = [word for one in settings for word in ("--set", one)]
        return [sys.executable, str(bench.ROOT / "sweeps/run.py"), "--config", str(world), *words]
    script = "race_stock.py" if contestant == "stock" else "race_peers.py"
    task = {"contestant": contestant, "world": str(world), "settings": settings, "workers": WORKERS}
    return [sys.executable, str(bench.ROOT / "benchmarks" / script), "--task", json.dumps(task)]


def _run(command: list[str], folder: Path, clock_s: float) -> float:
    """Run a command until the clock's end, or its own; when it began, in seconds since the epoch."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "HAUSA_ASR_", "TUNE_"))}
    with (folder / "output.txt").open("w") as output:
        began = time.time()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env={**kept, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"},
        )  # fmt: skip
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(clock_s)
            if process.poll():
                raise SystemExit(f"{command[1]} failed after {time.time() - began:.0f} s:\n{_tail(folder)}")
        finally:
            _end(process)
    return began


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and all that it started: gently, then its process group, then what is left of its own Ray."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GENTLE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + _GONE_S
    while list(_left(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in _left(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for temp in Path("/tmp").glob(f"{_ray_of(process.pid)}*"):
        shutil.rmtree(temp, ignore_errors=True)


def _left(session: int) -> Iterator[int]:
    """The processes of a session that still run, and those of the Ray that its first process started."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            if stat[0] != "Z" and (int(stat[3]) == session or _ray_of(session) in (entry / "cmdline").read_text()):
                yield int(entry.name)
        except (OSError, ValueError):  # it has ended meanwhile
            continue


def _ray_of(pid: int) -> str:
    """How the name of the folder begins in which a process keeps its local Ray (sweeps/on_ray/cluster.py)."""
    return f"hausa-asr-ray-{pid}-"


def _tail(folder: Path) -> str:
    return (folder / "output.txt").read_text(errors="replace")[-4000:]


def read(contestant: str, folder: Path, began: float, clock_s: float) -> tuple[int, list[Evaluation]]:
    """How many trials began, and all evaluations in order, both within the clock."""
    ours = contestant == "ours"
    events = list(read_events(folder / _NAME / LEDGER_FILE if ours else folder / EVENTS_FILE))
    events = sorted((one for one in events if one["time"] - began <= clock_s), key=lambda one: one["time"])
    begun = {one["trial"] for one in events if one["event"] == ("started" if ours else "begun")}
    evaluations = []
    steps: set[tuple[str, int]] = set()
    for event in events:
        if event["event"] == "reported":  # once more when a paused trial goes on
            if (event["trial"], event["step"]) in steps:
                continue
            steps.add((event["trial"], event["step"]))
            scores = event["metrics"]
            place = step_folder(folder / _NAME / TRIALS_FOLDER / event["trial"], event["step"])
        elif event["event"] == "evaluated":
            scores, place = event, Path(event["checkpoint"])
        else:
            continue
        values = (scores[key] for key in ("wer", "cer", "loss"))
        evaluations.append(Evaluation(event["time"] - began, event["trial"], *values, place, event["last"]))
    return len(begun), evaluations


def best_of(evaluations: list[Evaluation]) -> Evaluation | None:
    """The best by dev WER, then CER and loss, whose checkpoint is there.

    One that got better between the clock's end and its own has replaced its checkpoint, and does not count.
    """
    there = (one for one in evaluations if math.isfinite(one.loss) and (one.checkpoint / CHECKPOINT).is_file())
    return min(there, key=lambda one: (one.wer, one.cer, one.loss), default=None)

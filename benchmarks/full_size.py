"""A whole sweep of XLS-R 300M at its real size, on a CPU: seconds, memory and bytes of each part, beside the plan.

    python benchmarks/full_size.py [--path SPEECH] [--model xlsr-300m] [--updates 4] [--keep FOLDER] [--json FILE]

Method. The base checkpoint has XLS-R 300M's configuration and random weights, so nothing is learned; its size, and so
the time of a step, its memory and its files are the real ones; of `--model mms-1b` only the adapters learn. All is done
by the commands that a user types: prepare the speech (by default the demo's; `--path` names a folder, as for
`hausa-asr prepare`), `sweeps/run.py` for a sweep of three trials of a few updates of 8 s with a rung at half of them,
killed with SIGKILL, its workers too, after its second report, and resumed with `--resume` to its end (finalists, test
scores, the export); then `hausa-asr best-model` and `hausa-asr transcribe`. The pauses and promotions of each trial are
those of the ledger. Memory is the sum of the proportional set sizes of all processes that the command started, read
twice a second. Bytes written are what the kernel has counted for them (`/proc/PID/io`). `--model tiny --updates 2` goes
the same road in a few minutes.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench
import yaml

SETTINGS: dict[str, Any] = {
    "name": "full-size",
    "pruning": {"first_rung": 0.5, "reduction": 2},
    "space": {"lr_peak": {"low": 2e-5, "high": 5e-4, "log": True}},
    "search": {"trials": 3, "random_trials": 3},
    "finalists": {"k": 1, "seeds": 1},
}
BATCH_S = 8.0
_EVERY_S = 0.5


@dataclass
class Watch:
    """What the processes of one command took, read while they live.

    Attributes:
        seconds: from its start to its end.
        peak: bytes of memory, the most at one time.
        written: bytes, by process.
    """

    seconds: float = 0.0
    peak: int = 0
    written: dict[int, int] = field(default_factory=dict)

    def look(self, session: int) -> None:
        """Read all processes of a session."""
        memory = 0
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) != session:
                    continue
                lines = dict(line.split(":", 1) for line in (entry / "smaps_rollup").read_text().splitlines()[1:])
                memory += 1024 * int(lines["Pss"].split()[0])
                counted = dict(line.split(": ") for line in (entry / "io").read_text().splitlines())
                self.written[int(entry.name)] = int(counted["write_bytes"])
            except (OSError, KeyError, ValueError):
                continue  # it has just ended
        self.peak = max(self.peak, memory)

    def figures(self) -> dict[str, float]:
        return {
            "seconds": round(self.seconds, 1),
            "peak_gib": round(self.peak / 2**30, 2),
            "written_gb": round(sum(self.written.values()) / 1e9, 2),
        }


def run(command: list[str], work: Path, until: Path | None = None) -> Watch:
    """Run a command to its end, or kill it and all that it started once a ledger has two reports."""
    watch, began = Watch(), time.monotonic()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{work}/mlflow.db", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, cwd=bench.ROOT, env=environment, start_new_session=True)
    over = threading.Event()

    def look() -> None:
        while not over.wait(_EVERY_S):
            watch.look(process.pid)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        while process.poll() is None:
            if until is not None and until.is_file() and until.read_text().count('"reported"') >= 2:
                os.killpg(process.pid, signal.SIGKILL)
                _kill_session(process.pid)
            time.sleep(_EVERY_S)
    finally:
        over.set()
        looking.join()
    watch.seconds = time.monotonic() - began
    if process.returncode and until is None:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return watch


def _kill_session(session: int) -> None:
    """Kill what Ray has put into process groups of its own."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                os.kill(int(entry.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue


def planned(settings: Path, prepared: Path) -> dict[str, float | None]:
    """What `--plan` says."""
    from hausa_asr.dataset.prepared import load_prepared
    from hausa_asr.settings.load import load
    from sweeps.planning.estimate import predict
    from sweeps.planning.slots import admit, local_nodes

    config = load(settings, [], environment={})
    plan = admit(config.resources, local_nodes(config.cluster), config.search.trials)
    found = predict(config, plan, Path(config.storage), load_prepared(prepared).seconds)
    return {
        "seconds": found.expected.wall_s if found.expected else None,
        "checkpoints_gb": found.disk_expected / 1e9 if found.disk_expected else None,
        "written_gb": found.written / 1e9 if found.written else None,
        "features_gb": found.features / 1e9 if found.features else None,
    }


def turns(folder: Path) -> dict[str, dict[str, Any]]:
    """How each trial of a sweep went, by its ledger: its pauses by their causes, its promotions, its end."""
    from sweeps.record.ledger import read_events, read_state
    from sweeps.record.names import LEDGER_FILE

    events = [event for event in read_events(folder / LEDGER_FILE) if "trial" in event]
    found: dict[str, dict[str, Any]] = {}
    for name, trial in read_state(folder).trials.items():
        own = [event for event in events if event["trial"] == name]
        found[name] = {
            "pauses": [event.get("cause", "") or event["reason"] for event in own if event["event"] == "paused"],
            "promotions": sum(event["event"] == "ranked" and event.get("promoted", False) for event in own),
            "recalled": trial.recalled,
            "end": trial.reason if trial.reason == "diverged" else trial.state,
        }
    return found


def size_gb(folder: Path) -> float:
    """Gigabytes of a folder's files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e9


class Largest:
    """The largest size that a folder has had, read once a second."""

    def __init__(self, folder: Path) -> None:
        self.gb, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, args=(folder,))
        self._thread.start()

    def _look(self, folder: Path) -> None:
        while not self._over.wait(1.0):
            try:
                self.gb = max(self.gb, size_gb(folder))
            except OSError:
                continue  # a file went while it was looked at

    def end(self) -> float:
        self._over.set()
        self._thread.join()
        return self.gb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, help="the speech, as for `hausa-asr prepare`; by default the demo's")
    parser.add_argument(
        "--model", choices=[*bench.SHAPES], default="xlsr-300m", help="the shape of the base checkpoint"
    )
    parser.add_argument("--updates", type=int, default=4, help="of each trial (4)")
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave it")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hausa-asr-full-size-") as folder:
        work = (given.keep or Path(folder)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        found = sweep(work, given.path, given.model, given.updates)
    bench.write(given.json, found)


def sweep(work: Path, path: Path | None, model: str, updates: int) -> dict[str, Any]:
    """Go the whole road in a folder."""
    base, prepared, settings = work / "base", work / "prepared", work / "settings.yaml"
    bench.save_base(model, base)
    speech = ["--path", str(path)] if path else ["--corpus", "demo"]
    overlap = ["--allow-overlap", "speaker,sentence"]
    hausa = [sys.executable, "-m", "hausa_asr.cli"]
    finetune = {
        "length_s": BATCH_S * updates, "batch_s": BATCH_S, "micro_batch_s": 16, "mask_time_prob": 0.1,
        "eval_every_steps": max(1, updates // 2), "dev_part_s": 15,
    }  # fmt: skip
    if "adapter_attn_dim" in bench.SHAPES[model]:
        finetune["adapter_dim"] = bench.SHAPES[model]["adapter_attn_dim"]
    given = {
        **SETTINGS, "finetune": finetune, "model": {"base": str(base)}, "data": {"prepared": str(prepared)},
        "storage": str(work / "runs"), "mlflow": {"uri": f"sqlite:///{work}/mlflow.db"},
        "resources": {"cpus_per_worker": os.cpu_count()},
    }  # fmt: skip
    settings.write_text(yaml.safe_dump(given))
    found: dict[str, Any] = {"machine": bench.machine(bench.torch.device("cpu"))}
    found["prepare"] = run([*hausa, "prepare", *speech, *overlap, "--out", str(prepared)], work).figures()
    found["plan"] = planned(settings, prepared)
    runs, driver = work / "runs", [sys.executable, "sweeps/run.py"]
    runs.mkdir()
    largest = Largest(runs / "full-size")
    ledger = runs / "full-size/ledger.jsonl"
    found["until_it_was_killed"] = run([*driver, "--config", str(settings)], work, until=ledger).figures()
    resume = [*driver, "--resume", "full-size", "--set", f"storage={runs}"]
    found["resumed_to_the_end"] = run(resume, work).figures()
    found["checkpoints_gb"], found["features_gb"] = largest.end(), size_gb(runs / "_data")
    model_folder = work / "model"
    found["export"] = run([*hausa, "best-model", "--sweep", "full-size", "--out", str(model_folder)], work).figures()
    clips = sorted(one for one in (path or runs).rglob("*") if one.suffix in (".wav", ".flac"))[:2]
    if clips:
        found["transcribe"] = run(
            [*hausa, "transcribe", "--model", str(model_folder), *map(str, clips)], work
        ).figures()
    found["trials"] = turns(runs / "full-size")
    parts = [(name, one) for name, one in found.items() if isinstance(one, dict) and "peak_gib" in one]
    rows = [[name, *(f"{one[key]:.1f}" for key in ("seconds", "peak_gib", "written_gb"))] for name, one in parts]
    print("\n" + bench.table(["", "seconds", "peak memory, GiB", "written, GB"], rows))
    plan = found["plan"]
    took_s = sum(found[name]["seconds"] for name in ("until_it_was_killed", "resumed_to_the_end"))
    written_gb = sum(found[name]["written_gb"] for name in ("until_it_was_killed", "resumed_to_the_end"))
    rows = [
        ["the sweep, s", f"{plan['seconds'] or 0:.0f}", f"{took_s:.0f}"],
        ["checkpoints, GB at most", f"{plan['checkpoints_gb'] or 0:.1f}", f"{found['checkpoints_gb']:.1f}"],
        ["written for checkpoints, GB", f"{plan['written_gb'] or 0:.1f}", f"{written_gb:.1f} in all"],
        ["cached features, GB", f"{plan['features_gb'] or 0:.2f}", f"{found['features_gb']:.2f}"],
    ]
    print("\n" + bench.table(["", "planned", "was"], rows))
    rows = [
        [
            name,
            ", ".join(one["pauses"]) or "none",
            str(one["promotions"]),
            "yes" if one["recalled"] else "no",
            one["end"],
        ]
        for name, one in found["trials"].items()
    ]
    print("\n" + bench.table(["trial", "pauses", "promotions", "recalled", "end"], rows))
    return found


if __name__ == "__main__":
    main()

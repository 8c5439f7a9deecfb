"""What only a GPU can show, in one command of under nine minutes: speed, memory, resume, precision, torch.compile.

    python benchmarks/gpu_check.py --json FILE [--small] [--without compile]

Needs torch, torchaudio, transformers and jiwer; with accelerate the peer is the real Trainer. `--small` runs every part
on a CPU with tiny models, to show that it runs.

Method. Each check has a process of its own, which imports its packages while the check before it runs, and a time limit
of its own: one that fails or hangs is recorded with its error, and the others go on. The parts come in the order of
what their findings are worth, and each is over by its share of the time, so none uses up another's. Findings go to the
file as they come. All models have random weights, all speech is noise with the lengths of Common Voice Hausa. Memory is
allocated as a sweep's workers do it, in expandable segments, unless the first check fails with these.

1. `step`: the rows of `step.py` for XLS-R 300M and wav2vec2-base: the Trainer and ours, with and without the feature
   cache, and torch.compile.
2. `presets`: the peak memory of each preset at its `micro_batch_s`: updates with AdamW's moments, and an evaluation.
3. `resume`: `finetune()` on XLS-R 300M: evaluations, the times to copy weights and to write checkpoints, a pause, and a
   resume that sends the same report again.
4. `precision`: the training losses of up to 200 updates in bfloat16 against float32. `ranks`: those of two ranks on
   this GPU, over gloo, against one rank with whole batches. `compile`: 12 trials of different settings in one process,
   compiled and not: graphs, seconds, memory left behind.
5. `small`: many demo models at once on the GPU, and on the machine's CPUs.
6. `rest`: the other rows of `step.py`, and the first ones again, as far as time is left.

1, 2, 3, 5 and 6 are timed alone; those of 4 run side by side.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu_check_process import Figures, Process, Processes

ROWS: dict[str, dict[str, Any]] = {
    "Trainer": {"row": "trainer"},
    "ours": {"row": "ours"},
    "ours, without the feature cache": {"row": "ours", "cache": False},
    "Trainer, by length": {"row": "trainer", "by_length": True},
    "ours, with torch.compile": {"row": "ours", "compile": "on"},
}
REST: dict[str, dict[str, Any]] = {
    **{f"{name}, again": ROWS[name] for name in ("Trainer", "ours", "ours, without the feature cache")},
    "ours, its batches, no cache": {"row": "ours", "cache": False, "buckets": False, "edges": False},
    "ours, without buckets": {"row": "ours", "buckets": False},
    "ours, each batch padded to its longest": {"row": "ours", "edges": False},
}
MODELS = ("xlsr-300m", "base")
PRESETS = {
    "xlsr_300m": "xlsr-300m",
    "xlsr_1b": "xlsr-1b",
    "mms_1b": "xlsr-1b",
    "wav2vec2_base": "base",
    "mms_300m": "xlsr-300m",
}
"""The files of `sweeps/configs`, and the shapes of their base checkpoints."""
PROCESSES = (1, 4, 12)
SHARES = {
    "step": 0.43, "presets": 0.56, "resume": 0.68,
    "precision": 0.86, "ranks": 0.86, "compile": 0.86, "small": 0.95, "rest": 1.0,
}  # fmt: skip
"""The parts, in their order, and the share of the time by which each is over, also where something hung."""
LONGEST = 0.12
"""The share of the time that one row or preset may take."""
ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"


def main() -> None:
    """Run all checks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the findings here as they come")
    parser.add_argument("--small", action="store_true", help="tiny models on a CPU")
    parser.add_argument("--seconds", type=float, default=520.0, help="begin nothing after this, and end what runs")
    parser.add_argument(
        "--without", action="append", default=[], choices=[*SHARES], help="leave this out; may be repeated"
    )
    given = parser.parse_args()
    figures = Figures(given.json)
    work = Path(tempfile.mkdtemp(prefix="gpu-check-"))
    checks = Checks(figures, given.small, work, given.seconds)
    try:
        run_all(checks, [part for part in SHARES if part not in given.without])
    finally:
        checks.processes.close()
        shutil.rmtree(work, ignore_errors=True)
    print(report(figures.found), flush=True)


def tasks(small: bool, work: Path) -> dict[str, dict[str, Any]]:
    """The work of each part, at full size or small."""

    def sized(full: Any, tiny: Any) -> Any:
        return tiny if small else full

    clips = sized(32, 2)
    common = {
        "device": "cpu" if small else "cuda",
        "work": str(work),
        "bases": str(work / "bases"),
        "tiny": small,
        "model": "xlsr-300m",
        "threads": sized(8, 1),
        "clips": clips,
        "batch_s": clips * 4.35,
        "micro_batch_s": clips * 4.35 * 1.2,
        "plan_updates": sized(10_000, 40),
        "utterances": sized(400, 12),
    }
    few = {"batch_s": sized(35.0, 9.0), "micro_batch_s": 42.0}
    layers = {"model": "xlsr-6-layers"}
    return {
        "bases": common,
        "machine": common,
        "step": {**common, "updates": sized(25, 2), "warm_up": sized(20, 1), "utterances": sized(800, 12)},
        "presets": {**common, "updates": 4, "scale": sized(1.0, 0.05), "utterances": sized(200, 12)},
        "resume": {**common, "updates": sized(12, 6), "dev": sized(830, 6)},
        "precision": {**common, "updates": sized(200, 3), "every": sized(25, 2), "updates_on_cpu": sized(40, 2), **few},
        "ranks": {**common, **layers, "updates": sized(20, 3), **few, "store": str(work / "ranks"), "lr_peak": 1e-4},
        "compile": {**common, **layers, "trials": sized(12, 1), "updates": sized(5, 0)},
        "small": {
            **common, "model": "demo", "threads": 1, "batch_s": sized(16.0, 4.0), "utterances": sized(200, 12),
            "plan_updates": sized(10_000, 1_000),  # more than are made in the time
        },
    }  # fmt: skip


class Checks:
    """Run checks one by one or side by side, each until its time is over."""

    def __init__(self, figures: Figures, small: bool, work: Path, seconds: float) -> None:
        self.figures, self.small, self.work = figures, small, tasks(small, work)
        self.seconds, self.began = seconds, time.monotonic()
        threads = str(self.work["machine"]["threads"])
        environment = {"OMP_NUM_THREADS": threads, "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor")}
        environment[ALLOCATOR] = "expandable_segments:True"
        self.processes = Processes(figures, environment, reused=small)

    def until(self, part: str) -> float:
        """The moment by which a part is over."""
        return self.began + SHARES[part] * self.seconds

    def alone(self, name: str, part: str, until: float, longest: float = 1.0, **more: Any) -> None:
        """Run one check, while the process of the next imports its packages."""
        self.beside([[(name, part, more)]], min(until, time.monotonic() + longest * self.seconds), until)

    def beside(self, groups: list[list[tuple[str, str, dict[str, Any]]]], until: float, begun_by: float = 0.0) -> None:
        """Run groups of checks side by side; small, one group after another."""
        for batch in groups if self.small else [[check for group in groups for check in group]]:
            if time.monotonic() >= (begun_by or until):
                for name, _, _ in batch:
                    self.figures.add(name, {"fault": "not begun: its time was over"})
                continue
            running = []
            for name, part, more in batch:
                running.append(self.processes.take().begin(name, part, {**self.work[part], **more}))
            self.processes.warm()
            for process in running:
                process.finish(until)
            for process in running:
                self.processes.back(process)


def run_all(checks: Checks, parts: list[str]) -> None:
    """The wanted parts in their order."""
    kinds = [["tiny", "tiny-base"]] if checks.small else [["xlsr-300m", "base"], ["xlsr-6-layers", "xlsr-1b"]]
    bases = [[(f"bases {number}", "bases", {"kinds": some})] for number, some in enumerate(kinds)]
    checks.beside([[("machine", "machine", {})], *bases], checks.until("step"))
    if "fault" in checks.figures.found["machine"]:
        del checks.processes.environment[ALLOCATOR]
        checks.processes.close()  # those that wait have it
        checks.alone("machine, without expandable segments", "machine", checks.until("step"))
    for model in MODELS if "step" in parts else ():
        rows(checks, "step", model, ROWS, "compile" in parts)
    for preset, kind in PRESETS.items() if "presets" in parts else ():
        checks.alone(f"preset {preset}", "presets", checks.until("presets"), LONGEST, preset=preset, model=kind)
    if "resume" in parts:
        checks.alone("resume", "resume", checks.until("resume"))
    side_by_side: dict[str, list[list[tuple[str, str, dict[str, Any]]]]] = {
        "precision": [[("precision", "precision", {})]],
        "ranks": [[("ranks", "ranks", {"rank": 0}), ("ranks, the second", "ranks", {"rank": 1})]],
        "compile": [[(f"compile {mode}", "compile", {"compile": mode})] for mode in ("on", "off")],
    }
    wanted = [group for part, groups in side_by_side.items() if part in parts for group in groups]
    if wanted:
        checks.beside(wanted, checks.until("compile"))
    if "small" in parts:
        small_models(checks)
    for model in MODELS if "rest" in parts else ():
        rows(checks, "rest", model, REST, "compile" in parts)


def rows(checks: Checks, part: str, model: str, wanted: dict[str, dict[str, Any]], compiles: bool) -> None:
    """Rows of `step.py`, one by one; small, of the second model those that differ in their code."""
    second = model != MODELS[0]
    for name, row in [*wanted.items()][: 2 if checks.small and second else None]:
        if "compile" in row and (second or checks.small or not compiles):
            continue
        if checks.small and name.endswith("again"):
            continue
        if row["row"] == "trainer" and not find_spec("accelerate"):
            row = {**row, "row": "loop"}
        checks.alone(f"step {model}: {name}", "step", checks.until(part), LONGEST, model=model, **row)


def small_models(checks: Checks) -> None:
    """Updates a second of 1, 4 and 12 demo models at once; of those that are ready after half of the time."""
    small, until, task = checks.small, checks.until("small"), checks.work["small"]
    figures, processes, name = checks.figures, checks.processes, "small models"
    if time.monotonic() >= until:
        figures.add(name, {"fault": "not begun: its time was over"})
        return
    asked = 2 if small else max(PROCESSES)
    workers = [processes.take(**({} if small else {"OMP_NUM_THREADS": "1"})) for _ in range(asked)]
    try:
        for worker in workers:
            worker.begin("", "small", task)
        half = (time.monotonic() + until) / 2
        ready = [worker for worker in workers if worker.wait_for(1, half)]
        figures.add(name, {"workers": {"asked": asked, "ready": len(ready)}})
        for count in (1, 2) if small else PROCESSES:
            figures.add(name, _at_once(ready[:count], task["device"], count, 0.3 if small else 6.0, until))
        if not small:
            figures.add(name, _at_once(ready, "cpu", asked, 6.0, until))
        for worker in workers:
            worker.send("end")
        faults = [fault for fault in (worker.finish(until) for worker in workers) if fault]
        if faults:
            figures.add(name, {"fault": faults[0]})
    finally:
        for worker in workers:
            processes.back(worker)


def _at_once(workers: list[Process], device: str, count: int, seconds: float, until: float) -> dict[str, Any]:
    """Let workers train at once, and add up their updates a second."""
    lines = [worker.lines for worker in workers]
    for worker in workers:
        worker.send(f"{device} {seconds}")
    found = [worker.wait_for(before + 1, until) for worker, before in zip(workers, lines, strict=True)]
    done = [one for one in found if one]
    finding: dict[str, Any] = {"answered": len(done)}
    if done:
        rates = [one["updates_per_s"] for one in done]
        finding |= {"updates_per_s_each": sum(rates) / len(rates), "updates_per_s": sum(rates), "slowest": min(rates)}
        finding["evaluation_s"] = max(one["evaluation_s"] for one in done)
    return {f"{device}, {count} at once": finding}


def report(found: dict[str, dict[str, Any]]) -> str:
    """The findings, a line each."""
    tflops = next((one["tflops"] for one in found.values() if "tflops" in one), None)
    lines: list[tuple[str, str]] = []
    for name, one in found.items():
        if "audio_s_per_s" in one and name.startswith("step"):
            gflop = one.get("gflop_per_audio_s")
            share = f", {one['audio_s_per_s'] * gflop / 1e3 / tflops:.1%} of the rate" if tflops and gflop else ""
            text = f"{one['audio_s_per_s']:.0f} audio-s/s, {one['peak_gib']:.2f} GiB{share}, {one['graphs']} graphs"
            lines.append((name, text))
        else:
            plain = {key: value for key, value in one.items() if key != "fault" and not isinstance(value, dict | list)}
            lines += [(name, _words(plain))] if plain else []
            lines += [(f"{name}: {key}", _words(part)) for key, part in one.items() if isinstance(part, dict)]
        if "fault" in one:
            lines.append((name, f"FAULT {one['fault'].strip().splitlines()[-1][:150]}"))
    width = max((len(name) for name, _ in lines), default=0)
    return "\n" + "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def _words(figures: dict[str, Any]) -> str:
    """Figures with their names, numbers cut to three digits."""

    def word(value: Any) -> str:
        if isinstance(value, list):
            return " and ".join(map(word, value)) or "none"
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{key} {word(value)}" for key, value in figures.items() if not isinstance(value, dict))


if __name__ == "__main__":
    main()

"""What `gpu_check.py` runs: each check takes a task and yields its findings one by one, in a process of its own."""

from __future__ import annotations

import gc
import json
import random
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import bench
import numpy as np
import step
import torch
from trainer_peer import wait

from hausa_asr.model.evaluate import evaluate
from hausa_asr.recipe import Answer, FinetuneConfig, Progress
from hausa_asr.training.finetune import Data, finetune
from hausa_asr.training.one_update import update
from hausa_asr.training.run import Run, start
from hausa_asr.training.saving import Saving

Finding = dict[str, Any]


def save_base(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """Write the base checkpoints that the others use."""
    for kind in task["kinds"]:
        started = time.monotonic()
        bench.save_base(kind, Path(task["bases"]) / kind)
        yield {kind: {"seconds": time.monotonic() - started}}


def _base(task: Finding) -> str:
    return "demo" if task["model"] == "demo" else str(Path(task["bases"]) / task["model"])


def rate(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """The matrix rate, and what this machine is."""
    yield {"device": bench.machine(device), "python": sys.version.split()[0]}
    if device.type == "cuda":
        yield {"tflops": step.matrix_rate(device)}


def step_row(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """One row of `step.py`, and how many graphs were compiled for it."""
    started = time.monotonic()
    row = step.ROWS[task["row"]](task, device, _base(task), work)
    yield {**row, "seconds": time.monotonic() - started, "graphs": _graphs()}


def _graphs() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def resume(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """`finetune()` with two evaluations; a pause after the first, and a resume from its checkpoint."""
    train, dev = bench.MadeUpSplit(task["utterances"]), bench.MadeUpSplit(task["dev"], seed=1)
    half = task["updates"] // 2
    config = replace(_recipe(task), length_s=task["batch_s"] * (task["updates"] - 0.5), eval_every_steps=half)
    yield {"dev_s": float(dev.n_samples.sum()) / 16_000}
    seen: list[Progress] = []
    clock = _WriteClock()

    def report(progress: Progress) -> Answer:
        seen.append(progress)
        return Answer.PAUSE if len(seen) == 1 else Answer.CONTINUE

    for name in ("to the pause", "resumed"):
        started = time.monotonic()
        ended = finetune(
            config, Data(train, dev, "made-up"), report, base=_base(task), folder=work / "trial", device=device,
            cache=work / "cache",
        )  # fmt: skip
        metrics = seen[-1].metrics
        yield {
            name: {
                "end": ended.end,
                "seconds": time.monotonic() - started,
                "evaluation_s": metrics["eval_runtime_s"],
                "write_s": clock.write_s,
                "wait_after_evaluation_s": clock.wait_s,
                "bytes": _bytes(Path(seen[-1].checkpoint)),
                "audio_s_per_s": metrics["audio_s_per_s"],
                "train_loss": metrics["train_loss"],
                "dev_loss": metrics["loss"],
                "nonfinite": metrics["nonfinite_steps"],
                "peak_gib": bench.peak_gib(device),
                "graphs": _graphs(),
            }
        }
    yield {"same_report": _plain(seen[0]) == _plain(seen[1]), "reports": [one.step for one in seen]}
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        yield {"left_gib": torch.cuda.memory_allocated(device) / 2**30}


class _WriteClock:
    """Seconds that the newest checkpoint took to write, and that the fine-tune waited for it after its evaluation."""

    def __init__(self) -> None:
        self.write_s = self.wait_s = 0.0
        write, finish = Saving._write, Saving.finish

        def timed_write(*given: Any) -> None:
            started = time.monotonic()
            write(*given)
            self.write_s = time.monotonic() - started

        def timed_finish(*given: Any) -> Path:
            started = time.monotonic()
            done = finish(*given)
            self.wait_s = time.monotonic() - started
            return done

        Saving._write = timed_write  # type: ignore[method-assign,assignment]
        Saving.finish = timed_finish  # type: ignore[method-assign,assignment]


def _bytes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.stat().st_size > 2**16}


def _plain(progress: Progress) -> str:
    return json.dumps(asdict(progress))


def _recipe(task: Finding) -> FinetuneConfig:
    return replace(step.recipe(task), mask_feature_length=16, compile="off")


def compiled(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """torch.compile over trials of different settings: graphs, seconds, and the memory after each trial is dropped."""
    split, dev = bench.MadeUpSplit(task["utterances"]), bench.MadeUpSplit(16, seed=1)
    drawn, alive = random.Random(0), []
    for number in range(task["trials"]):
        settings: dict[str, Any] = {
            "hidden_dropout": drawn.uniform(0, 0.2),
            "attention_dropout": drawn.uniform(0, 0.2),
            "activation_dropout": drawn.uniform(0, 0.2),
            "layerdrop": drawn.uniform(0, 0.1),
            "mask_time_prob": drawn.uniform(0.1, 0.6),
            "freeze_transformer_fraction": drawn.choice([0.0, 0.0005]),
        }
        config = replace(_recipe(task), compile=task["compile"], seed=number, **settings)
        graphs, started = _graphs(), time.monotonic()
        run = start(config, Data(split, dev), _base(task), work / f"trial{number}", device, None, None)
        alive.append(weakref.ref(run.model))
        update(run)
        wait(device)
        first_s = time.monotonic() - started
        for _ in range(task["updates"]):
            update(run)
        evaluate(run.model, run.processor, run.data.dev)
        run.loader.close()
        wait(device)
        del run
        gc.collect()
        found = {"new_graphs": _graphs() - graphs, "first_update_s": first_s, "seconds": time.monotonic() - started}
        if device.type == "cuda":
            torch.cuda.empty_cache()
            found["allocated_mib"] = torch.cuda.memory_allocated(device) / 2**20
            found["reserved_mib"] = torch.cuda.memory_reserved(device) / 2**20
        yield {f"trial {number}": {**found, "models_alive": sum(one() is not None for one in alive)}}


def precision(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """Training losses in bfloat16 autocast and in float32, on the same batches without dropout; and on the CPU."""
    kinds = [("bfloat16", device, True), ("float32", device, False), ("float32 on the CPU", torch.device("cpu"), False)]
    losses: dict[str, np.ndarray] = {}
    for name, where, low in kinds if device.type == "cuda" else kinds[1:]:
        losses[name] = np.array(_losses(task, where, work / name.replace(" ", "-"), low))
        yield {name: losses[name].tolist()}
    exact = losses["float32"]
    for name, found in losses.items():
        if name != "float32":
            yield {f"{name} against float32": float(np.max(np.abs(found - exact) / np.abs(exact)))}


def _losses(task: Finding, device: torch.device, folder: Path, low: bool) -> list[float]:
    supported = torch.cuda.is_bf16_supported
    if not low:
        torch.cuda.is_bf16_supported = lambda including_emulation=True: False  # turns our autocast off
    config = replace(_recipe(task), activation_dropout=0.0)
    split = bench.MadeUpSplit(task["utterances"])
    run = start(config, Data(split, bench.MadeUpSplit(4, seed=1)), "demo", folder, device, None, None)
    if not low:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    found, before = [], 0.0
    for _ in range(task["updates"]):
        update(run)
        total = run.window.sums[1].item()
        found.append(total - before)
        before = total
    run.loader.close()
    torch.cuda.is_bf16_supported = supported
    return found


def small_worker(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """Train the demo model, for each line of standard input (`cuda 12`) on that device for that many seconds."""
    config = replace(_recipe(task), batch_s=task["batch_s"], micro_batch_s=80.0, activation_dropout=0.1)
    runs: dict[str, Run] = {}
    for name in dict.fromkeys([device.type, "cpu"]):
        data = Data(bench.MadeUpSplit(task["utterances"]), bench.MadeUpSplit(32, seed=1))
        runs[name] = start(config, data, "demo", work / name, torch.device(name), None, None)
        for _ in range(3 if name == "cpu" else 10):
            update(runs[name])
        wait(device)
    yield {"ready": True}
    for line in sys.stdin:
        name, seconds = line.split()
        run, began = runs[name], runs[name].step
        started = time.monotonic()
        while time.monotonic() - started < float(seconds):
            update(run)
        wait(run.device)
        wall_s = time.monotonic() - started
        report = evaluate(run.model, run.processor, run.data.dev)
        yield {
            "updates_per_s": (run.step - began) / wall_s,
            "evaluation_s": report.runtime_s,
            "peak_gib": bench.peak_gib(run.device),
        }
    for run in runs.values():
        run.loader.close()


CHECKS: dict[str, Callable[[Finding, torch.device, Path], Iterator[Finding]]] = {
    "bases": save_base,
    "rate": rate,
    "step": step_row,
    "resume": resume,
    "compile": compiled,
    "precision": precision,
    "worker": small_worker,
}

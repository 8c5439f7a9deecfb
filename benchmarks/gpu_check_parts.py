"""The parts of `gpu_check.py`, and the process that runs them: each takes a task and yields its findings one by one.

In on standard input: for each part a line of JSON, `{"part": NAME, "task": {...}}`. Out: a line of JSON for each
finding, `{"fault": ...}` if the part failed, and `{"over": true}`. `gpu_check_process.py` is the other side.

Long, since each part is a function of its own and they share their recipes.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import bench
import numpy as np
import step
import torch
import torch.distributed as dist
from trainer_peer import wait

from hausa_asr.model import forward
from hausa_asr.model.batch import Share, padded
from hausa_asr.model.evaluate import evaluate
from hausa_asr.recipe import Answer, FinetuneConfig, Progress
from hausa_asr.training.finetune import Data, finetune
from hausa_asr.training.one_update import update
from hausa_asr.training.run import Run, start
from hausa_asr.training.saving import Best, Saving
from hausa_asr.training.states import State
from hausa_asr.training.updates import micro_batches
from hausa_asr.utterance import SAMPLE_RATE

Finding = dict[str, Any]
CONFIGS = bench.ROOT / "sweeps/configs"
DROPOUTS = {"hidden_dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1}
"""The most that the presets' spaces have: a dropout keeps its mask for the backward pass."""


def serve() -> None:
    """Run the parts that come in, one after another."""
    for line in sys.stdin:
        asked = json.loads(line)
        task = asked["task"]
        torch.set_num_threads(task["threads"])
        try:
            with tempfile.TemporaryDirectory(dir=task["work"], ignore_cleanup_errors=True) as folder:
                for finding in CHECKS[asked["part"]](task, torch.device(task["device"]), Path(folder)):
                    print(json.dumps(finding), flush=True)
        except Exception:  # it is a finding too
            print(json.dumps({"fault": traceback.format_exc()}), flush=True)
        print(json.dumps({"over": True}), flush=True)


def save_bases(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """Write the base checkpoints that the others use."""
    for kind in task["kinds"]:
        started = time.monotonic()
        bench.save_base(kind, Path(task["bases"]) / kind)
        yield {kind: {"seconds": time.monotonic() - started}}


def _base(task: Finding) -> str:
    model = task["model"]
    if model == "demo":
        return model
    return str(Path(task["bases"]) / (("tiny-base" if model == "base" else "tiny") if task["tiny"] else model))


def machine(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """What this machine is, how it allocates, and its matrix rate."""
    yield {"device": bench.machine(device), "python": sys.version.split()[0]}
    backend = torch.cuda.memory.get_allocator_backend()
    if device.type == "cuda":
        torch.zeros(2**20, device=device)
        segments = torch.cuda.memory_snapshot()
        yield {"allocator": backend, "expandable_segments": any(one.get("is_expandable") for one in segments)}
        yield {"tflops": step.matrix_rate(device)}
    else:
        yield {"allocator": backend, "expandable_segments": None}


def step_row(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """One row of `step.py`, and how many graphs were compiled for it."""
    started, before = time.monotonic(), _graphs()
    row = step.ROWS[task["row"]](task, device, _base(task), work)
    seconds, gflop = time.monotonic() - started, step.GFLOP_PER_AUDIO_S.get(task["model"])
    yield {**row, "seconds": seconds, "graphs": _graphs() - before, "gflop_per_audio_s": gflop}


def _graphs() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def preset(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """The peak memory of a preset at its `micro_batch_s`: from its second update on AdamW's moments are there too."""
    import yaml  # huggingface_hub needs it, so it is there

    started = time.monotonic()
    asked = yaml.safe_load((CONFIGS / f"{task['preset']}.yaml").read_text(encoding="utf-8"))["finetune"]
    config = FinetuneConfig(**{**DROPOUTS, **asked, "compile": "off"})
    most_s = config.micro_batch_s * task["scale"]
    config = replace(config, micro_batch_s=most_s, batch_s=2 * most_s, length_s=most_s * task["plan_updates"])
    train, dev = bench.MadeUpSplit(task["utterances"]), bench.MadeUpSplit(max(8, task["utterances"] // 4), seed=1)
    run = start(config, Data(train, dev, "made-up"), _base(task), work / "trial", device, None, work / "cache")
    yield {"before": _memory(device)}
    fullest_s = 0.0
    for number in range(task["updates"]):
        parts = micro_batches(run.plan.batch(number).indices, train.n_samples, run.plan.edges, most_s, Share())
        sizes = [len(part) * padded(int(train.n_samples[part].max()), run.plan.edges) for part in parts]
        fullest_s = max(fullest_s, max(sizes) / SAMPLE_RATE)
        update(run)
        if number == 0:
            yield {"first update": _memory(device)}
    learned = sum(parameter.numel() for parameter in run.learning)
    # Smaller than asked for, if memory was short.
    yield {"asked_s": most_s, "micro_batch_s": run.loader.micro_batch_s, "fullest_s": fullest_s, **_memory(device)}
    evaluate(run.model, run.processor, run.data.dev)
    run.loader.close()
    yield {"with an evaluation": _memory(device), "weights": sum(p.numel() for p in run.model.parameters())}
    yield {"learned": learned, "seconds": time.monotonic() - started}


def _memory(device: torch.device) -> dict[str, float]:
    """The most memory so far: of tensors, and what was reserved for them."""
    reserved = torch.cuda.max_memory_reserved(device) / 2**30 if device.type == "cuda" else 0.0
    return {"peak_gib": bench.peak_gib(device), "reserved_gib": reserved}


def resume(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """`finetune()` with three evaluations; a pause after the second, and a resume from its checkpoint.

    The first is a rung, where a checkpoint to resume from is copied and written while training goes on; the second
    copies the weights to the CPU, and after the pause a checkpoint is written that is waited for.
    """
    train, dev = bench.MadeUpSplit(task["utterances"]), bench.MadeUpSplit(task["dev"], seed=1)
    third = task["updates"] // 3
    config = replace(_recipe(task), length_s=task["batch_s"] * (task["updates"] - 0.5), eval_every_steps=third)
    yield {"dev_s": float(dev.n_samples.sum()) / 16_000}
    seen: list[Progress] = []

    def report(progress: Progress) -> Answer:
        seen.append(progress)
        return Answer.PAUSE if len(seen) == 2 else Answer.CONTINUE

    for name in ("to the pause", "resumed"):
        started = time.monotonic()
        with _timed(State, "_take") as state_copy_s, _timed(State, "done") as state_wait_s, \
                _timed(State, "_fill") as state_write_s, _timed(Saving, "_write") as write_s, \
                _timed(Best, "_take") as copy_s, _timed(Best, "done") as wait_s:  # fmt: skip
            ended = finetune(
                config, Data(train, dev, "made-up"), report, base=_base(task), folder=work / "trial", device=device,
                cache=work / "cache", evaluate_at_s=[task["batch_s"] * third],
            )  # fmt: skip
        metrics = seen[-1].metrics
        yield {
            name: {
                "end": ended.end,
                "seconds": time.monotonic() - started,
                "evaluation_s": metrics["eval_runtime_s"],
                "state_copy_s": state_copy_s,
                "state_wait_s": state_wait_s,
                "state_write_s": state_write_s,
                "copy_s": copy_s,
                "wait_s": wait_s,
                "waited_write_s": write_s,
                "bytes": _bytes(Path(ended.progress.checkpoint)),
                "audio_s_per_s": metrics["audio_s_per_s"],
                "train_loss": metrics["train_loss"],
                "dev_loss": metrics["loss"],
                "nonfinite": metrics["nonfinite_steps"],
                "peak_gib": bench.peak_gib(device),
            }
        }
    yield {"same_report": _plain(seen[1]) == _plain(seen[2]), "reports": [one.step for one in seen]}
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        yield {"left_gib": torch.cuda.memory_allocated(device) / 2**30}


@contextmanager
def _timed(kind: type, method: str) -> Iterator[list[float]]:
    """Measure the seconds of each call of a method."""
    seconds: list[float] = []
    original = getattr(kind, method)

    def timed(*given: Any) -> Any:
        started = time.monotonic()
        try:
            return original(*given)
        finally:
            seconds.append(time.monotonic() - started)

    setattr(kind, method, timed)
    try:
        yield seconds
    finally:
        setattr(kind, method, original)


def _bytes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.stat().st_size > 2**16}


def _plain(progress: Progress) -> str:
    return json.dumps({**asdict(progress), "checkpoint": ""})  # the newest that is written by now


def _recipe(task: Finding) -> FinetuneConfig:
    return replace(step.recipe(task), mask_feature_length=16, compile="off")


def compiled(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """Trials of different settings, compiled or not: graphs, seconds, and the memory after each trial is dropped."""
    split, dev = bench.MadeUpSplit(task["utterances"]), bench.MadeUpSplit(16, seed=1)
    drawn, alive = random.Random(0), []
    for number in range(task["trials"]):
        settings: dict[str, Any] = {
            "hidden_dropout": drawn.uniform(0, 0.2),
            "attention_dropout": drawn.uniform(0, 0.2),
            "activation_dropout": drawn.uniform(0, 0.2),
            "layerdrop": drawn.uniform(0, 0.1),
            "mask_time_prob": drawn.uniform(0.1, 0.6),
            "freeze_transformer_fraction": drawn.choice([0.0, 5 / task["plan_updates"]]),
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
    """Training losses in bfloat16 autocast and in float32, on the same batches; those of the demo on the CPU too.

    The learning rate comes to its peak and goes down again. What there is is written every 25 updates, since the time
    may be over before all are made.
    """
    for model, lr_peak in (("demo", 1e-3), ("xlsr-300m", 1e-4)):
        one, low, exact = {**task, "model": model, "lr_peak": lr_peak}, [], []
        if device.type == "cuda" or task["tiny"]:
            for low in _losses(one, device, work / model, task["updates"], exact=False):
                yield {f"{model}: bfloat16": low}
        for exact in _losses(one, device, work / model, task["updates"]):
            yield {f"{model}: float32": exact}
            if low:
                yield {f"{model}: bfloat16 against float32": _difference(low, exact)}
        if model == "demo":
            *_, cpu = _losses(one, torch.device("cpu"), work / model, task["updates_on_cpu"])
            yield {f"{model}: float32 on the CPU against float32": _difference(cpu, exact)}


def _difference(some: list[float], others: list[float]) -> dict[str, float]:
    """How far losses are from exact ones, over the updates that both have."""
    updates = min(len(some), len(others))
    losses, exact = np.array(some[:updates]), np.array(others[:updates])
    relative = np.abs(losses - exact) / np.abs(exact)
    last = len(exact) // 10 or 1
    return {
        "updates": updates,
        "largest": float(relative.max()),
        "mean": float(relative.mean()),
        "last_tenth": float(abs(losses[-last:].mean() / exact[-last:].mean() - 1)),
    }


def _losses(
    task: Finding, device: torch.device, folder: Path, updates: int, exact: bool = True
) -> Iterator[list[float]]:
    """The losses of the first updates of a trial without dropout; `exact` in float32 all through.

    Yields all so far after every `task["every"]` updates, and at the end; only then torch's options are as before.
    """
    real, tf32 = forward.computes_in_bfloat16, torch.backends.cudnn.allow_tf32
    if exact or task["tiny"]:  # it turns our autocast off, and on a CPU on
        forward.computes_in_bfloat16 = lambda device: not exact
    if exact:
        torch.backends.cudnn.allow_tf32 = False
    length_s = 1.1 * task["updates"] * task["batch_s"]
    config = replace(_recipe(task), activation_dropout=0.0, lr_peak=task["lr_peak"], length_s=length_s)
    split = bench.MadeUpSplit(task["utterances"])
    found: list[float] = []
    before = 0.0
    try:
        run = start(config, Data(split, bench.MadeUpSplit(4, seed=1)), _base(task), folder, device, None, None)
        if exact:
            torch.set_float32_matmul_precision("highest")  # `start` has set "high"
        for _ in range(updates):
            update(run)
            total = run.window.sums[1].item()
            found.append(total - before)
            before = total
            if len(found) % task.get("every", updates) == 0 or len(found) == updates:
                yield found[:]
        run.loader.close()
    finally:
        forward.computes_in_bfloat16, torch.backends.cudnn.allow_tf32 = real, tf32


def ranks(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """The losses of two ranks that share each batch, over gloo and on one device, against one rank's. In float32."""
    alone: list[float] = []
    if task["rank"] == 0:
        *_, alone = _losses(task, device, work / "alone", task["updates"])
        yield {"one rank": alone}
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the machine's name may lead nowhere
    dist.init_process_group(
        "gloo", init_method=f"file://{task['store']}", rank=task["rank"], world_size=2, timeout=timedelta(seconds=90)
    )
    try:
        started = time.monotonic()
        *_, together = _losses(task, device, work / "together", task["updates"])
        seconds = time.monotonic() - started
    finally:
        dist.destroy_process_group()
    yield {"two ranks": together, "seconds": seconds}
    if alone:
        yield {"two ranks against one": _difference(together, alone)}


def small_worker(task: Finding, device: torch.device, work: Path) -> Iterator[Finding]:
    """Train the demo model, for each line of standard input (`cuda 12`) on that device for that many seconds."""
    config = replace(_recipe(task), batch_s=task["batch_s"], micro_batch_s=80.0, activation_dropout=0.1)
    runs: dict[str, Run] = {}
    for name in dict.fromkeys([device.type, "cpu"]):
        data = Data(bench.MadeUpSplit(task["utterances"]), bench.MadeUpSplit(8 if task["tiny"] else 32, seed=1))
        runs[name] = start(config, data, "demo", work / name, torch.device(name), None, None)
        for _ in range(3 if name == "cpu" else 10):
            update(runs[name])
        wait(device)
    yield {"ready": True}
    for line in sys.stdin:
        if line.strip() == "end":
            break
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
    "bases": save_bases,
    "machine": machine,
    "step": step_row,
    "presets": preset,
    "resume": resume,
    "compile": compiled,
    "precision": precision,
    "ranks": ranks,
    "small": small_worker,
}

if __name__ == "__main__":
    serve()

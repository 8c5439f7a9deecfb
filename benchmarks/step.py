"""The training step: ours against the Hugging Face Trainer, in real (unpadded) seconds of audio per second.

    python benchmarks/step.py [--json FILE]

With the demo model on the CPU, and on a GPU, if there is one, also with XLS-R 300M and wav2vec2-base.

Method. All rows train the same model on the same made-up utterances (lengths as in Common Voice Hausa) with the same
seconds of audio per update, frozen convolutions, the same masks' settings and the same precision (bfloat16 autocast on
a GPU, float32 on a CPU). Each row has a process of its own; its first updates are not counted; its speed is the audio
of the counted updates, without padding, over their wall-clock time, everything included that a step needs: reading,
collating, forward, backward, clipping, optimizer. Rows are run in turn, `--rounds` times, and the median counts.

The peer is the Trainer as `transformers`' CTC example uses it: random batches of a fixed number of clips, padded to
their longest. Where `accelerate` is not installed the Trainer refuses to start, and its loop is spelled out instead
(same sampler, collator, forward pass, AdamW, clipping); `--peer loop` does that anyway, so that both can be compared.

The rows below it show where the speed comes from. `Trainer, by length` groups clips of like length;
`ours, its batches` is our step on the Trainer's random batches, without buckets and without the feature cache;
`ours` is as shipped. The second table takes one thing at a time away from that.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench
import numpy as np
import torch
from trainer_peer import loop, recipe, timed, trainer, wait

from hausa_asr.model.batch import PAD_UNIT
from hausa_asr.training.one_update import update
from hausa_asr.training.run import Data, start
from hausa_asr.training.updates import UpdatePlan

GFLOP_PER_AUDIO_S = {"xlsr-300m": 105.4, "base": 34.6}
"""Forward and backward with frozen convolutions, counted with torch's FlopCounterMode on 10 s clips."""
TRICKS = {
    "ours": {},
    "without the feature cache": {"cache": False},
    "without buckets": {"buckets": False},
    "with each batch padded to its longest": {"edges": False},
    "with torch.compile": {"compile": "on"},
}


class ItsBatches(UpdatePlan):
    """The Trainer's batches: a fixed number of clips at random, padded to the longest, or to one of a few lengths."""

    def __init__(self, n_samples: np.ndarray, clips: int, length_s: float, seed: int, edges: bool) -> None:
        self._clips, self._fixed = clips, edges
        super().__init__(n_samples, clips * bench.MEAN_S, length_s, seed)
        if not edges:
            self.edges = _all_lengths(n_samples)

    def _make_epoch(self, epoch: int) -> list[np.ndarray]:
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._n_samples))
        return [order[i : i + self._clips] for i in range(0, len(order) - self._clips + 1, self._clips)]


def _all_lengths(n_samples: np.ndarray) -> np.ndarray:
    return np.unique(-(-n_samples // (PAD_UNIT * 40)) * (PAD_UNIT * 40))


def ours(task: dict[str, Any], device: torch.device, base: str, work: Path) -> dict[str, float]:
    """Our step, as shipped or with something taken away."""
    config = recipe(task)
    split = bench.MadeUpSplit(task["utterances"])
    if not task.get("cache", True):
        config = replace(config, feature_cache="off")
    dev = bench.MadeUpSplit(8, seed=1)
    run = start(config, Data(split, dev, "made-up"), base, work / "trial", device, None, work / "cache")
    n_samples = np.asarray(split.n_samples)
    if not task.get("buckets", True):
        run.plan = ItsBatches(n_samples, task["clips"], config.length_s, 0, edges=task.get("edges", True))
    elif not task.get("edges", True):
        run.plan.edges = _all_lengths(n_samples)
    run.loader._plan = run.plan
    found = timed(task, device, lambda: update(run), lambda: run.plan.seen_s[run.step])
    return {**found, "padded_lengths": len(run.plan.edges)}


def matrix_rate(device: torch.device) -> float:
    """TFLOP/s of large bfloat16 matrix products on this chip, the best of several sizes."""
    best = 0.0
    for size in (4096, 8192, 16_384):
        one = torch.randn(size, size, device=device, dtype=torch.bfloat16)
        for _ in range(3):
            one @ one
        wait(device)
        started, repeats = time.monotonic(), 30
        for _ in range(repeats):
            one @ one
        wait(device)
        best = max(best, 2 * size**3 * repeats / (time.monotonic() - started) / 1e12)
    return best


ROWS: dict[str, Callable[..., dict[str, float]]] = {"ours": ours, "trainer": trainer, "loop": loop}


def main() -> None:
    """Run all rows and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["demo", "base", "xlsr-300m"], help="only this one")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="only this one")
    parser.add_argument("--clips", type=int, default=32, help="clips per update, 4.35 s each on average (32)")
    parser.add_argument("--updates", type=int, help="updates that are counted, in each row and round")
    parser.add_argument("--rounds", type=int, default=2, help="times that each row is run; the median counts")
    parser.add_argument("--threads", type=int, default=2, help="on a CPU")
    parser.add_argument("--peer", choices=["auto", "trainer", "loop"], default="auto")
    parser.add_argument("--no-tricks", action="store_true", help="leave out the second table")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        run_task(json.loads(given.task))
        return
    peer = given.peer
    if peer == "auto":
        from transformers.utils import is_accelerate_available

        peer = "trainer" if is_accelerate_available() else "loop"
    pairs = [("cpu", "demo")] + [("cuda", name) for name in ("xlsr-300m", "base") if torch.cuda.is_available()]
    if given.model or given.device:
        device = given.device or ("cpu" if given.model == "demo" or not torch.cuda.is_available() else "cuda")
        pairs = [(device, given.model or ("xlsr-300m" if device == "cuda" else "demo"))]
    figures: dict[str, Any] = {"cpu_ratio": None, "gpu_ratio": None, "gpu_share_of_peak": None, "peer": peer}
    for device, model in pairs:
        found = measure(given, device, model, peer)
        figures[f"{device} {model}"] = found
        if device == "cpu":
            figures["cpu_ratio"] = found["ratio"]
        elif figures["gpu_ratio"] is None:
            figures["gpu_ratio"], figures["gpu_share_of_peak"] = found["ratio"], found["share_of_peak"]
        bench.write(given.json, figures)


def measure(given: argparse.Namespace, device: str, model: str, peer: str) -> dict[str, Any]:
    """All rows of one model on one device: prints their tables and returns their figures."""
    gpu = device == "cuda"
    main_rows = {
        "Trainer": {"row": peer},
        "Trainer, by length": {"row": peer, "by_length": True},
        "ours, its batches, no cache": {"row": "ours", "cache": False, "buckets": False, "edges": False},
        "ours": {"row": "ours"},
    }
    left_out = {"ours"}
    tricks = {name: {"row": "ours", **what} for name, what in TRICKS.items() if name not in left_out}
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        task = {
            "model": model,
            "device": device,
            "base": bench.save_base(model, Path(folder)),
            "threads": given.threads,
            "clips": given.clips,
            "batch_s": given.clips * bench.MEAN_S,
            "micro_batch_s": given.clips * bench.MEAN_S * 1.2,
            "updates": given.updates or (60 if gpu else 12),
            "warm_up": 20 if gpu else 5,
            "utterances": max(1000, given.clips * 20),
        }
        for number in range(given.rounds):
            for name, what in {**main_rows, **({} if given.no_tricks else tricks)}.items():
                found.setdefault(name, []).append(bench.in_own_process(__file__, {**task, **what}, given.threads))
                print(f"round {number + 1}: {name}: {found[name][-1]['audio_s_per_s']:.0f} audio-s/s", flush=True)
        rate = bench.in_own_process(__file__, {**task, "row": "rate"})["tflops"] if gpu else None
    print(report(task, peer, found, list(main_rows), [] if given.no_tricks else list(tricks), rate), flush=True)
    middle = {name: statistics.median(one["audio_s_per_s"] for one in runs) for name, runs in found.items()}
    flops = GFLOP_PER_AUDIO_S.get(model)
    return {
        "ratio": middle["ours"] / middle["Trainer"],
        "share_of_peak": middle["ours"] * flops / 1e3 / rate if rate and flops else None,
        "matrix_tflops": rate,
        "clips_per_update": given.clips,
        "audio_s_per_s": middle,
        "peak_gib": {name: max(one["peak_gib"] for one in runs) for name, runs in found.items()},
        "runs": found,
    }


def run_task(task: dict[str, Any]) -> None:
    """One row, in its own process."""
    device = torch.device(task["device"])
    torch.set_num_threads(task["threads"])
    if task["row"] == "rate":
        print(json.dumps({"tflops": matrix_rate(device)}))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(ROWS[task["row"]](task, device, task["base"], Path(folder))))


def report(
    task: dict[str, Any],
    peer: str,
    found: dict[str, list[dict[str, float]]],
    main_rows: list[str],
    tricks: list[str],
    rate: float | None,
) -> str:
    """Both tables as text."""
    middle = {name: statistics.median(one["audio_s_per_s"] for one in runs) for name, runs in found.items()}

    def row(name: str, against: str) -> list[str]:
        speeds = [one["audio_s_per_s"] for one in found[name]]
        share = ""
        if rate and task["model"] in GFLOP_PER_AUDIO_S:
            share = f"{middle[name] * GFLOP_PER_AUDIO_S[task['model']] / 1e3 / rate:.1%}"
        return [
            name,
            f"{middle[name]:.0f}",
            f"{min(speeds):.0f}-{max(speeds):.0f}",
            f"{middle[name] / middle[against]:.2f}",
            f"{max(one['peak_gib'] for one in found[name]):.2f}",
            share,
        ]

    headings = ["", "audio-s/s", "range", "ratio", "peak GiB", "of the matrix rate"]
    device = torch.device(task["device"])
    lines = [
        f"{task['model']} on {bench.machine(device)}; {task['clips']} clips, about {task['batch_s']:.0f} s per update",
        "peer: the Trainer" if peer == "trainer" else "peer: the Trainer's loop, spelled out",
        *([f"matrix rate: {rate:.0f} TFLOP/s in bfloat16"] if rate else []),
        "",
        bench.table(headings, [row(name, "Trainer") for name in main_rows]),
    ]
    if tricks:
        lines += ["", "What each trick brings (ratio to ours as shipped):", ""]
        lines.append(bench.table(headings, [row(name, "ours") for name in ["ours", *tricks]]))
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""One rank against two with the same global batch: the same losses, and how much faster.

    python benchmarks/scaling.py [--json FILE]

Method. `finetune` runs the same recipe (dropout and layerdrop 0) for the same updates on one rank and on two, each with
`--threads` CPU threads per rank, or one GPU per rank where there are two; the second over gloo or NCCL. Speed is the
audio trained on over the wall-clock time of the updates after the first report, evaluations left out.
`loss_difference` is the largest relative difference of the train and dev losses that were reported by both; the two add
up the same numbers in another order. On CPUs two ranks of one thread share the cores with nothing else, so that the
ratio says what the cutting and the messages cost; one rank has one thread too.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import bench
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hausa_asr.recipe import Answer, FinetuneConfig, Progress
from hausa_asr.training.finetune import Data, finetune


def rank_main(rank: int, world: int, port: int, task: dict[str, Any], folder: str) -> None:
    """One rank."""
    torch.set_num_threads(task["threads"])
    device = torch.device("cpu")
    if task["device"] == "cuda":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    if world > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
        dist.init_process_group("nccl" if task["device"] == "cuda" else "gloo")
    batch_s, every = task["batch_s"], task["updates"] // 4
    recipe = FinetuneConfig(
        length_s=batch_s * task["updates"],
        batch_s=batch_s,
        micro_batch_s=batch_s / 2,  # so that one rank accumulates over as many parts as two ranks have
        eval_every_steps=every,
        activation_dropout=0.0,
        mask_feature_length=16 if task["model"] == "demo" else 64,
    )
    reports: list[dict[str, float]] = []

    def report(progress: Progress) -> Answer:
        reports.append({"step": progress.step, "seen_s": progress.seen_s, **progress.metrics})
        return Answer.CONTINUE

    data = Data(bench.MadeUpSplit(task["utterances"]), bench.MadeUpSplit(32, seed=1), "made-up")
    finetune(recipe, data, report, base=task["base"], folder=Path(folder) / "trial", device=device,
             cache=Path(folder) / "cache")  # fmt: skip
    if rank == 0:
        (Path(folder) / "reports.json").write_text(json.dumps(reports))
    if world > 1:
        dist.destroy_process_group()


def run(world: int, task: dict[str, Any]) -> list[dict[str, float]]:
    """The reports of a fine-tune on `world` ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank_main, args=(world, port, task, folder), nprocs=world)
        return json.loads((Path(folder) / "reports.json").read_text())


def speed(reports: list[dict[str, float]]) -> float:
    """Seconds of audio per second after the first report, which also warms the process up."""
    audio = [after["seen_s"] - before["seen_s"] for before, after in pairwise(reports)]
    return sum(audio) / sum(a / one["audio_s_per_s"] for a, one in zip(audio, reports[1:], strict=True))


def main() -> None:
    """Run both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["demo", "xlsr-300m"], help="demo on a CPU, else xlsr-300m")
    parser.add_argument("--clips", type=int, default=32, help="clips per update, over all ranks (32)")
    parser.add_argument("--updates", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    kind = "cuda" if torch.cuda.device_count() >= 2 else "cpu"
    model = given.model or ("xlsr-300m" if kind == "cuda" else "demo")
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    runs: dict[int, list[list[dict[str, float]]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        task = {
            "model": model,
            "base": bench.save_base(model, Path(folder)),
            "device": kind,
            "threads": given.threads,
            "batch_s": given.clips * bench.MEAN_S,
            "updates": given.updates,
            "utterances": 600,
        }
        for number in range(given.rounds):
            for world in (1, 2):
                runs[world].append(run(world, task))
                print(f"round {number + 1}, ranks {world}: {speed(runs[world][-1]):.0f} audio-s/s", flush=True)
    difference = max(
        abs(one[name] - two[name]) / abs(one[name])
        for one, two in zip(runs[1][0], runs[2][0], strict=True)
        for name in ("train_loss", "loss")
    )
    speeds = {world: statistics.median(speed(reports) for reports in runs[world]) for world in runs}
    print(f"\n{model} on {bench.machine(torch.device(kind if kind == 'cpu' else 'cuda:0'))}; "
          f"{given.clips} clips per update, {given.threads} thread(s) a rank\n")  # fmt: skip
    rows = [
        [str(world), f"{speeds[world]:.0f}", f"{speeds[world] / speeds[1]:.2f}", f"{reports[0][-1]['loss']:.6f}"]
        for world, reports in runs.items()
    ]
    print(bench.table(["ranks", "audio-s/s", "ratio", "last dev loss"], rows))
    print(f"\nlargest relative difference of a loss: {difference:.1e}")
    bench.write(
        given.json,
        {
            "loss_difference": difference,
            "speed_ratio": speeds[2] / speeds[1],
            "model": model,
            "device": kind,
            "audio_s_per_s": {str(world): speeds[world] for world in speeds},
        },
    )


if __name__ == "__main__":
    main()

"""The feature cache: the same trials with it and without it.

    python benchmarks/cache.py [--model demo|xlsr-300m] [--json FILE]

Method. A layer-norm checkpoint with frozen convolutions is fine-tuned on made-up speech of Common Voice-like lengths by
`finetune` itself, once with an empty cache and once without one, each in a process of its own, in turn, `--rounds`
times; the median counts. An epoch's time is the wall-clock time of the updates that it takes, evaluations left out.
`step_ratio` is a later epoch's time without the cache over that with it. The first trial also pays for the cache, the
first use of which computes all features; so `sweep_ratio` compares whole sweeps of `--trials` trials: the time of so
many trials without the cache, over that of the making, once, and as many trials with it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import bench
import torch

from hausa_asr.model.feature_cache import cached
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.recipe import Answer, FinetuneConfig, Progress
from hausa_asr.training.finetune import Data, finetune
from hausa_asr.utterance import SAMPLE_RATE


def trial(task: dict[str, Any], device: torch.device, work: Path) -> dict[str, Any]:
    """One trial of some epochs, reported at the end of each."""
    train, dev = bench.MadeUpSplit(task["utterances"]), bench.MadeUpSplit(8, seed=1)
    hours = float(train.n_samples.sum()) / SAMPLE_RATE / 3600
    cache, making_s = None, 0.0
    if task["cache"]:
        cache = work / "cache"
        started = time.monotonic()
        model, processor = new_model(task["base"], FinetuneConfig())
        model.to(device)  # type: ignore[arg-type]
        cached({"train": train, "dev": dev}, "made-up", model, processor, cache, device)
        making_s = time.monotonic() - started
        del model
    batch_s = task["batch_s"]
    updates = max(1, round(hours * 3600 / batch_s))  # of an epoch
    recipe = FinetuneConfig(
        length_s=hours * 3600 * task["epochs"] - 1,
        batch_s=batch_s,
        micro_batch_s=batch_s * 1.2,
        eval_every_steps=updates,
        mask_feature_length=16 if task["model"] == "demo" else 64,
    )
    reports: list[Progress] = []
    bytes_read = sum(file.stat().st_size for file in work.rglob("*.bf16"))

    def report(progress: Progress) -> Answer:
        reports.append(progress)
        return Answer.CONTINUE

    data = Data(train, dev, "made-up")
    finetune(recipe, data, report, base=task["base"], folder=work / "trial", device=device, cache=cache)
    seen = [0.0, *(one.seen_s for one in reports)]
    epochs = [(b - a) / one.metrics["audio_s_per_s"] for a, b, one in zip(seen, seen[1:], reports, strict=False)]
    return {
        "epoch_s": epochs,
        "making_s": making_s,
        "cache_mib": bytes_read / 2**20,
        "audio_s": seen[-1],
        "train_loss": reports[-1].metrics["train_loss"],
        "peak_gib": bench.peak_gib(device),
    }


def main() -> None:
    """Run both and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["demo", "xlsr-300m"], help="demo on a CPU, else xlsr-300m")
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--clips", type=int, default=32, help="clips per update (32)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs per trial (3)")
    parser.add_argument("--trials", type=int, default=10, help="trials of the sweep that is compared (10)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="on a CPU")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        task = json.loads(given.task)
        torch.set_num_threads(task["threads"])
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(trial(task, torch.device(task["device"]), Path(folder))))
        return
    kind = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = given.model or ("xlsr-300m" if kind == "cuda" else "demo")
    found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        task = {
            "model": model,
            "base": bench.save_base(model, Path(folder)),
            "device": kind,
            "threads": given.threads,
            "batch_s": given.clips * bench.MEAN_S,
            "epochs": given.epochs,
            "utterances": 2000 if kind == "cuda" else 400,
        }
        for number in range(given.rounds):
            for cache in (False, True):
                found[cache].append(bench.in_own_process(__file__, {**task, "cache": cache}, given.threads))
                seconds = " ".join(f"{one:.1f}" for one in found[cache][-1]["epoch_s"])
                print(f"round {number + 1}, {'with' if cache else 'without'} the cache: epochs {seconds} s", flush=True)

    def median(cache: bool, pick: Any) -> float:
        return statistics.median(pick(one) for one in found[cache])

    making = median(True, lambda one: one["making_s"])
    # The first epoch of a process also warms it up.
    without, with_it = (median(c, lambda one: statistics.median(one["epoch_s"][1:] or one["epoch_s"])) for c in (0, 1))
    whole = {c: median(bool(c), lambda one: sum(one["epoch_s"])) for c in (0, 1)}

    def sweep(trials: int) -> float:
        return trials * whole[0] / (making + trials * whole[1])

    print(
        f"\n{model} on {bench.machine(torch.device(kind))}; {task['utterances']} clips, {given.epochs} epochs a trial\n"
    )
    rows = [
        ["without", f"{without:.2f}", "", ""],
        ["with", f"{with_it:.2f}", f"{making:.2f}", f"{without / with_it:.2f}"],
    ]
    print(bench.table(["cache", "s per epoch", "s to make it", "ratio"], rows))
    counts = sorted({1, 2, 5, given.trials, 40})
    print("\nby trials:\n")
    print(bench.table(["trials", *map(str, counts)], [["ratio", *(f"{sweep(count):.2f}" for count in counts)]]))
    epochs = sorted({1, 2, 5, given.epochs, 20, 50})
    one_trial = [f"{count * without / (making + count * with_it):.2f}" for count in epochs]
    print("\none trial, by epochs:\n")
    print(bench.table(["epochs", *map(str, epochs)], [["ratio", *one_trial]]))
    losses = [median(cache, lambda one: one["train_loss"]) for cache in (False, True)]
    print(f"\nthe cache: {median(True, lambda one: one['cache_mib']):.0f} MiB")
    print(f"last train loss without it {losses[0]:.4f}, with it {losses[1]:.4f}")
    bench.write(
        given.json,
        {
            "step_ratio": without / with_it,
            "sweep_ratio": sweep(given.trials),
            "trials": given.trials,
            "epochs": given.epochs,
            "making_s": making,
            "model": model,
            "device": kind,
            "runs": {"without": found[False], "with": found[True]},
        },
    )


if __name__ == "__main__":
    main()

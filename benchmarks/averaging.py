"""What a moving average of the weights does to WER and to its spread over seeds: `finetune.ema_fraction` on the demo.

    python benchmarks/averaging.py [--fraction 0.02 --fraction 0.05 ...] [--set NAME=VALUE]... [--seeds 5] [--json FILE]

Method. The demo's speech and fine-tune (`--set` changes it), each seed without an average and with each fraction.
Training is the same in all of them, since the average only replaces the weights that are scored. Each run is a process
of its own with one thread, two side by side. Printed: WER on dev at the end and at the best checkpoint, and on test at
that one, as mean and standard deviation over seeds; then the difference to no average on the same seeds, with its
standard error. Dev chooses the checkpoint; test takes no part.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench
import torch

from hausa_asr.dataset.from_settings import CACHE, prepared_dataset
from hausa_asr.model.evaluate import evaluate
from hausa_asr.recipe import Answer, Progress
from hausa_asr.settings.load import load, make_absolute
from hausa_asr.training import checkpoint
from hausa_asr.training.finetune import Data, finetune

DEMO = bench.ROOT / "sweeps/configs/demo.yaml"
FIGURES = ("dev, end", "dev, best", "test")


def one(task: dict[str, Any]) -> dict[str, float]:
    """One fine-tune."""
    torch.set_num_threads(1)
    config = make_absolute(load(DEMO, task["changes"], environment={}), in_job=False)
    prepared = prepared_dataset(config.data, Path(config.storage) / CACHE)
    reports: list[Progress] = []

    def report(progress: Progress) -> Answer:
        reports.append(progress)
        return Answer.CONTINUE

    with tempfile.TemporaryDirectory(prefix="hausa-asr-averaging-") as folder:
        recipe = replace(config.recipe(), seed=task["seed"], ema_fraction=task["fraction"])
        data = Data(prepared.splits["train"], prepared.splits["dev"], prepared.fingerprint)
        cache = Path(config.storage) / CACHE / "features"
        result = finetune(recipe, data, report, base=config.model.base, folder=Path(folder) / "trial", cache=cache)
        model, processor = checkpoint.load(result.progress.best_checkpoint)
        test = evaluate(model, processor, prepared.splits["test"]).wer
    return dict(zip(FIGURES, (reports[-1].metrics["wer"], reports[-1].best["wer"], test), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, action="append", help="of the updates; repeat it (0.02 0.05 0.1)")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="NAME=VALUE", help="a setting")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds (5)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        print(json.dumps(one(json.loads(given.task))))
        return
    fractions = [0.0, *(given.fraction or (0.02, 0.05, 0.1))]
    tasks = [
        {"seed": seed, "fraction": fraction, "changes": given.changes}
        for seed in range(given.seeds)
        for fraction in fractions
    ]
    config = make_absolute(load(DEMO, given.changes, environment={}), in_job=False)
    prepared_dataset(config.data, Path(config.storage) / CACHE)  # once, before there are two of them
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda task: bench.in_own_process(__file__, task, 1), tasks))
    by = {
        fraction: [scores for task, scores in zip(tasks, found, strict=True) if task["fraction"] == fraction]
        for fraction in fractions
    }
    rows = []
    for fraction, runs in by.items():
        cells = []
        for name in FIGURES:
            values = [scores[name] for scores in runs]
            less = [scores[name] - plain[name] for scores, plain in zip(runs, by[0.0], strict=True)]
            spread = statistics.stdev(less) / len(less) ** 0.5 if len(less) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.4f} ({statistics.pstdev(values):.4f})")
            cells.append(f"{statistics.mean(less):+.4f} ±{spread:.4f}" if fraction else "")
        rows.append([f"{fraction:g}" if fraction else "no average", *cells])
    heads = [head for name in FIGURES for head in (f"{name} (sd)", "difference")]
    print(bench.table(["fraction", *heads], rows))
    bench.write(given.json, {"machine": bench.machine(torch.device("cpu")), "runs": found, "tasks": tasks})


if __name__ == "__main__":
    main()

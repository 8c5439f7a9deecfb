"""What averaging the weights does to WER and to its spread over seeds, on the demo.

    python benchmarks/averaging.py [--fraction 0.02 --fraction 0.05 ...] [--of 3 --of 5 ...] [--set NAME=VALUE]...
        [--seeds 5] [--json FILE]

Two ways: a moving average of all updates (`finetune.ema_fraction`), and with `--of K` the plain mean of the last K
checkpoints and of the K best on dev, as `finetune.average` makes. For those `--set finetune.eval_every_steps=...`
makes checkpoints that lie close together.

Method. The demo's speech and fine-tune (`--set` changes it), each seed without an average and with each fraction.
Training is the same in all of them, since the average only replaces the weights that are scored; checkpoints are taken
from the run without one. Each run is a process of its own with one thread, two side by side. Printed: WER on dev at the
end and at the best checkpoint, and on test at that one, as mean and standard deviation over seeds; then the difference
to no average on the same seeds, with its standard error. A mean of K checkpoints is one model, and has one WER on dev.
Dev chooses the checkpoint; test takes no part.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench
import torch

from hausa_asr.dataset.from_settings import prepared_dataset
from hausa_asr.model.evaluate import evaluate
from hausa_asr.recipe import CACHE, Answer, Progress, order, step_folder
from hausa_asr.settings.load import load, make_absolute
from hausa_asr.training import checkpoint
from hausa_asr.training.finetune import Data, finetune
from hausa_asr.training.soup import average

DEMO = bench.ROOT / "sweeps/configs/demo.yaml"
FIGURES = ("dev, end", "dev, best", "test")


Scores = dict[str, float]
"""By each of `FIGURES`."""
PLAIN = "no average"


def one(task: dict[str, Any]) -> dict[str, Scores]:
    """One fine-tune, and the means of its checkpoints, by what they are called."""
    torch.set_num_threads(1)
    config = make_absolute(load(DEMO, task["changes"], environment={}), in_job=False)
    prepared = prepared_dataset(config.data, Path(config.storage) / CACHE)
    reports: list[Progress] = []

    with tempfile.TemporaryDirectory(prefix="hausa-asr-averaging-") as name:
        trial, kept = Path(name) / "trial", Path(name) / "kept"

        def report(progress: Progress) -> Answer:
            reports.append(progress)
            if task["of"]:
                written = step_folder(trial, progress.step)
                while not (written / "progress.json").is_file():  # while training goes on
                    time.sleep(0.05)
                shutil.copytree(written, kept / written.name)
            return Answer.CONTINUE

        recipe = replace(config.recipe(), seed=task["seed"], ema_fraction=task["fraction"])
        if task["of"]:
            recipe = replace(recipe, checkpoint_every_s=0.0)  # its state makes a checkpoint of every evaluation
        data = Data(prepared.splits["train"], prepared.splits["dev"], prepared.fingerprint)
        cache = Path(config.storage) / CACHE / "features"
        result = finetune(recipe, data, report, base=config.model.base, folder=trial, cache=cache)
        model, processor = checkpoint.load(result.progress.best_checkpoint)
        test = evaluate(model, processor, prepared.splits["test"]).wer
        scores = reports[-1].metrics["wer"], reports[-1].best["wer"], test
        found = {task["name"]: dict(zip(FIGURES, scores, strict=True))}
        best_first = sorted(reports, key=lambda progress: order(progress.metrics))
        if task["of"] and max(task["of"]) > len(reports):
            raise SystemExit(f"--of {max(task['of'])}: a fine-tune has {len(reports)} checkpoints")
        for count in task["of"]:
            for what, chosen in (("last", reports[::-1]), ("best", best_first)):
                members = [step_folder(kept, progress.step) for progress in chosen[:count]]
                model, processor = average(members, base=config.model.base)
                dev, test = (evaluate(model, processor, prepared.splits[split]).wer for split in ("dev", "test"))
                found[f"{what} {count}"] = dict(zip(FIGURES, (dev, dev, test), strict=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, action="append", help="of the updates; repeat it (0.02 0.05 0.1)")
    parser.add_argument("--of", type=int, action="append", default=[], help="checkpoints; repeat it (none)")
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
        {
            "seed": seed, "fraction": fraction, "changes": given.changes, "of": [] if fraction else given.of,
            "name": f"{fraction:g}" if fraction else PLAIN,
        }
        for seed in range(given.seeds)
        for fraction in fractions
    ]  # fmt: skip
    config = make_absolute(load(DEMO, given.changes, environment={}), in_job=False)
    prepared_dataset(config.data, Path(config.storage) / CACHE)  # once, before there are two of them
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda task: bench.in_own_process(__file__, task, 1), tasks))
    by: dict[str, list[Scores]] = {}
    for one_run in found:
        for name, scores in one_run.items():
            by.setdefault(name, []).append(scores)
    rows = []
    for name, runs in by.items():
        row = [name]
        for figure in FIGURES:
            values = [scores[figure] for scores in runs]
            less = [scores[figure] - plain[figure] for scores, plain in zip(runs, by[PLAIN], strict=True)]
            spread = statistics.stdev(less) / len(less) ** 0.5 if len(less) > 1 else 0.0
            row.append(f"{statistics.mean(values):.4f} ({statistics.pstdev(values):.4f})")
            row.append(f"{statistics.mean(less):+.4f} ±{spread:.4f}" if name != PLAIN else "")
        rows.append(row)
    heads = [head for figure in FIGURES for head in (f"{figure} (sd)", "difference")]
    print(bench.table(["average of", *heads], rows))
    bench.write(given.json, {"machine": bench.machine(torch.device("cpu")), "runs": found, "tasks": tasks})


if __name__ == "__main__":
    main()

"""Complete learning curves of real fine-tunes, on which `python -m sweeps.replay` compares pruning rules.

    python benchmarks/record_curves.py [--count 60] [--seeded 10] [--workers 2]

Method. Settings number 0 is the baseline of `--config`; all others are drawn at random from its space, number by
number, so that more of them can be had later without changing those there are. Each is trained by `finetune` itself to
its full length, without pruning, and evaluated on dev every `--every` updates, oftener than a sweep would. The first
`--seeded` are trained on seeds 0, 1 and 2, all others on seed 0. Every finished curve is appended to `--out` at once,
one JSON object a line; the command goes on where it stopped.

A line: `number`, `seed`, `source`, `settings`, `recipe` (what pruning depends on), `end` (finished, diverged), `points`
(columns `step`, `seen_s`, `loss`, `cer`, `wer`, `train_s` and `eval_s`, the last two cumulative seconds), `wer_se` (the
standard error of the best WER over dev's utterances) and `dev_words`.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bench
import optuna
import torch

from hausa_asr.dataset.from_settings import CACHE, FEATURES, prepared_dataset
from hausa_asr.dataset.prepare import load_prepared
from hausa_asr.metrics import word_counts
from hausa_asr.model.evaluate import evaluate
from hausa_asr.recipe import Answer, FinetuneConfig, Progress
from hausa_asr.settings.load import load, make_absolute
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.training import checkpoint
from hausa_asr.training.finetune import Data, finetune
from sweeps.sampling.space import propose

COLUMNS = ("loss", "cer", "wer")


def settings_of(config: SweepConfig, number: int) -> dict[str, Any]:
    """The settings of one number; the same ones always."""
    if number == 0:
        return dict(config.baseline)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
    return propose(config.space, study.ask())


def record(task: dict[str, Any]) -> dict[str, Any]:
    """Train one of them; its curve."""
    torch.set_num_threads(1)
    prepared = load_prepared(task["prepared"])
    recipe = FinetuneConfig(**task["recipe"])
    points: dict[str, list[float]] = {name: [] for name in ("step", "seen_s", *COLUMNS, "train_s", "eval_s")}

    def report(progress: Progress) -> Answer:
        figures = progress.metrics
        before = {name: points[name][-1] if points[name] else 0.0 for name in ("seen_s", "train_s", "eval_s")}
        points["step"].append(progress.step)
        points["seen_s"].append(round(progress.seen_s, 1))
        for name in COLUMNS:
            points[name].append(round(figures[name], 5) if math.isfinite(figures[name]) else 1e9)
        window_s = (progress.seen_s - before["seen_s"]) / figures["audio_s_per_s"]
        points["train_s"].append(round(before["train_s"] + window_s, 2))
        points["eval_s"].append(round(before["eval_s"] + figures["eval_runtime_s"], 2))
        return Answer.CONTINUE

    folder = Path(tempfile.mkdtemp(prefix="hausa-asr-curve-"))
    try:
        data = Data(prepared.splits["train"], prepared.splits["dev"], prepared.fingerprint)
        cache = Path(task["cache"])
        result = finetune(recipe, data, report, base=task["base"], folder=folder / "trial", cache=cache)
        best = checkpoint.best(folder / "trial")
        assert best is not None
        model, processor = checkpoint.load(best.folder)
        scores = evaluate(model, processor, prepared.splits["dev"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    counts = [word_counts([r], [h]) for r, h in zip(scores.references, scores.hypotheses, strict=True)]
    words = sum(one.reference_length for one in counts)
    rate = sum(one.errors for one in counts) / words
    spread = math.sqrt(sum((one.errors - rate * one.reference_length) ** 2 for one in counts)) / words
    kept = ("length_s", "batch_s", "warmup_fraction", "freeze_transformer_fraction", "unfreeze")
    return {
        "number": task["number"],
        "seed": recipe.seed,
        "source": "baseline" if task["number"] == 0 else "random",
        "settings": task["settings"],
        "recipe": {name: getattr(recipe, name) for name in kept},
        "end": result.end,
        "wer_se": round(spread, 5),
        "dev_words": words,
        "points": points,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=bench.ROOT / "sweeps/configs/demo.yaml")
    parser.add_argument("--count", type=int, default=60, help="how many settings")
    parser.add_argument("--seeded", type=int, default=10, help="how many of them are trained on three seeds")
    parser.add_argument("--every", type=int, default=20, help="updates between two evaluations")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2)), help="trials side by side")
    parser.add_argument("--out", type=Path, default=bench.ROOT / "benchmarks/curves/demo.jsonl")
    chosen = parser.parse_args()
    config = make_absolute(load(chosen.config), in_job=False)
    prepared = prepared_dataset(config.data, Path(config.storage) / CACHE)
    wanted = [(number, 0) for number in range(chosen.count)]
    wanted += [(number, seed) for seed in (1, 2) for number in range(min(chosen.seeded, chosen.count))]
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    lines = chosen.out.read_text(encoding="utf-8").splitlines() if chosen.out.is_file() else []
    known = {(one["number"], one["seed"]) for one in map(json.loads, lines)}
    left = [one for one in wanted if one not in known]
    print(f"{len(wanted) - len(left)} of {len(wanted)} curves are there, {len(left)} to go", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(chosen.workers, mp_context=context) as pool:
        asked = {}
        for number, seed in left:
            settings = settings_of(config, number)
            recipe = config.recipe({**settings, "seed": seed, "eval_every_steps": chosen.every})
            task = {
                "number": number,
                "settings": settings,
                "recipe": asdict(recipe),
                "base": config.model.base,
                "prepared": str(prepared.path),
                "cache": str(Path(config.storage) / CACHE / FEATURES),
            }
            asked[pool.submit(record, task)] = (number, seed)
        for done, future in enumerate(as_completed(asked), start=1):
            curve = future.result()
            with chosen.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(curve, ensure_ascii=False) + "\n")
            left_s = (time.monotonic() - started) * (len(left) / done - 1)
            print(
                f"{done}/{len(left)}  settings {curve['number']} seed {curve['seed']}: WER "
                f"{min(curve['points']['wer']):.3f} ({curve['end']}); {left_s / 60:.0f} min to go",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Complete learning curves of real fine-tunes in several worlds, on which `python -m sweeps.replay` compares rules.

    python benchmarks/record_curves.py --world demo_long [--workers 2]
    python benchmarks/record_curves.py --write-tasks TASKS --world demo_long --world big ...   then, elsewhere,
    python benchmarks/record_curves.py --tasks TASKS --speech FOLDER --out FILE --seconds 450

Method. `worlds.WORLDS` says which speech, model, space and length a world has. Settings number 0 is the baseline of its
settings; all others are drawn at random from its space, number by number, so that more of them can be had later without
changing those there are. Each is trained by `finetune` itself to its full length, without pruning, and evaluated on dev
at every thirtieth of the length, oftener than a sweep would. The first `seeded` are trained on seeds 0, 1 and 2, all
others on seed 0. Every finished curve is appended to the table at once, one JSON object a line; the command goes on
where it stopped. With `--tasks` it needs only torch, torchaudio, transformers and jiwer, so that a machine with a GPU
and nothing else of ours can do it.

A line: `world`, `kind` (full, or half, quarter, eighth: a complete schedule of that share of the length), `number`,
`seed`, `source`, `settings`, `recipe` (what pruning depends on), `end` (finished, diverged), `points` (columns `step`,
`seen_s`, `loss`, `cer`, `wer`, `train_s` and `eval_s`, the last two cumulative seconds), `wer_se` (the standard error
of the best WER over dev's utterances), `dev_words`, `device`, and perhaps `probes` (see `probe`).
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import queue
import shutil
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import bench
import numpy as np
import torch
from speech import MappedSplit
from worlds import SHORTER, WORLDS

from hausa_asr.metrics import word_counts
from hausa_asr.model.evaluate import EvalReport, evaluate
from hausa_asr.recipe import Answer, FinetuneConfig, Progress, step_folder
from hausa_asr.training import checkpoint
from hausa_asr.training.finetune import Data, finetune
from hausa_asr.training.one_update import update
from hausa_asr.training.run import start

COLUMNS = ("loss", "cer", "wer")
EVALUATIONS = 30
"""Evaluations of a trial, evenly over its length; and one at each of these shares of it, where sweeps put a rung."""
RUNGS = (0.05, 0.14)
PROBES = (0.1, 0.2, 0.35)
"""Shares of the length at which cool-down probes begin, and the share that one lasts."""
PROBE_LENGTH = 0.03
KEPT = ("length_s", "batch_s", "warmup_fraction", "freeze_transformer_fraction", "unfreeze", "schedule")  # `recipe`


def settings_of(config: Any, number: int) -> dict[str, Any]:
    """The settings of one number; the same ones always."""
    if number == 0:
        return dict(config.baseline)
    import optuna

    from sweeps.sampling.space import propose

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
    return propose(config.space, study.ask())


def tasks_of(name: str) -> list[dict[str, Any]]:
    """All fine-tunes of a world, first those of full length on seed 0."""
    from hausa_asr.settings.load import load

    world = WORLDS[name]
    config = load(world.config, list(world.changes))
    wanted = [(number, 0, "full") for number in range(world.count)]
    wanted += [(number, seed, "full") for seed in (1, 2) for number in range(world.seeded)]
    wanted += [(number, 0, kind) for kind in SHORTER for number in range(min(24, world.count))]
    tasks = []
    for number, seed, kind in wanted:
        settings = settings_of(config, number)
        recipe = config.recipe({**settings, "seed": seed, "eval_every_steps": 1_000_000})
        recipe = replace(recipe, length_s=recipe.length_s / SHORTER.get(kind, 1.0), compile="off")
        task = {"world": name, "kind": kind, "number": number, "seed": seed, "settings": settings}
        task |= {"recipe": asdict(recipe), "base": world.base, "speech": world.speech}
        tasks.append(task | {"probes": kind == "full" and seed == 0 and number < 24})
    return tasks


def key_of(one: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two lines the same fine-tune."""
    return one.get("world", "demo"), one.get("kind", "full"), one["number"], one["seed"]


def record(task: dict[str, Any], speech: Path, device: torch.device, bases: dict[str, str], until: float) -> Any:
    """Train one of them; its curve, or None if the time was up."""
    splits = {name: MappedSplit(speech / task["speech"] / f"{name}.i16") for name in ("train", "dev")}
    recipe, base = FinetuneConfig(**task["recipe"]), bases.get(task["base"], task["base"])
    recipe = replace(recipe, checkpoint_every_s=0.0)  # so none is left out
    points: dict[str, list[float]] = {name: [] for name in ("step", "seen_s", *COLUMNS, "train_s", "eval_s")}
    folder = Path(tempfile.mkdtemp(prefix="hausa-asr-curve-", dir=speech))
    probes = [share * recipe.length_s for share in PROBES] if task["probes"] else []
    set_aside: list[Path] = []
    late = False

    def report(progress: Progress) -> Answer:
        nonlocal late
        figures = progress.metrics
        before = {name: points[name][-1] if points[name] else 0.0 for name in ("seen_s", "train_s", "eval_s")}
        points["step"].append(progress.step)
        points["seen_s"].append(round(progress.seen_s, 1))
        for name in COLUMNS:
            points[name].append(round(figures[name], 5) if math.isfinite(figures[name]) else 1e9)
        window_s = (progress.seen_s - before["seen_s"]) / figures["audio_s_per_s"]
        points["train_s"].append(round(before["train_s"] + window_s, 2))
        points["eval_s"].append(round(before["eval_s"] + figures["eval_runtime_s"], 2))
        if probes and progress.seen_s >= probes[0]:
            probes.pop(0)
            set_aside.append(folder / f"probe-{len(set_aside)}")
            place = step_folder(folder / "trial", progress.step)
            until_s = time.monotonic() + 60
            while not place.is_dir() and time.monotonic() < until_s:
                time.sleep(0.05)  # it is being written
            shutil.copytree(place, set_aside[-1] / place.name)
        late = time.time() > until and not progress.last
        return Answer.STOP if late else Answer.CONTINUE

    every = [recipe.length_s * n / EVALUATIONS for n in range(1, EVALUATIONS)]
    marks = sorted({*every, *(recipe.length_s * share for share in (*RUNGS, *PROBES))})
    try:
        data = Data(splits["train"], splits["dev"], f"{task['speech']}-recorded")
        cache = speech / "features"
        result = finetune(
            recipe, data, report, base=base, folder=folder / "trial", device=device, cache=cache, evaluate_at_s=marks
        )
        if late:
            return None
        best = checkpoint.best(folder / "trial")
        assert best is not None
        model, processor = checkpoint.load(best.folder, base)
        scores = evaluate(model.to(device), processor, splits["dev"])
        if task["kind"] == "full" and task["seed"] == 0:
            kept = speech / "best" / task["world"] / f"{task['number']:03d}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(best.folder, kept / best.folder.name, ignore=shutil.ignore_patterns("training.pt"))
        probed = [probe(recipe, data, base, one, device, cache) for one in set_aside]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    curve = {name: task[name] for name in ("world", "kind", "number", "seed", "settings")}
    curve |= {"source": "baseline" if task["number"] == 0 else "random", "end": result.end, **spread(scores)}
    curve["recipe"] = {name: getattr(recipe, name) for name in KEPT}
    curve["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one thread"
    return curve | {"points": points} | ({"probes": probed} if probed else {})


def spread(scores: EvalReport) -> dict[str, Any]:
    """The standard error of a WER over the utterances of dev, and dev's words."""
    counts = [word_counts([r], [h]) for r, h in zip(scores.references, scores.hypotheses, strict=True)]
    words = sum(one.reference_length for one in counts)
    rate = sum(one.errors for one in counts) / words
    error = math.sqrt(sum((one.errors - rate * one.reference_length) ** 2 for one in counts)) / words
    return {"wer_se": round(error, 5), "dev_words": words}


def probe(
    recipe: FinetuneConfig, data: Data, base: str, trial: Path, device: torch.device, cache: Path
) -> dict[str, float]:
    """Cool down from a checkpoint: a few per cent of the length with the rate falling linearly to 0; then score dev."""
    saved = checkpoint.latest(trial)
    assert saved is not None
    run = start(recipe, data, base, trial, device, saved, cache)
    first, begun_s = run.step, float(run.plan.seen_s[run.step])
    count = max(2, round(PROBE_LENGTH * run.plan.updates))
    peak = run.optimizer.lr(first)
    run.optimizer.lr = lambda step: peak * (1.0 - (step - first) / count)  # type: ignore[method-assign]
    while run.step < min(first + count, run.plan.updates):
        update(run)
    scores = evaluate(run.model, run.processor, run.data.dev)
    figures = {name: round(float(getattr(scores, name)), 5) for name in COLUMNS}
    return {"from_s": round(begun_s, 1), "to_s": round(float(run.plan.seen_s[run.step]), 1), **figures}


def work(
    tasks: Any, done: Any, speech: Path, device_name: str, bases: dict[str, str], begin_until: float, until: float
) -> None:
    """A process: record one task after another until none is left or the time is up."""
    torch.set_num_threads(1)
    device = torch.device(device_name)
    while time.time() < begin_until:
        try:
            task = tasks.get(timeout=1)
        except queue.Empty:
            break
        started = time.time()
        try:
            done.put((task, record(task, speech, device, bases, until), time.time() - started))
        except Exception as error:  # one fine-tune's fault must not lose the others
            done.put((task, f"{type(error).__name__}: {error}", time.time() - started))
    done.put(None)


def merge(file: Path, folder: Path) -> None:
    """Put lines of several worlds into a table each, without those that are there."""
    for line in file.read_text(encoding="utf-8").splitlines():
        curve = json.loads(line)
        table = folder / f"{curve['world']}.jsonl"
        there = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
        if key_of(curve) not in {key_of(json.loads(one)) for one in there}:
            with table.open("a", encoding="utf-8") as opened:
                opened.write(json.dumps(curve, ensure_ascii=False, separators=(",", ":")) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", action="append", choices=list(WORLDS), default=[], help="repeatable")
    parser.add_argument("--write-tasks", type=Path, metavar="FILE", help="write what is to be done, and do nothing")
    parser.add_argument("--tasks", type=Path, metavar="FILE", help="do what --write-tasks wrote")
    parser.add_argument("--merge", type=Path, metavar="FILE", help="add a file's lines to the tables, and do nothing")
    parser.add_argument("--speech", type=Path, default=bench.ROOT / "runs/_data/worlds", help="from `make_speech.py`")
    parser.add_argument("--base", action="append", default=[], metavar="NAME=FOLDER", help="a base checkpoint")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2)), help="trials side by side")
    parser.add_argument("--cpu-workers", type=int, default=0, help="beside a GPU, these on the CPU")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin none after this time")
    parser.add_argument("--grace", type=float, default=40.0, help="end those that run this many seconds after that")
    parser.add_argument("--out", type=Path, help="by default each world's table in benchmarks/curves/")
    chosen = parser.parse_args()
    tables = bench.ROOT / "benchmarks/curves"
    if chosen.merge:
        merge(chosen.merge, tables)
        return
    if chosen.tasks:
        tasks = [json.loads(line) for line in chosen.tasks.read_text(encoding="utf-8").splitlines()]
    else:
        tasks = [task for name in chosen.world for task in tasks_of(name)]
    if chosen.write_tasks:
        chosen.write_tasks.write_text("".join(json.dumps(task) + "\n" for task in tasks), encoding="utf-8")
        return
    files = {task["world"]: chosen.out or tables / f"{task['world']}.jsonl" for task in tasks}
    known = set()
    for file in set(files.values()):
        file.parent.mkdir(parents=True, exist_ok=True)
        known |= (
            {key_of(json.loads(line)) for line in file.read_text("utf-8").splitlines()} if file.is_file() else set()
        )
    left = [task for task in tasks if key_of(task) not in known]
    print(f"{len(tasks) - len(left)} of {len(tasks)} curves are there, {len(left)} to go", flush=True)
    run_all(left, files, chosen)


def run_all(left: list[dict[str, Any]], files: dict[str, Path], chosen: argparse.Namespace) -> None:
    """Record in several processes, and append every curve as it comes."""
    os.environ["OMP_NUM_THREADS"] = "1"
    bases = dict(one.split("=", 1) for one in chosen.base)
    begun = time.time()
    begin_until, until = begun + chosen.seconds, begun + chosen.seconds + chosen.grace
    context = multiprocessing.get_context("spawn")
    tasks, done = context.Queue(), context.Queue()
    for task in left:
        tasks.put(task)
    main_device = "cuda:0" if torch.cuda.is_available() else "cpu"
    devices = [main_device] * chosen.workers + ["cpu"] * chosen.cpu_workers
    processes = [
        context.Process(target=work, args=(tasks, done, chosen.speech, name, bases, begin_until, until))
        for name in devices
    ]
    for process in processes:
        process.start()
    open_processes, ready, taken = len(processes), 0, []
    while open_processes:
        try:
            answer = done.get(timeout=5)
        except queue.Empty:
            if not any(process.is_alive() for process in processes):
                break
            continue
        if answer is None:
            open_processes -= 1
            continue
        task, curve, seconds = answer
        name = f"{task['world']} {task['kind']} {task['number']} seed {task['seed']}"
        if not isinstance(curve, dict):
            print(f"{name}: {curve or 'out of time'} after {seconds:.0f} s", flush=True)
            continue
        with files[task["world"]].open("a", encoding="utf-8") as file:
            file.write(json.dumps(curve, ensure_ascii=False, separators=(",", ":")) + "\n")
        ready, wer = ready + 1, min(curve["points"]["wer"])
        taken.append(seconds)
        left_s = (time.time() - begun) * (len(left) / ready - 1)
        print(
            f"{time.time() - begun:5.0f} s  {ready}/{len(left)}  {name}: WER {wer:.3f} ({curve['end']}) in "
            f"{seconds:.0f} s; {left_s / 60:.0f} min to go",
            flush=True,
        )
    for process in processes:
        process.join(10)
        if process.is_alive():
            process.terminate()
    tasks.cancel_join_thread()
    if taken:
        print(f"{ready} curves, {np.median(taken):.1f} s each")


if __name__ == "__main__":
    main()

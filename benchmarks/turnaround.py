"""From one trial's end to the next trial's first update on the same slot, and what slots spend their time with.

    python benchmarks/turnaround.py [--nested] [--before LEDGER] [--json FILE]

Method. Runs `sweeps/run.py` on the demo, then once more with 8 short trials (a quarter of the length, no pruning, no
finalists), and computes all figures from their ledgers alone. A report says when it was sent, how long dev took and how
fast its interval was trained; so training is the interval's seconds of audio over that speed, and a trial's first
update was at its first report's time less both. `gap_s` is the median time from a trial's end to the first update of
the next one on that slot, the start of its fine-tune included; `gap_p90_s` the 90th percentile. A slot's time runs from
its first update to the last end on it: `training_share` of it are updates, `evaluation_share` evaluations, checkpoints
and reports, `between_share` gaps. Once all new settings are given out a slot may have to wait until others have
shown what is promoted, or who the finalists are; that is `waiting_s`, and in no gap or share. `first_step_s`, from the
start of the process to the first update of all, is in no share: the demo's has the making of the corpus in it, the
short sweep finds it made. `--before` reads the ledger of an earlier version's sweep, where reports do not name their
slots: a trial is then taken to be on the slot that was freed last. `--nested` runs three tiny trials in the pattern
that Ray documents, one Ray Train run per trial, started by a Tune function, with the same fine-tune in it, one at a
time on two CPUs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import bench

from hausa_asr.dataset.from_settings import prepared_dataset
from hausa_asr.recipe import CACHE, FEATURES
from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import ClusterSettings
from sweeps.on_ray.cluster import connected, prepare_environment
from sweeps.record.ledger import read_events
from sweeps.record.names import LEDGER_FILE

DEMO = bench.ROOT / "sweeps/configs/demo.yaml"
SHORT = ["finetune.length_s=1125", "search.trials=8", "pruning.rule=none", "finalists.k=0"]
SWEEPS = {"demo": [], "short": SHORT}


@dataclass
class Stint:
    """A trial's time on a slot, times in seconds since the epoch.

    Attributes:
        trial: its id.
        ordered: when the agenda gave it out: proposed it, or let its rung promote it.
        slot: as its reports name it, else which one it seems to have been.
        ended: when it left the slot; its last report where that is not known.
        first_update: when its first update began; None without a report.
        training_s: seconds of updates.
    """

    trial: str
    ordered: float
    slot: str
    ended: float | None = None
    first_update: float | None = None
    training_s: float = 0.0


@dataclass
class Account:
    """What the slots of a sweep did, all added up, in seconds."""

    gaps_s: list[float] = field(default_factory=list)
    training_s: float = 0.0
    waiting_s: float = 0.0
    slots_s: float = 0.0

    def figures(self) -> dict[str, Any]:
        """Shares, and percentiles of the gaps; NaN where there is nothing to divide."""
        whole = self.slots_s - self.waiting_s or math.nan
        gaps, between_s = sorted(self.gaps_s), sum(self.gaps_s)
        return {
            "training_share": self.training_s / whole,
            "evaluation_share": (whole - self.training_s - between_s) / whole,
            "between_share": between_s / whole,
            "gap_s": statistics.median(gaps) if gaps else math.nan,
            "gap_p90_s": gaps[math.ceil(0.9 * len(gaps)) - 1] if gaps else math.nan,
            "gaps": len(gaps),
            "waiting_s": self.waiting_s,
            "slots_s": self.slots_s,
        }


def stints(ledger: Path) -> tuple[list[Stint], float]:
    """Which trial had which slot when, in the order of their starts; and when the last new setting was given out."""
    found: list[Stint] = []
    open_now: dict[str, Stint] = {}
    ordered: dict[str, float] = {}
    seen_s: dict[str, float] = defaultdict(float)
    freed: dict[str, float] = {}  # slots without a trial, for ledgers that name none
    last_proposal = 0.0

    def leave(trial: str, at: float | None) -> None:
        stint = open_now.pop(trial, None)
        if stint is not None:
            stint.ended = at or stint.ended
            if stint.ended is not None:
                freed[stint.slot] = stint.ended

    for event in read_events(ledger):
        kind, at, trial = event["event"], event["time"], event.get("trial", "")
        if kind == "opened":  # another driver, with slots of its own
            for one in list(open_now):
                leave(one, None)
            freed.clear()
        elif kind == "proposed":
            ordered[trial] = at
            last_proposal = last_proposal if event.get("of") else at
        elif kind == "ranked" and event.get("promoted"):
            ordered[trial] = at
        elif kind == "started":
            leave(trial, None)  # its slot broke
            slot = max(freed, key=lambda name: freed[name], default=f"unnamed {len(found)}")
            freed.pop(slot, None)
            found.append(Stint(trial, ordered[trial], slot))
            open_now[trial] = found[-1]
        elif kind == "reported" and trial in open_now:
            stint, figures = open_now[trial], event["metrics"]
            training_s = (event["seen_s"] - seen_s[trial]) / figures["audio_s_per_s"]
            seen_s[trial] = event["seen_s"]
            if stint.first_update is None:
                stint.first_update = at - figures["eval_runtime_s"] - training_s
                stint.slot = event.get("slot") or stint.slot
            stint.training_s += training_s
            stint.ended = at
        elif kind in ("paused", "ended"):
            leave(trial, at)
    return found, last_proposal


def account(ledger: Path) -> tuple[Account, float | None]:
    """What a sweep's slots did, and when its first update began, in seconds since the epoch."""
    by_slot: dict[str, list[Stint]] = defaultdict(list)
    found, last_proposal = stints(ledger)
    first_updates = []
    for stint in found:
        if stint.first_update is not None:
            by_slot[stint.slot].append(stint)
            first_updates.append(stint.first_update)
    total = Account()
    for taken in by_slot.values():
        total.slots_s += taken[-1].ended - taken[0].first_update  # type: ignore[operator]
        total.training_s += sum(one.training_s for one in taken)
        for before, after in pairwise(taken):
            assert before.ended is not None and after.first_update is not None
            late = after.ordered > last_proposal
            waited_s = max(0.0, after.ordered - before.ended) if late else 0.0
            total.gaps_s.append(after.first_update - before.ended - waited_s)
            total.waiting_s += waited_s
    return total, min(first_updates, default=None)


def run_sweep(name: str, settings: list[str], storage: Path) -> dict[str, Any]:
    """Run a sweep of the demo in a process of its own; its figures."""
    own = [f"name={name}", f"storage={storage}", f"mlflow.uri=sqlite:///{storage}/mlflow.db", *settings]
    command = [sys.executable, str(bench.ROOT / "sweeps/run.py"), "--config", str(DEMO)]
    began = time.time()
    done = subprocess.run(
        [*command, *(word for one in own for word in ("--set", one))], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"the {name} sweep failed:\n{done.stdout[-4000:]}")
    total, first = account(storage / name / LEDGER_FILE)
    return {**total.figures(), "first_step_s": (first or math.nan) - began, "wall_s": time.time() - began}


def nested(storage: Path, trials: int) -> dict[str, Any]:
    """Tiny trials, each a Ray Train run of its own; their figures, from a ledger written as a sweep's is."""
    ledger = storage / f"nested-{LEDGER_FILE}"
    config = load(DEMO, [f"storage={storage}", "finetune.length_s=160", "finetune.eval_every_steps=10"], environment={})
    prepared = prepared_dataset(config.data, storage / CACHE)
    cluster = ClusterSettings(local_cpus=2)
    prepare_environment(cluster)
    recipe = asdict(config.recipe())

    def train_one(task: dict[str, Any]) -> None:
        import torch
        from ray import train

        from hausa_asr.dataset.prepare import load_prepared
        from hausa_asr.recipe import Answer, FinetuneConfig, Progress
        from hausa_asr.training.finetune import Data, finetune

        def tell(event: str, **fields: Any) -> None:
            with ledger.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"event": event, "time": time.time(), "trial": task["trial"], **fields}) + "\n")

        def report(progress: Progress) -> Answer:
            tell("reported", seen_s=progress.seen_s, metrics=progress.metrics)
            train.report({"wer": progress.metrics["wer"]})
            return Answer.CONTINUE

        torch.set_num_threads(1)
        tell("proposed")
        tell("started")
        data = load_prepared(prepared.path)
        finetune(
            FinetuneConfig(**recipe),
            Data(data.splits["train"], data.splits["dev"], data.fingerprint),
            report,
            base=config.model.base,
            folder=storage / "nested" / task["trial"],
            device=torch.device("cpu"),
            cache=storage / CACHE / FEATURES,
        )
        tell("ended")

    def drive(task: dict[str, Any]) -> None:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
        from ray.tune.integration.ray_train import TuneReportCallback

        TorchTrainer(
            train_one,
            train_loop_config=task,
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(
                name=task["trial"],
                storage_path=str(storage / "train"),
                callbacks=[TuneReportCallback()],  # type: ignore[list-item]
            ),
        ).fit()

    began = time.time()
    with connected(cluster, storage / "logs"):
        from ray import tune

        tune.Tuner(
            drive,
            param_space={"trial": tune.grid_search([f"t{number:03d}" for number in range(trials)])},
            tune_config=tune.TuneConfig(max_concurrent_trials=1),
            run_config=tune.RunConfig(storage_path=str(storage / "tune"), verbose=0),
        ).fit()
    total, first = account(ledger)
    return {**total.figures(), "first_step_s": (first or math.nan) - began, "wall_s": time.time() - began}


def main() -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", nargs="*", choices=list(SWEEPS), default=list(SWEEPS), help="which to run (both)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of these sweeps")
    parser.add_argument("--before", action="append", default=[], type=Path, metavar="LEDGER", help="an earlier one's")
    parser.add_argument("--nested", action="store_true", help="the pattern that Ray documents, too")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        for which in given.sweeps:
            found[which] = run_sweep(which, [*SWEEPS[which], *given.set], Path(name))
            print(f"{which}: {found[which]}", flush=True)
        if given.nested:
            found["nested"] = nested(Path(name), 3)
    for path in given.before:
        found[f"before: {path.parent.name}"] = account(path)[0].figures()
    keys = ("training_share", "evaluation_share", "between_share", "gap_s", "gap_p90_s", "first_step_s")
    rows = [[which, *(f"{one[key]:.2f}" if key in one else "" for key in keys)] for which, one in found.items()]
    print("\n" + bench.table(["", "training", "evaluation", "between", "gap, s", "p90, s", "first step, s"], rows))
    bench.write(given.json, {**found.get("short", {}), **found})


if __name__ == "__main__":
    main()

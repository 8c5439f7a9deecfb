"""Two searches without Ray in a race of sweeps, one process per worker. Started by `sweeps.py`.

`optuna`: Optuna alone, a study in a journal file that the workers share, its default sampler (TPE) and its default
pruner (`MedianPruner`), which sees the dev WER at 0.2, 0.4 and 0.8 of the length and at the regular evaluations.
`random`: settings drawn at random, each trained to its full length.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from race_trial import shared_task, train_trial

if TYPE_CHECKING:
    import optuna

    from hausa_asr.recipe import Answer, Progress
    from hausa_asr.settings.sweep import SweepConfig


def optuna_alone(task: dict[str, Any], config: SweepConfig, worker: int) -> None:
    """Train what the shared study proposes, and stop what its pruner stops."""
    import optuna

    from hausa_asr.recipe import Answer
    from sweeps.sampling.space import propose

    shared = shared_task(task["world"], task["settings"])
    journal = optuna.storages.journal.JournalFileBackend(str(Path(shared["folder"]) / "optuna.log"))
    study = optuna.create_study(
        study_name="race",
        storage=optuna.storages.JournalStorage(journal),
        sampler=optuna.samplers.TPESampler(seed=config.search.seed * task["workers"] + worker),
        pruner=optuna.pruners.MedianPruner(),
        direction="minimize",
        load_if_exists=True,
    )

    def objective(trial: optuna.Trial) -> float:
        def report(progress: Progress) -> Answer:
            # In per cent of the length: the median is over trials at the very same step.
            trial.report(progress.metrics["wer"], int(100 * progress.seen_s / shared["recipe"]["length_s"]))
            return Answer.STOP if trial.should_prune() else Answer.CONTINUE

        result = train_trial(shared, f"t{trial.number:03d}", propose(config.space, trial), report)
        if result.end == "stopped":
            raise optuna.TrialPruned
        return result.progress.best["wer"]

    study.optimize(objective, n_trials=config.search.trials // task["workers"])


def random_settings(task: dict[str, Any], config: SweepConfig, worker: int) -> None:
    """Train settings drawn at random to their full length."""
    import optuna

    from hausa_asr.recipe import Answer
    from sweeps.sampling.space import propose

    shared = shared_task(task["world"], task["settings"], marks_s=[])
    sampler = optuna.samplers.RandomSampler(seed=config.search.seed * task["workers"] + worker)
    study = optuna.create_study(sampler=sampler)
    for number in range(config.search.trials // task["workers"]):
        settings = propose(config.space, study.ask())
        train_trial(shared, f"w{worker}-{number:03d}", settings, lambda _: Answer.CONTINUE)


SEARCHES = {"optuna": optuna_alone, "random": random_settings}


def start_workers(task: dict[str, Any]) -> int:
    """Start the workers, before anything heavy is imported; the exit code is that of the first that fails, else 0."""
    command = [sys.executable, __file__, "--task", json.dumps(task), "--worker"]
    workers = [subprocess.Popen([*command, str(number)]) for number in range(task["workers"])]
    while True:
        codes = [worker.poll() for worker in workers]
        failed = next(filter(None, codes), None)
        if failed is not None or None not in codes:
            break
        time.sleep(0.2)
    for worker in workers:
        worker.kill()
    return failed or 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=json.loads, required=True, help="what to run, as JSON")
    parser.add_argument("--worker", type=int, help="the number of a worker")
    given = parser.parse_args()
    if given.worker is None:
        sys.exit(start_workers(given.task))
    from hausa_asr.settings.load import load

    config = load(Path(given.task["world"]), given.task["settings"], environment={})
    SEARCHES[given.task["contestant"]](given.task, config, given.worker)


if __name__ == "__main__":
    main()

"""The stock pattern in a race of sweeps: Ray Tune drives Ray Train as Ray's own guide shows it. Started by `sweeps.py`.

A Tune function is the driver of each trial; it builds a `TorchTrainer`, whose worker trains by our own fine-tune and
reports to Tune by `TuneReportCallback`. `OptunaSearch` proposes, with its default sampler and on our space;
`ASHAScheduler` stops on WER with reduction 2 and a grace period of a fifth of the length, the strongest stock rule on
recorded curves; `MLflowLoggerCallback` writes to a SQLite file. Each trial's checkpoints are the fine-tune's own, so
nothing is copied at a report.

Ray gets 16 logical CPUs for its two trials side by side: a stopped trial's resources are not given back in time, and
where the workers fit the machine exactly the next ones wait for a CPU for ever. The local Ray is set up as a sweep of
ours sets it up, which is faster than its defaults.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from race_trial import FIRST_RUNG, REDUCTION, shared_task, train_trial

from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import ClusterSettings
from sweeps.on_ray.cluster import connected, prepare_environment
from sweeps.sampling.space import propose

if TYPE_CHECKING:
    import optuna

    from sweeps.sampling.conditions import Space

LOGICAL_CPUS = 16


def draw(space: Space, trial: optuna.Trial) -> None:
    """Ask a trial for all settings, as `OptunaSearch` wants it done; Tune pickles this."""
    propose(space, trial)


def search(task: dict[str, Any]) -> None:
    """Run the search until its trials are used up, or until it is ended."""
    config = load(Path(task["world"]), task["settings"], environment={})
    shared = shared_task(task["world"], task["settings"])
    folder = Path(shared["folder"])
    cluster = ClusterSettings(local_cpus=LOGICAL_CPUS)
    prepare_environment(cluster)

    def train_one(job: dict[str, Any]) -> None:
        from ray import train

        from hausa_asr.recipe import Answer, Progress

        def report(progress: Progress) -> Answer:
            train.report({"wer": progress.metrics["wer"], "seen_s": progress.seen_s})
            return Answer.CONTINUE

        train_trial(shared, job["trial"], job["settings"], report)

    def drive(parameters: dict[str, Any]) -> None:
        from ray import tune
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
        from ray.tune.integration.ray_train import TuneReportCallback

        trial = tune.get_context().get_trial_id()
        # A setting with several ranges has a parameter for each: `lr_peak`, `lr_peak#1`.
        settings = {name.partition("#")[0]: value for name, value in parameters.items()}
        TorchTrainer(
            train_one,
            train_loop_config={"trial": trial, "settings": settings},
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(
                name=f"train-{trial}",
                storage_path=str(folder / "train"),
                callbacks=[TuneReportCallback()],  # type: ignore[list-item]
            ),
        ).fit()

    with connected(cluster, folder / "logs"):
        from ray import tune
        from ray.air.integrations.mlflow import MLflowLoggerCallback
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        length_s = shared["recipe"]["length_s"]
        tune.Tuner(
            drive,
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(partial(draw, config.space), metric="wer", mode="min", seed=config.search.seed),
                scheduler=ASHAScheduler(
                    time_attr="seen_s",
                    metric="wer",
                    mode="min",
                    max_t=length_s,
                    grace_period=FIRST_RUNG * length_s,
                    reduction_factor=REDUCTION,
                ),
                num_samples=config.search.trials,
                max_concurrent_trials=task["workers"],
            ),
            run_config=tune.RunConfig(
                storage_path=str(folder / "tune"),
                callbacks=[MLflowLoggerCallback(tracking_uri=config.mlflow.uri, experiment_name="stock")],
                verbose=0,
            ),
        ).fit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=json.loads, required=True, help="what to run, as JSON")
    search(parser.parse_args().task)


if __name__ == "__main__":
    main()

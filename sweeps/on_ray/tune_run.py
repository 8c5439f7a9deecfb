"""The search itself: one Ray Tune run that drives the slots, from the ledger's state to its end."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune

from hausa_asr.dataset.from_settings import CACHE, FEATURES
from hausa_asr.settings.load import SweepConfig
from sweeps.driver.agenda import Agenda
from sweeps.driver.board import Board
from sweeps.driver.checkpoint_space import Janitor
from sweeps.mlflow_mirror.mirror import Mirror
from sweeps.on_ray.callbacks import SweepCallback
from sweeps.on_ray.scheduler import SweepScheduler
from sweeps.on_ray.searcher import SweepSearcher
from sweeps.on_ray.slot import Slot
from sweeps.planning.slots import Plan
from sweeps.pruning.rule import Rule
from sweeps.record.ledger import Ledger, TrialRecord

_MAX_CRASHES = 2
"""How often a trial whose workers crash is started anew, from its last checkpoint."""
_GOODBYE_S = 20.0
_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # ours are the only records
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own snapshots are not used
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # our one field is a text
    "RAY_AIR_NEW_OUTPUT": "0",
}


def search(
    config: SweepConfig,
    ledger: Ledger,
    folder: Path,
    prepared: Any,
    plan: Plan,
    agenda: Agenda,
    rule: Rule,
    mirror: Mirror,
    board: Board,
    slot: type[tune.Trainable] = Slot,
) -> bool:
    """Run trials and finalists until the agenda is at its end, or until an interrupt.

    Never `Tuner.restore`: a resumed sweep is a new Tune run whose agenda hands out the unfinished trials first.

    Args:
        slot: what Tune runs; the benchmarks give one that trains nothing.

    Returns:
        Whether it came to its end; False after an interrupt.
    """
    if agenda.is_done():
        return True
    os.environ.update(_TUNE_ENVIRONMENT)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(plan.slots)  # so that all slots start at once
    tune_storage = folder / "ray"
    spec = {
        "workers": config.resources.workers_per_trial,
        "gpus_per_worker": config.resources.gpus_per_worker,
        "resources_per_worker": plan.worker_resources,
        "threads": plan.threads,
        "train_storage": str(tune_storage),
        "startup_timeout_s": config.cluster.startup_timeout_s,
        "goodbye_s": _GOODBYE_S,
        "prepared": str(prepared.path),
        "base": config.model.base,
    }

    def job(trial: TrialRecord | None) -> dict[str, Any]:
        if trial is None:
            return {"slot": spec, "job": None}
        return {
            "slot": spec,
            "job": {
                "trial": trial.id,
                "recipe": asdict(config.recipe(trial.settings)),
                "base": config.model.base,
                "prepared": str(prepared.path),
                "folder": str(ledger.trial_folder(trial.id)),
                "cache": str(Path(config.storage) / CACHE / FEATURES),
                # Finalists are not ranked.
                "rungs": [] if trial.of else ledger.state.marks,
            },
        }

    searcher = SweepSearcher(ledger, agenda, job, plan.slots)
    janitor = Janitor(ledger, rule, config)
    janitor.begin()
    trial_of = searcher.trial_of.__getitem__
    tuner = tune.Tuner(
        tune.with_resources(slot, plan.slot_resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=SweepScheduler(config, ledger, rule, agenda, trial_of),
            num_samples=-1,  # the agenda says when it is over
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"tune-{time.time_ns()}",
            storage_path=str(tune_storage),
            callbacks=[SweepCallback(ledger, mirror, board, janitor, trial_of, searcher.why)],
            failure_config=tune.FailureConfig(max_failures=_MAX_CRASHES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    tuner.fit()
    shutil.rmtree(tune_storage, ignore_errors=True)  # Tune's and Train's own records, which nothing reads
    return agenda.is_done()

"""The search itself: one Ray Tune run that drives the slots, from the ledger's state to its end."""

from __future__ import annotations

import logging
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune

from hausa_asr.config import SweepConfig
from hausa_asr.data import CACHE, FEATURES
from sweeps.callbacks import Mirror, SweepCallback
from sweeps.ledger import Ledger, TrialRecord
from sweeps.plan import Plan
from sweeps.progress import Board
from sweeps.scheduler import SweepScheduler
from sweeps.searcher import SweepSearcher
from sweeps.slot import Slot

log = logging.getLogger("sweeps")

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
    config: SweepConfig, ledger: Ledger, folder: Path, prepared: Any, plan: Plan, mirror: Mirror, board: Board
) -> None:
    """Run trials until as many as wanted have ended, or until an interrupt.

    Never `Tuner.restore`: a resumed sweep is a new Tune run whose searcher hands out the unfinished trials first.
    """
    state = ledger.state
    unfinished = sum(trial.is_open for trial in state.trials.values())
    wanted = unfinished + max(0, config.search.trials - len(state.trials))
    if not wanted:
        return
    os.environ.update(_TUNE_ENVIRONMENT)
    tune_storage = folder / "ray"
    spec = {
        "workers": config.resources.workers_per_trial,
        "gpus_per_worker": config.resources.gpus_per_worker,
        "resources_per_worker": plan.worker_resources,
        "threads": plan.threads,
        "train_storage": str(tune_storage),
        "startup_timeout_s": config.cluster.startup_timeout_s,
        "goodbye_s": _GOODBYE_S,
    }

    def job(trial: TrialRecord) -> dict[str, Any]:
        return {
            "slot": spec,
            "job": {
                "trial": trial.id,
                "recipe": asdict(config.recipe(trial.settings)),
                "base": config.model.base,
                "prepared": str(prepared.path),
                "folder": str(ledger.trial_folder(trial.id)),
                "cache": str(Path(config.storage) / CACHE / FEATURES),
            },
        }

    searcher = SweepSearcher(config, ledger, job)
    scheduler = SweepScheduler(config, ledger, searcher.trial_of.__getitem__)
    callback = SweepCallback(ledger, mirror, board, searcher.trial_of.__getitem__)
    tuner = tune.Tuner(
        tune.with_resources(Slot, plan.slot_resources),
        tune_config=tune.TuneConfig(search_alg=searcher, scheduler=scheduler, num_samples=wanted, reuse_actors=True),
        run_config=tune.RunConfig(
            name=f"tune-{time.time_ns()}",
            storage_path=str(tune_storage),
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=_MAX_CRASHES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    tuner.fit()
    shutil.rmtree(tune_storage, ignore_errors=True)  # Tune's and Train's own records, which nothing reads

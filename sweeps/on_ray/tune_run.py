"""The search itself: one Ray Tune run that drives the slots.

In: a sweep, its agenda, its MLflow mirror and its table of trials. Out: trials that have ended, in the ledger. Called
by `run`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.execution import class_cache

from hausa_asr.recipe import CACHE, FEATURES
from hausa_asr.storage.address import join, portable
from sweeps.driver.agenda import Agenda
from sweeps.driver.board import Board
from sweeps.driver.checkpoint_space import CheckpointSpace
from sweeps.driver.interrupts import Interrupts
from sweeps.driver.sweep import Sweep
from sweeps.mlflow_mirror.mirror import Mirror
from sweeps.on_ray.callbacks import SweepCallback
from sweeps.on_ray.calls import Calls, idle_s
from sweeps.on_ray.capacity import Capacity
from sweeps.on_ray.cluster import address_of
from sweeps.on_ray.experience import Experience
from sweeps.on_ray.leaving import Leaving
from sweeps.on_ray.scheduler import SweepScheduler
from sweeps.on_ray.searcher import SweepSearcher
from sweeps.on_ray.slot import Slot
from sweeps.planning.disk import checkpoint_space
from sweeps.record.checkpoints import WRITING_S
from sweeps.record.crashes import NO_ROOM
from sweeps.record.trial import TrialRecord

_MOST_STARTING = 512
"""Slots that start at the same time, all that there is room for."""
_GOODBYE_S = 20.0
_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # ours are the only records
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # Tune's own snapshots are not used, and need room in /tmp
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # see `Interrupts`
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # our one field is a text
    "RAY_AIR_NEW_OUTPUT": "0",
}


def search(
    sweep: Sweep,
    agenda: Agenda,
    mirror: Mirror,
    board: Board,
    slot: type[tune.Trainable] = Slot,
    at_once: Callable[[], None] = lambda: None,
) -> bool:
    """Run trials and finalists until the agenda is at its end, or until an interrupt.

    Never `Tuner.restore`: a resumed sweep is a new Tune run whose agenda hands out the unfinished trials first.

    Args:
        sweep: what is run.
        agenda: what slots do next.
        mirror: MLflow.
        board: the table of trials.
        slot: what Tune runs; the benchmarks give one that trains nothing.
        at_once: is called at the first interrupt, in a thread of its own, while slots still have a few seconds to end.

    Returns:
        Whether it came to its end; False after an interrupt.
    """
    if agenda.is_done():
        return True
    os.environ.update(_TUNE_ENVIRONMENT)
    # Tune would hand the driver's keys to its actors, and Ray write them to its logs. Each node has its own.
    class_cache.ENV_VARS_TO_PROPAGATE = {
        name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("AWS_")
    }
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(_MOST_STARTING)
    storage = sweep.folder / "ray"
    experience = Experience(sweep.config, sweep.ledger.state.trials.values())
    leaving, calls = Leaving(), Calls()

    def leave_at_once() -> None:
        leaving.ask()
        calls.call_all()
        at_once()

    try:
        with Interrupts(leave_at_once) as interrupts:
            shared = storage, experience, interrupts, leaving.key, calls
            run = partial(_tune, sweep, agenda, mirror, board, slot, *shared)
            run()
            # Its end may have been given out when something broke under the last trials.
            while agenda.is_to_go_on() and not interrupts.asked:
                agenda.begin_anew()
                run()
    finally:
        leaving.close()
        calls.close()
    board.remark = str
    shutil.rmtree(storage, ignore_errors=True)  # Tune's and Train's own records, which nothing reads
    return agenda.is_done() and not interrupts.asked


def _tune(
    sweep: Sweep,
    agenda: Agenda,
    mirror: Mirror,
    board: Board,
    slot: type[tune.Trainable],
    storage: Path,
    experience: Experience,
    interrupts: Interrupts,
    leave_key: str,
    calls: Calls,
) -> None:
    """One Tune run, until the agenda gives out its end, or until an interrupt."""
    grows = address_of(sweep.config.cluster) is not None
    trials = sweep.config.search.trials
    capacity, numbers = Capacity(sweep.config.resources, sweep.plan.slots, grows, trials), itertools.count()

    def tune_config(trial: TrialRecord | None) -> dict[str, Any]:
        failures, order = agenda.failures, next(numbers)
        leaving = capacity.leaving()
        avoid = capacity.avoidable([*failures.avoided_by(trial.id), *leaving]) if trial else []
        avoid = avoid or capacity.avoidable([*failures.avoided(), *leaving])
        in_vain = trial is not None and trial.cause == NO_ROOM
        offer = capacity.offer(order, avoid, in_vain, is_last=trial is not None and searcher.out >= slots())
        given = {"order": order, "avoid": avoid, "offer": asdict(offer), "idle_s": idle_s(searcher.waiting)}
        spec = {**_slot_spec(sweep, storage), "leave_key": leave_key, "calls_key": calls.key, **given}
        return _tune_config(sweep, spec, trial, experience)

    def slots() -> int:
        most = sweep.config.search.trials
        found = min(capacity.slots(agenda.failures.avoided()), most)
        if min(capacity.steady, most) != sweep.ledger.state.slots:
            sweep.ledger.append("slots", slots=min(capacity.steady, most))
        return found

    agenda.failures.others, board.remark = capacity.others, capacity.remark

    def is_short() -> bool:
        return capacity.is_short

    def has_room(out: int) -> bool:
        return out < capacity.there and not capacity.is_short

    searcher = SweepSearcher(sweep.ledger, agenda, tune_config, slots, calls, has_room, is_short)

    def before_a_step() -> None:
        interrupts.end_tune()
        searcher.call_waiting()

    space = CheckpointSpace(sweep.ledger, sweep.rule, sweep.config, agenda.held)
    space.begin()
    trial_of, has_range = searcher.trial_of.__getitem__, sweep.config.resources.has_range
    callback = SweepCallback(
        sweep.ledger, mirror, board, space, trial_of, searcher.why, capacity, has_range, before_a_step
    )
    scheduler = SweepScheduler(
        sweep.config,
        sweep.ledger,
        sweep.rule,
        agenda,
        trial_of,
        sweep.guess_loss(),
        capacity.leaving,
        is_short,
        experience.learn,
    )
    interrupts.hasten = scheduler.hasten
    tuner = tune.Tuner(
        tune.with_resources(slot, sweep.plan.slot_resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,  # the agenda says when it is over
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"tune-{time.time_ns()}",
            storage_path=str(storage),
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=0),  # what follows a crash is decided by driver.failures
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except Exception:
        sweep.ledger.check()
        raise


def _slot_spec(sweep: Sweep, storage: Path) -> dict[str, Any]:
    """What all trials of a slot share."""
    resources = sweep.config.resources
    return {
        "most_workers": resources.most_workers,
        "gpus_per_worker": resources.gpus_per_worker,
        "resources_per_worker": sweep.plan.worker_resources,
        "labels": resources.labels,
        "threads": sweep.plan.threads,
        "train_storage": portable(storage),
        "startup_timeout_s": sweep.config.cluster.startup_timeout_s,
        "report_timeout_s": sweep.config.cluster.report_timeout_s,
        "first_report_timeout_s": sweep.config.cluster.first_report_timeout_s,
        "goodbye_s": _GOODBYE_S,
    }


def _tune_config(
    sweep: Sweep, spec: dict[str, Any], trial: TrialRecord | None, experience: Experience
) -> dict[str, Any]:
    """A Tune trial's configuration: the slot's, and the job of one trial of ours; None to wait."""
    if trial is None:
        return {"slot": spec, "job": None}
    recipe = replace(sweep.config.recipe(trial.settings), micro_batch_s=experience.micro_batch_s(trial))
    job = {
        "trial": trial.id,
        "recipe": asdict(recipe),
        "base": recipe.base,
        "prepared": portable(sweep.prepared.path),
        "folder": portable(sweep.ledger.trial_folder(trial.id)),
        "cache": join(sweep.config.storage, CACHE, FEATURES),
        "keep_free": checkpoint_space(sweep.config, sweep.plan.slots).least or 0.0,
        "rungs": [] if trial.of else sweep.ledger.state.marks,  # finalists are not ranked
        "on_a_cluster": address_of(sweep.config.cluster) is not None,
        "first_report_s": experience.first_report_s(trial),
        "warm_nodes": experience.warm_nodes(trial),
        "longest_wait_s": experience.longest_wait_s(trial),
        "left_at": left_at(trial),
    }
    return {"slot": spec, "job": job}


def left_at(trial: TrialRecord) -> tuple[int, float]:
    """The step where a trial was paused, and for how many seconds the workers that it left may still write its state.

    0 seconds where they are gone, or had written it before they reported.
    """
    if trial.state not in ("paused", "pruned") or trial.came is None:
        return 0, 0.0
    step, reported = trial.came
    return step, max(0.0, reported + WRITING_S - time.time())

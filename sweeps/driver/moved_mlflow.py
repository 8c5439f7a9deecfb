"""The MLflow of a sweep that goes on: its own, perhaps at another address, which MLFLOW_TRACKING_URI may name.

In: the settings that the sweep was saved with. Out: the same, with that address if it is the sweep's own server.
`--set mlflow.uri=` goes before both. Called by `sweep_folder` and `run`.
"""

from __future__ import annotations

import os
from contextlib import suppress

from hausa_asr.errors import UserError
from hausa_asr.settings.load import TRACKING_VARIABLE, in_ray_job, make_absolute
from hausa_asr.settings.sweep import SweepConfig


def with_moved_mlflow(config: SweepConfig, run_id: str | None) -> SweepConfig:
    """Take the address in MLFLOW_TRACKING_URI if it is that of the sweep's own server, which then has its run.

    Another server's would split the sweep in two: it may be set for all that runs on a machine.

    Args:
        config: the settings of a sweep that goes on.
        run_id: its run; None if it has none yet.
    """
    moved = _by_environment(config)
    if moved == config or run_id is None:
        return moved
    from hausa_asr.tracking.tracker import Tracker

    try:
        known = Tracker.open(moved.mlflow.uri, config.mlflow.experiment).sweeps()
    except Exception:  # away, or no such experiment
        return config
    return moved if run_id in [run.run_id for run in known] else config


def _by_environment(config: SweepConfig) -> SweepConfig:
    """The settings with the MLflow that the environment names; as they are if it names none that can be used."""
    if not (uri := os.environ.get(TRACKING_VARIABLE)):
        return config
    moved = config.model_copy(update={"mlflow": config.mlflow.model_copy(update={"uri": uri})})
    with suppress(UserError):
        return make_absolute(moved, in_job=in_ray_job())
    return config


def passed_over(config: SweepConfig) -> str:
    """A line on the MLflow that the environment names, if a sweep that goes on does not use it."""
    if _by_environment(config).mlflow.uri == config.mlflow.uri:
        return ""
    return f"MLflow stays {config.mlflow.uri}: what {TRACKING_VARIABLE} names has no run of this sweep, or --set counts"

"""A sweep with one trial in MLflow."""

from __future__ import annotations

import numpy as np

from hausa_asr.tracking.tracker import Tracker

SETTINGS = {
    "peak_lr": 5e-5,
    "schedule": {"kind": "linear", "warmup_steps": np.int64(1000)},
    "layers": [1, 2],
    "lm": None,
}


def started(tracker: Tracker, trial: str = "t1", sweep: str = "first") -> tuple[str, str]:
    parent = tracker.start_sweep(sweep, {"metric": "wer"}, {"version": "0.1.0"})
    return parent, tracker.start_trial(parent, sweep, trial, SETTINGS, {"slot": "0"})

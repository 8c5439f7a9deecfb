"""What a sweep says of itself in figures, for a monitor: the names of its metrics, and their values.

In: the ledger's state. Out: values by metric. `on_ray.metrics` hands them to Ray, which exports them for Prometheus;
`cluster/grafana/sweep.json` shows them. Each name is written down here and nowhere else in the code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.budget import hours_word, spent
from sweeps.record.crashes import CRASH
from sweeps.record.state import State

EXPORTED = "ray_"
"""What Ray puts before every name when it exports it."""
STATES = ("proposed", "running", "paused", "finished", "pruned", "failed")


@dataclass(frozen=True)
class Metric:
    """A gauge, always with the label `sweep`.

    Attributes:
        name: as it is handed to Ray, without `EXPORTED`.
        meaning: what it counts, and in which unit.
        label: a second label; "" for none.
    """

    name: str
    meaning: str
    label: str = ""


TRIALS = Metric("hausa_asr_sweep_trials", "Trials and finalists' runs, by state.", "state")
CRASHED = Metric("hausa_asr_sweep_trials_paused_by_crash", "Paused trials that a fault of the world had ended.")
BEST_WER = Metric("hausa_asr_sweep_best_dev_wer", "The lowest dev WER of the search, as a share of 1.")
BASELINE_WER = Metric("hausa_asr_sweep_baseline_dev_wer", "The baseline's lowest dev WER so far, as a share of 1.")
HOURS = Metric("hausa_asr_sweep_device_hours", "Hours of GPUs, or of CPUs, that slots were busy.", "unit")
MONEY = Metric("hausa_asr_sweep_money", "What those hours cost, in the currency of budget.price_per_hour.")
LEFT = Metric("hausa_asr_sweep_budget_left", "What is left of each limit: hours, money or wall_s.", "limit")
SLOTS = Metric("hausa_asr_sweep_slots", "Slots that have a trial (busy), and all that there are (there).", "kind")
BACKLOG = Metric("hausa_asr_sweep_mlflow_backlog", "Writes that wait for MLflow.")
SILENCE = Metric("hausa_asr_sweep_seconds_since_report", "Seconds since the last report of any trial.")
METRICS = (TRIALS, CRASHED, BEST_WER, BASELINE_WER, HOURS, MONEY, LEFT, SLOTS, BACKLOG, SILENCE)


@dataclass(frozen=True)
class Value:
    """One figure: its metric, the value of its second label if it has one, and the figure."""

    metric: Metric
    of: str
    figure: float


def values(state: State, config: SweepConfig, backlog: int, now: float) -> Iterator[Value]:
    """Give every figure that is known.

    Args:
        state: the ledger's; whoever calls holds the ledger's lock.
        config: the sweep's settings.
        backlog: writes that wait for MLflow.
        now: seconds since the epoch.
    """
    trials = list(state.trials.values())
    counts = Counter(trial.state for trial in trials)
    for name in {**dict.fromkeys(STATES), **counts}:
        yield Value(TRIALS, name, counts[name])
    yield Value(CRASHED, "", sum(trial.state == "paused" and trial.cause == CRASH for trial in trials))
    for metric, trial in ((BEST_WER, state.best()), (BASELINE_WER, state.baseline())):
        if trial is not None and trial.best:
            yield Value(metric, "", trial.best["wer"])
    so_far, budget = spent(state, config, now), config.budget
    yield Value(HOURS, hours_word(config.resources), so_far.hours)
    if budget.price_per_hour is not None:
        yield Value(MONEY, "", so_far.money)
    limits = {
        "hours": (budget.hours, so_far.hours),
        "money": (budget.money, so_far.money),
        "wall_s": (budget.wall_s, so_far.wall_s),
    }
    for name, (limit, taken) in limits.items():
        if limit is not None:
            yield Value(LEFT, name, max(0.0, limit - taken))
    yield Value(SLOTS, "busy", sum(trial.started is not None for trial in trials))
    yield Value(SLOTS, "there", state.slots)
    yield Value(BACKLOG, "", backlog)
    last = max((trial.reports[-1].time for trial in trials if trial.reports), default=None)
    if last is not None:
        yield Value(SILENCE, "", max(0.0, now - last))

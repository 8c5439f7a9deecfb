"""When to stop a trial: first the rule, which is arithmetic on numbers, then its adapter to Ray Tune.

The rule is asynchronous successive halving on the unmasked eval loss. WER is blind while a CTC model is on its plateau
(the first third of a run), so trials ranked by it there are stopped by the toss of a coin; the eval loss already
tells them apart. Rungs are in seconds of audio trained on, since trials may differ in batch size. A trial that is
still warming up or frozen at a rung passes it unranked, since it is slow there by construction.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from hausa_asr.config import SweepConfig
from hausa_asr.recipe import FinetuneConfig
from sweeps.ledger import Ledger
from sweeps.searcher import DIVERGED

NEWS = "news"
"""The one field of a Tune result that is ours, as JSON: Tune flattens dicts."""


def rungs(length_s: float, first_rung: float, reduction: int) -> list[float]:
    """The rungs in seconds of audio: the first at a share of the length, each next `reduction` times later."""
    found = []
    at = first_rung * length_s
    while at < length_s:
        found.append(at)
        at *= reduction
    return found


@dataclass(frozen=True)
class Ranking:
    """One decision at a rung: who was compared, where the cut fell, and who goes on.

    Attributes:
        value: this trial's eval loss.
        cohort: how many losses the rung knew, this one among them.
        cutoff: the largest loss that passes.
        passed: whether this one does.
    """

    value: float
    cohort: int
    cutoff: float
    passed: bool


def rank(others: Iterable[float], value: float, reduction: int) -> Ranking:
    """Asynchronous successive halving at one rung: the best 1/reduction of those seen so far pass, at least one.

    Args:
        others: the eval losses recorded at the rung before.
        value: the new one, finite.
        reduction: one in so many passes.
    """
    cohort = sorted([*others, value])
    cutoff = cohort[math.ceil(len(cohort) / reduction) - 1]
    return Ranking(value, len(cohort), cutoff, passed=value <= cutoff)


def ready_s(recipe: FinetuneConfig) -> float:
    """The seconds of audio after which a trial can be compared: warmed up, and its transformer wholly free."""
    freeing = 2 if recipe.unfreeze == "top_down" else 1  # layer by layer takes as long again (schedules.trainable)
    return max(recipe.warmup_fraction, freeing * recipe.freeze_transformer_fraction) * recipe.length_s


class SweepScheduler(FIFOScheduler):
    """The rule as Ray Tune asks for it. Reports, rankings and ends are in the ledger before Tune acts on them.

    Args:
        config: the sweep's settings.
        ledger: the sweep's ledger.
        trial_of: our trial id for a Tune trial's id.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes snapshots of what it is given, but the ledger is what lasts."""
        return {}

    def __init__(self, config: SweepConfig, ledger: Ledger, trial_of: Callable[[str], str]) -> None:
        super().__init__()
        self._config, self._ledger, self._trial_of = config, ledger, trial_of
        pruning = config.pruning
        length_s = config.recipe().length_s
        self._rungs = rungs(length_s, pruning.first_rung, pruning.reduction) if pruning.rule == "asha" else []

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """One report of a trial: written down, then judged."""
        name = self._trial_of(trial.trial_id)
        record = self._ledger.state.trials[name]
        if not record.is_open:
            return TrialScheduler.STOP
        news = json.loads(result[NEWS])
        if news["kind"] == "failed":
            self._end(name, "failed", news["error"])
            return TrialScheduler.STOP
        report = news["report"]
        if report["step"] > record.last_step:
            # Samples stay in the checkpoint, and its place follows from the step.
            kept = ("step", "updates", "seen_s", "metrics", "best", "last", "diverged")
            self._ledger.append("reported", trial=name, **{key: report[key] for key in kept})
        if report["diverged"] or not math.isfinite(report["metrics"]["loss"]):
            self._end(name, "failed", DIVERGED)
            return TrialScheduler.STOP
        if report["last"]:
            self._end(name, "finished", "")
            return TrialScheduler.STOP
        for number, at in enumerate(self._rungs):
            if report["seen_s"] >= at and not self._judge(name, number, at, report):
                return TrialScheduler.STOP
        return TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A slot broke under a trial. Tune tells this before each new try as well, so nothing is decided here."""

    def _judge(self, name: str, number: int, at: float, report: dict[str, Any]) -> bool:
        """Rank a trial at a rung, once; whether it goes on."""
        state = self._ledger.state
        recorded = state.rungs.get(number, {})
        record = state.trials[name]
        recipe = self._config.recipe(record.settings)
        if name in recorded or at < ready_s(recipe):
            return True
        ranking = rank(recorded.values(), report["metrics"]["loss"], self._config.pruning.reduction)
        # The baseline is what all others are measured by: it is ranked against, but runs to its end.
        passed = ranking.passed or record.source == "baseline"
        self._ledger.append(
            "ranked", trial=name, rung=number, rung_s=at, seen_s=report["seen_s"], metric="loss",
            **{**asdict(ranking), "passed": passed},
        )  # fmt: skip
        if not passed:
            self._end(
                name,
                "pruned",
                f"eval loss {ranking.value:.4f} at {report['seen_s']:.0f} s of audio is above {ranking.cutoff:.4f}, "
                f"the best 1/{self._config.pruning.reduction} of {ranking.cohort} trials",
            )
        return passed

    def _end(self, name: str, state: str, reason: str) -> None:
        self._ledger.append("ended", trial=name, state=state, reason=reason)

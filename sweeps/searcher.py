"""What to try next: a Ray Tune searcher over our own Optuna study, rebuilt from the ledger.

The study is in memory; the ledger is what lasts. States are told as they are: COMPLETE with the WER; PRUNED with the
curve of eval losses, which is one metric for all and finite; FAIL for crashes only, which the sampler ignores.
Diverged settings are told as PRUNED with a large loss, so that the sampler learns to stay away from them.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher

from hausa_asr.config import SweepConfig
from sweeps.ledger import Ledger, TrialRecord
from sweeps.space import parameters, propose

DIVERGED_LOSS = 1e3
"""What a diverged trial is told as; eval losses are a few nats per label."""

DIVERGED = "diverged"
STARTING_POINT = "starting point "
"""Before the name of a starting point, in the source of its trial."""
CRASHED = "its workers crashed again and again; the sweep's log says how"


class SweepSearcher(Searcher):
    """Hands out the baseline, the starting points, then what TPE proposes; after a resume first the unfinished ones.

    Args:
        config: the sweep's settings.
        ledger: the sweep's ledger; proposals are written to it before they are handed out.
        job: makes a trial's Tune configuration.

    Attributes:
        trial_of: our trial id by Tune's.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes snapshots of what it is given, but the ledger is what lasts."""
        return {}

    def __init__(self, config: SweepConfig, ledger: Ledger, job: Callable[[TrialRecord], dict[str, Any]]) -> None:
        super().__init__(metric="loss", mode="min")
        self._config, self._ledger, self._job = config, ledger, job
        self.trial_of: dict[str, str] = {}
        self._asked: dict[str, optuna.Trial] = {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        state = ledger.state
        self._study = _new_study(config, len(state.trials))
        self._unfinished = deque(trial.id for trial in state.trials.values() if trial.is_open)
        for trial in [state.trials[i] for i in state.ended] + [state.trials[i] for i in self._unfinished]:
            self._add(trial)

    def suggest(self, trial_id: str) -> Any:
        """The next trial's Tune configuration, or FINISHED. Called by Tune."""
        state = self._ledger.state
        if self._unfinished:
            trial = state.trials[self._unfinished.popleft()]
        elif len(state.trials) >= self._config.search.trials:
            return Searcher.FINISHED
        else:
            trial = self._new(f"t{len(state.trials):03d}")
        self.trial_of[trial_id] = trial.id
        return self._job(trial)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """A trial has ended; the ledger says how. Called by Tune."""
        trial = self._ledger.state.trials[self.trial_of[trial_id]]
        if error and trial.is_open:
            self._ledger.append("ended", trial=trial.id, state="failed", reason=CRASHED)
        asked = None if trial.is_open else self._asked.pop(trial.id, None)
        if asked is None:
            return
        state, value, curve = _outcome(trial)
        known = self._study.trials[asked.number].intermediate_values
        for step, loss in curve.items():
            if step not in known:
                asked.report(loss, step)
        self._study.tell(asked, value, state=state)

    def save(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""

    def _new(self, trial_id: str) -> TrialRecord:
        state = self._ledger.state
        given = self._given()
        if given is not None:
            source, settings = given
            self._ledger.append("proposed", trial=trial_id, settings=settings, source=source)
            self._add(state.trials[trial_id])
        else:
            asked = self._study.ask()
            settings, source = propose(self._config.space, asked), "search"
            self._asked[trial_id] = asked
            self._ledger.append("proposed", trial=trial_id, settings=settings, source=source)
        return state.trials[trial_id]

    def _given(self) -> tuple[str, dict[str, Any]] | None:
        """The next recipe that the settings name, as (source, settings), or None when all have been tried."""
        tried = {trial.source for trial in self._ledger.state.trials.values()}
        if "baseline" not in tried:
            return "baseline", dict(self._config.baseline)
        for name, settings in self._config.starting_points.items():
            if f"{STARTING_POINT}{name}" not in tried and settings != self._config.baseline:
                return f"{STARTING_POINT}{name}", dict(settings)
        return None

    def _add(self, trial: TrialRecord) -> None:
        """Put a trial of the ledger into the study, ended or still running."""
        values, distributions = parameters(self._config.space, trial.settings)
        state, value, curve = _outcome(trial)
        self._study.add_trial(
            create_trial(
                state=state, value=value, params=values, distributions=distributions, intermediate_values=curve
            )
        )
        if trial.is_open:
            self._asked[trial.id] = optuna.Trial(self._study, self._study.trials[-1]._trial_id)


def _new_study(config: SweepConfig, proposed: int) -> optuna.Study:
    """An empty study. The seed takes in how many trials were proposed, so that a resume does not draw them again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `group` is marked experimental
        sampler = optuna.samplers.TPESampler(
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=config.search.random_trials,
            seed=config.search.seed * 100_003 + proposed,
        )
    return optuna.create_study(direction="minimize", sampler=sampler, pruner=optuna.pruners.NopPruner())


def _outcome(trial: TrialRecord) -> tuple[TrialState, float | None, dict[int, float]]:
    """A trial of ours as Optuna shall see it: its state, its value, and its curve of eval losses by step."""
    curve = {r["step"]: r["metrics"]["loss"] for r in trial.reports if math.isfinite(r["metrics"]["loss"])}
    if trial.is_open:
        return TrialState.RUNNING, None, curve
    if trial.state == "finished" and trial.best:
        return TrialState.COMPLETE, trial.best["wer"], curve
    if trial.reason == DIVERGED:
        return TrialState.PRUNED, None, {**curve, max(curve, default=0) + 1: DIVERGED_LOSS}
    if trial.state == "pruned":
        return TrialState.PRUNED, None, curve
    return TrialState.FAIL, None, curve

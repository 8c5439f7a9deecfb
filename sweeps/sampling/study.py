"""What the sampler knows and what it proposes: an Optuna study in memory, always what the ledger says.

In: the ledger's trials. Those that finished are COMPLETE with their WER. Pruned ones are PRUNED with their curve of
unmasked eval losses over seconds of audio, one finite metric for all. Diverged ones are PRUNED at their first
evaluation with a large loss, so that the sampler learns to stay away from them. Crashed ones are FAIL, which the
sampler ignores. Out: settings that were not tried before. Called by the agenda.

A proposal is a function of the seed, of the number of the trial and of what is known by then, so a resumed sweep
proposes what the sweep without a stop would have proposed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hausa_asr.settings.sweep import SweepConfig
from sweeps.record.state import DIVERGED, TrialRecord
from sweeps.sampling.space import parameters, propose

DIVERGED_LOSS = 1e3
"""The loss that stands for a diverged trial; eval losses are a few nats per label."""
NEAR = 0.01
"""Settings that differ by less than this share of every range, and in no choice, are the same."""
_TRIES = 10
_RANDOM_TRIES = 200


class Outcome(NamedTuple):
    """A trial as Optuna sees it: its state, its WER if it is COMPLETE, and its eval losses by seconds of audio."""

    state: TrialState
    value: float | None
    curve: dict[int, float]


class Study:
    """Keep an Optuna study that says what the ledger says, and propose new settings.

    Args:
        config: the sweep's settings.
        earlier: trials of earlier sweeps that it learns from.
    """

    def __init__(self, config: SweepConfig, earlier: Sequence[FrozenTrial] = ()) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config, self._earlier = config, list(earlier)
        self._known: dict[str, TrialRecord] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._tried = _Tried()
        for one in self._earlier:
            self._tried.add(one.params, one.distributions)
        self._rebuild()

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials that the sampler sees, in the order of proposal; those of earlier sweeps first."""
        return self._study.get_trials(deepcopy=False)

    def update(self, trial: TrialRecord) -> None:
        """Take in what the ledger has of a trial; called whenever that has changed."""
        new = trial.id not in self._known
        self._known[trial.id] = trial
        now = outcome(trial)
        if new:
            values, distributions = parameters(self._config.space, trial.settings)
            self._tried.add(values, distributions)
            self._put(trial)
        elif self._outcomes[trial.id].state is TrialState.RUNNING:
            self._end(trial, now)
        elif now != self._outcomes[trial.id]:
            self._stale = True  # a paused trial that goes on: Optuna can't take an outcome back

    def propose(self, number: int) -> dict[str, Any] | None:
        """Propose settings for the trial of this number; None once everything in the space has been tried."""
        if self._stale:
            self._rebuild()
        for attempt in range(_TRIES + _RANDOM_TRIES):
            seed = (self._config.search.seed * 100_003 + number) * 1_009 + attempt
            self._study.sampler = self._sampler(seed) if attempt < _TRIES else optuna.samplers.RandomSampler(seed)
            asked = self._study.ask()
            settings = propose(self._config.space, asked)
            self._study.tell(asked, state=TrialState.FAIL)  # the sampler ignores it; the trial itself comes by `update`
            if not self._tried.near(asked.params, asked.distributions):
                return settings
        return None

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `group` is marked experimental
            return optuna.samplers.TPESampler(
                multivariate=True,
                group=True,
                constant_liar=True,
                n_startup_trials=self._config.search.random_trials,
                seed=seed % 2**32,
            )

    def _rebuild(self) -> None:
        self._study = optuna.create_study(direction="minimize", pruner=optuna.pruners.NopPruner())
        self._study.add_trials(self._earlier)
        self._running: dict[str, optuna.Trial] = {}
        self._stale = False
        for trial in self._known.values():
            self._put(trial)

    def _put(self, trial: TrialRecord) -> None:
        """Add a trial to the study as it is now."""
        now = outcome(trial)
        values, distributions = parameters(self._config.space, trial.settings)
        self._study.add_trial(
            create_trial(
                state=now.state,
                value=now.value,
                params=values,
                distributions=distributions,
                intermediate_values=now.curve,
            )
        )
        self._outcomes[trial.id] = now
        if now.state is TrialState.RUNNING:
            last = self._study.get_trials(deepcopy=False)[-1]
            self._running[trial.id] = optuna.Trial(self._study, last._trial_id)

    def _end(self, trial: TrialRecord, now: Outcome) -> None:
        """Give a running trial of the study its outcome, if it has one by now."""
        if now.state is TrialState.RUNNING:
            return
        running = self._running.pop(trial.id)
        for at, loss in now.curve.items():
            if at not in self._outcomes[trial.id].curve:
                running.report(loss, at)
        self._study.tell(running, now.value, state=now.state)
        self._outcomes[trial.id] = now


def outcome(trial: TrialRecord) -> Outcome:
    """A trial as Optuna sees it."""
    curve = {int(point.seen_s): point.loss for point in trial.points if math.isfinite(point.loss)}
    if trial.is_open:
        return Outcome(TrialState.RUNNING, None, curve)
    if trial.state == "finished" and trial.best:
        return Outcome(TrialState.COMPLETE, trial.best["wer"], curve)
    if trial.reason == DIVERGED:
        first_s = int(trial.reports[0].seen_s) if trial.reports else 1
        return Outcome(TrialState.PRUNED, None, {first_s: DIVERGED_LOSS})
    if trial.state in ("pruned", "paused"):
        return Outcome(TrialState.PRUNED, None, curve)
    return Outcome(TrialState.FAIL, None, curve)


class _Tried:
    """Which settings were tried, to be found again though they differ by a hair."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Any, ...], list[list[float]]] = {}

    def add(self, values: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> None:
        key, place = self._place(values, distributions)
        self._seen.setdefault(key, []).append(place)

    def near(self, values: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> bool:
        key, place = self._place(values, distributions)
        return any(
            all(abs(a - b) < NEAR for a, b in zip(place, other, strict=True)) for other in self._seen.get(key, ())
        )

    @staticmethod
    def _place(
        values: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
    ) -> tuple[tuple[Any, ...], list[float]]:
        """What must be equal, and where in its range each number is, from 0 to 1."""
        equal: list[Any] = []
        place: list[float] = []
        for name in sorted(values):
            one, value = distributions[name], values[name]
            if isinstance(one, FloatDistribution):
                low, high = (math.log(one.low), math.log(one.high)) if one.log else (one.low, one.high)
                equal.append(name)
                place.append(((math.log(value) if one.log else value) - low) / (high - low))
            else:
                assert isinstance(one, IntDistribution) or value is not None
                equal.append((name, repr(value)))
        return tuple(equal), place


def useful_trials(config: SweepConfig, trials: Iterable[TrialRecord]) -> list[FrozenTrial]:
    """The trials of an earlier sweep that this sweep's sampler can learn from, as Optuna sees them."""
    frozen = []
    for trial in trials:
        end = outcome(trial)
        values, distributions = parameters(config.space, trial.settings)
        if end.state not in (TrialState.COMPLETE, TrialState.PRUNED) or not values:
            continue
        frozen.append(
            create_trial(
                state=end.state,
                value=end.value,
                params=values,
                distributions=distributions,
                intermediate_values=end.curve,
            )
        )
    return frozen

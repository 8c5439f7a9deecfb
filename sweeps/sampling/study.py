"""What is proposed next: settings that were not tried before, by what is expected of them.

In: the ledger's trials, lessons of earlier sweeps, and a `Predictor`, which knows where each trial is expected to end.
Out: settings. Two samplers can be set. `gp` draws candidates and takes the one with the largest expected gain. `tpe` is
Optuna's: every trial is COMPLETE for it, with the standing that is expected of it, also while it runs or after it was
stopped. Optuna ranks COMPLETE before PRUNED whatever their values, so with those two states a bad baseline, which
comes to its end, would be its best trial. Crashed trials are FAIL, which it ignores. Called by the agenda.

A proposal is a function of the seed, of the number of the trial and of what is known by then, so a resumed sweep
proposes what the sweep without a stop would have proposed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hausa_asr.settings.sweep import SweepConfig
from sweeps.prediction.predictor import Expected, Predictor
from sweeps.record.trial import DIVERGED, TrialRecord
from sweeps.sampling.candidates import Candidates
from sweeps.sampling.encode import Encoder
from sweeps.sampling.lessons import Lesson, most_telling
from sweeps.sampling.space import parameters, propose

NEAR = 0.01
"""Settings that differ by less than this share of every range, and in no choice, are the same."""
CANDIDATES = 500
"""The GP sampler scores 500 random settings from the whole space. Adding some close to the best trials made the search
get stuck around its first ones (docs/log.md)."""
_LESSONS = 60
_TRIES = 10
_RANDOM_TRIES = 200
_NOBODY = ""
"""The id of no trial: what is expected of it is expected of those of which nothing is known."""

_Parameters = tuple[dict[str, Any], dict[str, BaseDistribution]]
_Given = tuple[TrialState, float | None]


class Study:
    """Keep what the ledger says of all trials, and propose new settings.

    Args:
        config: the sweep's settings.
        earlier: trials of earlier sweeps that it learns from.
        predictor: what is expected of the trials; it is kept up to date here. By default one without rungs, which
            knows the trials that finished or diverged.
    """

    def __init__(self, config: SweepConfig, earlier: Sequence[Lesson] = (), predictor: Predictor | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config, self._search = config, config.search
        self._predictor = predictor if predictor is not None else Predictor([])
        self._encode = Encoder(config)
        self._candidates = Candidates(config.space)
        self._known: dict[str, TrialRecord] = {}
        self._parameters: dict[str, _Parameters] = {}
        self._tried = _Tried()
        self._lessons = list(earlier)
        for one in self._lessons:
            self._tried.add(*parameters(config.space, one.settings))
        if self._lessons and config.space:
            taught = most_telling(self._lessons, _LESSONS)
            self._predictor.learn(
                np.array([self._encode(one.settings) for one in taught]),
                np.array([one.standing for one in taught]),
                np.array([one.variance for one in taught]),
            )
        self._study = _new_study()
        self._given: list[_Given] | None = None

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials as Optuna has them, in the order of proposal; those of earlier sweeps first."""
        self._fill()
        return self._study.get_trials(deepcopy=False)[: len(self._lessons) + len(self._known)]

    def update(self, trial: TrialRecord) -> None:
        """Take in what the ledger has of a trial; called whenever that has changed."""
        if trial.id not in self._known:
            self._parameters[trial.id] = parameters(self._config.space, trial.settings, self._encode.defaults)
            self._tried.add(*self._parameters[trial.id])
            self._predictor.place(trial.id, self._encode(trial.settings))
        self._known[trial.id] = trial
        if trial.state == "finished" and trial.best:
            self._predictor.finish(trial.id, trial.best["wer"])
        elif _diverged(trial):
            self._predictor.fail(trial.id)

    def propose(self, number: int) -> dict[str, Any] | None:
        """Propose settings for the trial of this number; None once everything in the space has been tried."""
        seed = (self._search.seed * 100_003 + number) * 1_009
        samplers: list[optuna.samplers.BaseSampler] = []
        if self._search.sampler == "tpe":
            self._fill()
            samplers = [self._tpe(seed + attempt) for attempt in range(_TRIES)]
        else:
            found = self._of_highest_gain(seed)
            if found is not None:
                return found
        samplers += [
            optuna.samplers.RandomSampler((seed + _TRIES + attempt) % 2**32) for attempt in range(_RANDOM_TRIES)
        ]
        for sampler in samplers:
            self._study.sampler = sampler
            asked, settings = self._ask()
            if not self._tried.near(asked.params, asked.distributions):
                return settings
        return None

    def _of_highest_gain(self, seed: int) -> dict[str, Any] | None:
        """The candidate with the largest expected gain; None while too little is known, or if all were tried."""
        if len(self._known) + len(self._lessons) < self._search.random_trials or not self._config.space:
            return None
        rng = np.random.default_rng(seed)
        drawn = [self._candidates.draw(rng) for _ in range(CANDIDATES)]
        places, first = np.unique([self._encode(settings) for settings in drawn], axis=0, return_index=True)
        gains = self._predictor.gains(places, [trial.id for trial in self._known.values() if trial.is_open])
        if gains is None:
            return None
        for at in np.argsort(-gains, kind="stable"):
            values, distributions = parameters(self._config.space, drawn[first[at]])
            if not self._tried.near(values, distributions):
                self._study.enqueue_trial(values)
                return self._ask()[1]
        return None

    def _ask(self) -> tuple[optuna.Trial, dict[str, Any]]:
        """Ask Optuna for a trial; what it gives are the settings."""
        asked = self._study.ask()
        settings = propose(self._config.space, asked)
        self._study.tell(asked, state=TrialState.FAIL)  # the sampler ignores it; the trial itself comes by `update`
        return asked, settings

    def _tpe(self, seed: int) -> optuna.samplers.BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `group` is marked experimental
            return optuna.samplers.TPESampler(
                multivariate=True,
                group=True,
                constant_liar=True,
                n_startup_trials=self._search.random_trials,
                seed=seed % 2**32,
            )

    def _fill(self) -> None:
        """Make Optuna's study anew if more is known by now: Optuna can't take a value back."""
        expected = self._predictor.expected([*self._known, _NOBODY])
        given = [_state(trial, expected[trial.id], expected[_NOBODY]) for trial in self._known.values()]
        if given == self._given:
            return
        self._given = given
        self._study = _new_study()
        for lesson in self._lessons:
            self._add((TrialState.COMPLETE, lesson.mean), parameters(self._config.space, lesson.settings))
        for one, trial in zip(given, self._known, strict=True):
            self._add(one, self._parameters[trial])

    def _add(self, given: _Given, of: _Parameters) -> None:
        state, value = given
        self._study.add_trial(create_trial(state=state, value=value, params=of[0], distributions=of[1]))


def _new_study() -> optuna.Study:
    return optuna.create_study(direction="minimize", pruner=optuna.pruners.NopPruner())


def _state(trial: TrialRecord, expected: Expected, nothing: Expected) -> _Given:
    """A trial's state and value for Optuna; `nothing` is expected of a trial of which nothing is known."""
    if trial.state == "failed" and not _diverged(trial):
        return TrialState.FAIL, None
    if expected == nothing:
        return TrialState.RUNNING, None
    return TrialState.COMPLETE, expected.mean


def _diverged(trial: TrialRecord) -> bool:
    return trial.state == "failed" and trial.reason == DIVERGED


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

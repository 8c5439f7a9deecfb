"""From the settings' space to Optuna: which distributions there are, which are active, and what a proposal means.

Conditional dimensions are asked for only when their condition holds, and a setting with several ranges has one Optuna
parameter per range (`lr_peak`, `lr_peak#1`), so that a distribution never changes under its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from hausa_asr.errors import UserError
from hausa_asr.settings.recipe import Dimension, check_setting
from hausa_asr.settings.sweep import SweepConfig
from sweeps.sampling.conditions import Space, active, ordered


def ask(trial: Trial, parameter: str, wanted: BaseDistribution) -> Any:
    """A value for one parameter from an Optuna trial."""
    if isinstance(wanted, CategoricalDistribution):
        return trial.suggest_categorical(parameter, wanted.choices)
    if isinstance(wanted, IntDistribution):
        return trial.suggest_int(parameter, wanted.low, wanted.high, log=wanted.log)
    assert isinstance(wanted, FloatDistribution)
    return trial.suggest_float(parameter, wanted.low, wanted.high, log=wanted.log)


def parameter(name: str, alternative: int) -> str:
    """The Optuna name of a setting's n-th range."""
    return name if alternative == 0 else f"{name}#{alternative}"


def distribution(name: str, dimension: Dimension) -> BaseDistribution:
    """The Optuna distribution of one dimension; whole-number settings get whole numbers."""
    if dimension.choices is not None:
        return CategoricalDistribution(list(dimension.choices))
    assert dimension.low is not None and dimension.high is not None
    if isinstance(check_setting(name, dimension.low), int):
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def propose(space: Space, trial: Trial) -> dict[str, Any]:
    """A full set of searched settings, each asked for by its Optuna parameter. Inactive ones are left out."""
    settings: dict[str, Any] = {}
    for name in ordered(space):
        number = active(space, name, settings)
        if number is not None:
            settings[name] = ask(trial, parameter(name, number), distribution(name, space[name][number]))
    return settings


def parameters(
    space: Space, settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Settings as Optuna parameters with their distributions, as far as the space contains them.

    What the space lacks or has another range for is left out, so settings of an earlier, narrower or other sweep, or
    a baseline outside the space, still teach the sampler what they can.

    Args:
        space: the searched settings.
        settings: a trial's own.
        defaults: the recipe beside them. A baseline leaves settings to it that are searched: they are known too.
    """
    values: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    known: dict[str, Any] = {}
    given = {**(defaults or {}), **settings}
    for name in ordered(space):
        number = active(space, name, known)
        if number is None or name not in given:
            continue
        known[name] = given[name]
        one = distribution(name, space[name][number])
        if _contains(one, given[name]):
            values[parameter(name, number)] = given[name]
            distributions[parameter(name, number)] = one
    return values, distributions


def _contains(one: BaseDistribution, value: Any) -> bool:
    if isinstance(one, CategoricalDistribution):
        return value in one.choices
    assert isinstance(one, FloatDistribution | IntDistribution)
    return one.low <= value <= one.high


def check(config: SweepConfig) -> None:
    """Refuse a space that cannot be searched.

    Raises:
        UserError: nothing is searched though trials are wanted, or conditions run in a circle.
    """
    ordered(config.space)
    if not config.space and config.search.trials > 1:
        raise UserError(
            f"{config.search.trials} trials are wanted but the space is empty.",
            where="space",
            fix="Name the settings to search, or set search.trials=1 for the baseline alone.",
        )

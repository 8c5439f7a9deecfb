"""Settings that might be tried next: drawn at random from the space, or near settings that are known to be good.

In: the space, a random generator, and perhaps settings to be near to. Out: settings whose conditions hold. Which of
them is tried is the predictor's to say (`study`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweeps.sampling.space import Space, active, distribution, ordered

KEPT = 0.6
"""The chance that a setting stays as it is near others."""
STEP = 0.1
"""The standard deviation of a step away from them, as a share of the range."""


class Candidates:
    """Draw settings from one space."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._ranges = {name: [distribution(name, one) for one in space[name]] for name in ordered(space)}

    def draw(self, rng: np.random.Generator, near: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Draw one set of searched settings; inactive ones are left out.

        Args:
            rng: where the chance comes from.
            near: a value for every searched setting, to be kept or slightly changed; None to draw from all of the
                space.
        """
        settings: dict[str, Any] = {}
        for name, ranges in self._ranges.items():
            number = active(self._space, name, settings)
            if number is not None:
                one = ranges[number]
                settings[name] = _value(one, rng.random()) if near is None else _near(one, near[name], rng)
        return settings


def _near(one: BaseDistribution, value: Any, rng: np.random.Generator) -> Any:
    keep = rng.random() < KEPT
    if isinstance(one, CategoricalDistribution):
        return value if keep and value in one.choices else _value(one, rng.random())
    assert isinstance(one, FloatDistribution | IntDistribution)
    if not isinstance(value, int | float):
        return _value(one, rng.random())
    if keep:
        return min(one.high, max(one.low, value))
    low, high = _ends(one)
    place = ((math.log(max(value, one.low)) if one.log else value) - low) / (high - low)
    return _value(one, min(1.0, max(0.0, place + STEP * rng.standard_normal())))


def _value(one: BaseDistribution, place: float) -> Any:
    """The value at a place in a range or among choices, from 0 to 1."""
    if isinstance(one, CategoricalDistribution):
        return one.choices[min(int(place * len(one.choices)), len(one.choices) - 1)]
    assert isinstance(one, FloatDistribution | IntDistribution)
    low, high = _ends(one)
    value = low + place * (high - low)
    value = math.exp(value) if one.log else value
    if isinstance(one, IntDistribution):
        value = round(value)
    return min(one.high, max(one.low, value))


def _ends(one: BaseDistribution) -> tuple[float, float]:
    """The ends of a range, on the scale that it is drawn on; whole numbers have half a step at each end."""
    assert isinstance(one, FloatDistribution | IntDistribution)
    low, high = one.low, one.high
    if isinstance(one, IntDistribution):
        low, high = low - 0.5, high + 0.5
    return (math.log(low), math.log(high)) if one.log else (low, high)

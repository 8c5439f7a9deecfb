"""Settings that might be tried next, drawn at random from all of the space.

In: the space and a random generator. Out: settings whose conditions hold. Which of them is tried is the predictor's to
say (`study`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweeps.sampling.conditions import Space, active, ordered
from sweeps.sampling.space import distribution


class Candidates:
    """Draw settings from one space."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._ranges = {name: [distribution(name, one) for one in space[name]] for name in ordered(space)}

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw one set of searched settings; inactive ones are left out."""
        settings: dict[str, Any] = {}
        for name, ranges in self._ranges.items():
            number = active(self._space, name, settings)
            if number is not None:
                settings[name] = _value(ranges[number], rng.random())
        return settings


def _value(one: BaseDistribution, place: float) -> Any:
    """The value at a place in a range or among choices, from 0 to 1."""
    if isinstance(one, CategoricalDistribution):
        return one.choices[min(int(place * len(one.choices)), len(one.choices) - 1)]
    assert isinstance(one, FloatDistribution | IntDistribution)
    low, high = one.low, one.high
    if isinstance(one, IntDistribution):
        low, high = low - 0.5, high + 0.5  # each end is as likely as what is between them
    low, high = (math.log(low), math.log(high)) if one.log else (low, high)
    value = low + place * (high - low)
    value = math.exp(value) if one.log else value
    if isinstance(one, IntDistribution):
        value = round(value)
    return min(one.high, max(one.low, value))

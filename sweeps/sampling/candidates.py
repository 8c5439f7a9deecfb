"""Settings that might be tried next, drawn at random from all of the space.

In: the space and a source of chance. Out: settings whose conditions hold. Which of them is tried is the predictor's to
say (`study`); the planning draws some to see how many of them start slowly. Without Optuna, so that a plan is quick.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

from hausa_asr.settings.recipe import Dimension, check_setting
from sweeps.sampling.conditions import Space, active, ordered


class Chance(Protocol):
    """A `random.Random`, or a generator of NumPy's."""

    def random(self) -> float: ...


class Candidates:
    """Draw settings from one space."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._ranges = {name: [_range(name, one) for one in space[name]] for name in ordered(space)}

    def draw(self, chance: Chance) -> dict[str, Any]:
        """Draw one set of searched settings; inactive ones are left out."""
        settings: dict[str, Any] = {}
        for name, ranges in self._ranges.items():
            number = active(self._space, name, settings)
            if number is not None:
                settings[name] = ranges[number].value(chance.random())
        return settings


class _Range(NamedTuple):
    """One range of a setting, or its choices; `whole` where it takes whole numbers."""

    choices: list[Any]
    low: float
    high: float
    log: bool
    whole: bool

    def value(self, place: float) -> Any:
        """The value at a place in it, from 0 to 1."""
        if self.choices:
            return self.choices[min(int(place * len(self.choices)), len(self.choices) - 1)]
        low, high = self.low, self.high
        if self.whole:
            low, high = low - 0.5, high + 0.5  # each end is as likely as what is between them
        low, high = (math.log(low), math.log(high)) if self.log else (low, high)
        value = low + place * (high - low)
        value = math.exp(value) if self.log else value
        if self.whole:
            return min(int(self.high), max(int(self.low), round(value)))
        return min(self.high, max(self.low, value))


def _range(name: str, one: Dimension) -> _Range:
    if one.choices is not None:
        return _Range(list(one.choices), 0.0, 0.0, log=False, whole=False)
    assert one.low is not None and one.high is not None
    return _Range([], one.low, one.high, one.log, whole=isinstance(check_setting(name, one.low), int))

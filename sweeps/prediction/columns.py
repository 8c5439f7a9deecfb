"""One setting as numbers from 0 to 1: what the predictor's settings are made of.

In: a range, or choices. Out: a function from a value to its columns. A sweep makes them from its space
(`sampling/encode.py`), and a replay from its table (`replay/places.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

UNKNOWN = 0.5
"""The place of what has no number."""
LOWEST, HIGHEST = -0.3, 1.3
"""Values outside their range are at most so far out."""
CHOICE = 0.7
"""Two choices are this far from each other along each of their two axes, so about 1 in all."""

Columns = Callable[[Any], list[float]]


def between(low: float, high: float, log: bool) -> Columns:
    """The place in a range; on a logarithmic one, `low` is above 0."""
    low, high = (math.log(low), math.log(high)) if log else (low, high)

    def place(value: Any) -> list[float]:
        if not is_number(value) or low == high:
            return [UNKNOWN]
        if log:
            value = math.log(value) if value > 0 else -math.inf
        return [min(HIGHEST, max(LOWEST, (value - low) / (high - low)))]

    return place


def among(choices: Sequence[float]) -> Columns:
    """The place among sorted choices, whatever their distances; between two of them for a value that is none."""

    def place(value: Any) -> list[float]:
        if len(choices) < 2 or not is_number(value):
            return [UNKNOWN]
        return [float(np.interp(value, choices, np.linspace(0, 1, len(choices))))]

    return place


def one_hot(choices: Sequence[Any]) -> Columns:
    """A column for each choice."""

    def place(value: Any) -> list[float]:
        return [CHOICE * (value == choice) for choice in choices] if value in choices else [UNKNOWN] * len(choices)

    return place


def is_number(value: Any) -> bool:
    """Whether a value has a place in a range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)

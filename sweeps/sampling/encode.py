"""Settings as numbers, for the predictor: each searched setting has its columns, the same ones for every trial.

In: the space and a trial's settings. What a trial leaves out, since it is a baseline or has no use for it, is at the
recipe's default. Out: numbers from 0 to 1, and somewhat beyond for settings outside the space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from hausa_asr.settings.recipe import Dimension
from hausa_asr.settings.sweep import SweepConfig
from sweeps.sampling.space import ordered

UNKNOWN = 0.5
"""The place of what has no number."""
LOWEST, HIGHEST = -0.3, 1.3
"""Settings outside their range are at most so far out."""
CHOICE = 0.7
"""Two choices are this far from each other along each of their two axes, so about 1 in all."""

_Columns = Callable[[Any], list[float]]


class Encoder:
    """Encode the settings of one sweep's trials.

    Args:
        config: the sweep's settings.

    Attributes:
        defaults: the fixed recipe, which holds where a trial's settings leave something out.
    """

    def __init__(self, config: SweepConfig) -> None:
        self.defaults: dict[str, Any] = asdict(config.recipe())
        self._columns = [(name, _columns(config.space[name])) for name in ordered(config.space)]

    def __call__(self, settings: Mapping[str, Any]) -> np.ndarray:
        """(D,) numbers for one trial's settings."""
        row: list[float] = []
        for name, columns in self._columns:
            row += columns(settings[name] if name in settings else self.defaults.get(name))
        return np.array(row)


def encode(config: SweepConfig, settings: Mapping[str, Any]) -> np.ndarray:
    """(D,) numbers for one trial's settings; for many trials of a sweep make an `Encoder` once."""
    return Encoder(config)(settings)


def _columns(dimensions: Sequence[Dimension]) -> _Columns:
    """What encodes one setting: over all its ranges together, since only one of them holds for a trial."""
    choices: list[Any] = []
    for one in dimensions:
        choices += [choice for choice in one.choices or () if choice not in choices]
    if not all(_is_number(choice) for choice in choices):
        return _one_hot(choices)
    ends = [end for one in dimensions for end in (one.low, one.high) if end is not None]
    if not ends:
        return _place_among(sorted(choices))
    low, high = min(ends + choices), max(ends + choices)
    return _place_between(low, high, log=low > 0 and any(one.log for one in dimensions))


def _place_between(low: float, high: float, log: bool) -> _Columns:
    low, high = (math.log(low), math.log(high)) if log else (low, high)

    def place(value: Any) -> list[float]:
        if not _is_number(value):
            return [UNKNOWN]
        if log:
            value = math.log(value) if value > 0 else -math.inf
        return [min(HIGHEST, max(LOWEST, (value - low) / (high - low)))]

    return place


def _place_among(choices: Sequence[float]) -> _Columns:
    """The place among sorted choices, whatever their distances; between two of them for a value that is none."""

    def place(value: Any) -> list[float]:
        if len(choices) < 2 or not _is_number(value):
            return [UNKNOWN]
        return [float(np.interp(value, choices, np.linspace(0, 1, len(choices))))]

    return place


def _one_hot(choices: Sequence[Any]) -> _Columns:
    def place(value: Any) -> list[float]:
        return [CHOICE * (value == choice) for choice in choices] if value in choices else [UNKNOWN] * len(choices)

    return place


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)

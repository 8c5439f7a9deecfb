"""Settings as numbers, for the predictor: each searched setting has its columns, the same ones for every trial.

In: the space and a trial's settings. What a trial leaves out, since it is a baseline or has no use for it, is at the
recipe's default. Out: numbers from 0 to 1, and somewhat beyond for settings outside the space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from hausa_asr.settings.recipe import Dimension
from hausa_asr.settings.sweep import SweepConfig
from sweeps.prediction.columns import Columns, among, between, is_number, one_hot
from sweeps.sampling.conditions import ordered


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


def _columns(dimensions: Sequence[Dimension]) -> Columns:
    """What encodes one setting: over all its ranges together, since only one of them holds for a trial."""
    choices: list[Any] = []
    for one in dimensions:
        choices += [choice for choice in one.choices or () if choice not in choices]
    if not all(is_number(choice) for choice in choices):
        return one_hot(choices)
    ends = [end for one in dimensions for end in (one.low, one.high) if end is not None]
    if not ends:
        return among(sorted(choices))
    low, high = min(ends + choices), max(ends + choices)
    return between(low, high, log=low > 0 and any(one.log for one in dimensions))

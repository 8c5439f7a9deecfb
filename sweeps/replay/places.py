"""Settings of recorded curves as numbers, for the sampler of a replay.

In: the settings of a whole table. Out: one tuple of numbers each, made from the table alone, so that a table of any
space can be replayed. A sweep itself uses its space (`sampling/encode.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.prediction.columns import Columns, between, is_number, one_hot

_LOG_RANGE = 20.0
"""A setting whose values differ by more than this factor, all above 0, is taken by its logarithm."""


def places(settings: Sequence[Mapping[str, Any]]) -> list[tuple[float, ...]]:
    """Each of N settings as numbers; one that lacks a setting, since it has no meaning there, has no place in it."""
    names = sorted({name for one in settings for name in one})
    columns = {name: _columns([one[name] for one in settings if name in one]) for name in names}
    return [tuple(number for name in names for number in columns[name](one.get(name))) for one in settings]


def _columns(known: Sequence[Any]) -> Columns:
    if not all(map(is_number, known)):
        return one_hot(sorted(set(known), key=str))
    low, high = min(known), max(known)
    return between(low, high, log=low > 0 and high / low > _LOG_RANGE)

"""Settings of recorded curves as numbers, for the sampler of a replay.

In: the settings of a whole table. Out: one tuple of numbers each, made from the table alone, so that a table of any
space can be replayed. A sweep itself uses its space (`sampling/encode.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_LOG_RANGE = 20.0
"""A setting whose values differ by more than this factor, all above 0, is taken by its logarithm."""
_CHOICE = 0.7
"""Two choices are this far from each other along each of their two axes."""


def places(settings: Sequence[Mapping[str, Any]]) -> list[tuple[float, ...]]:
    """Each of N settings as numbers from 0 to 1; a setting that one lacks, since it has no meaning there, is at 0.5."""
    columns: list[list[float]] = []
    for name in sorted({name for one in settings for name in one}):
        values = [one.get(name) for one in settings]
        known = [value for value in values if value is not None]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
            columns.append(_numbers(values, known))
        else:
            for choice in sorted({str(value) for value in known}):
                columns.append([0.5 if v is None else _CHOICE * (str(v) == choice) for v in values])
    return list(zip(*columns, strict=True)) if columns else [() for _ in settings]


def _numbers(values: Sequence[Any], known: Sequence[float]) -> list[float]:
    log = min(known) > 0 and max(known) / min(known) > _LOG_RANGE
    low, high = (math.log(min(known)), math.log(max(known))) if log else (min(known), max(known))
    width = (high - low) or 1.0
    return [0.5 if v is None else ((math.log(v) if log else v) - low) / width for v in values]

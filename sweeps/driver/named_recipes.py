"""The recipes that a sweep's settings name: the baseline and the starting points, which are tried before any other.

In: the settings and the trials so far. Out: the next one. Called by the agenda.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hausa_asr.settings.sweep import SweepConfig
from sweeps.record.trial import BASELINE, TrialRecord

STARTING_POINT = "starting point "
"""Before the name of a starting point, in the source of its trial."""


def named_in_settings(config: SweepConfig, searched: Iterable[TrialRecord]) -> tuple[str, dict[str, Any]] | None:
    """The next recipe that the settings name, as (source, settings); None once all were tried."""
    given = {trial.source: trial.settings for trial in searched if trial.source != "search"}
    tried = [config.recipe(settings) for settings in given.values()]
    if BASELINE not in given:
        return BASELINE, dict(config.baseline)
    for name, settings in config.starting_points.items():
        source = f"{STARTING_POINT}{name}"
        if source not in given and config.recipe(settings) not in tried:
            return source, dict(settings)
    return None

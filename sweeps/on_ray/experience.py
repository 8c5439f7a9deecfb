"""What the trials of a sweep have shown of its hardware: how long a report takes, and what fits into memory.

In: each report of a slot. Out: how long the next trial's slot is to wait, and the size of its micro-batches. A slot
knows of its own process only, and is rebuilt when something breaks. Made by `tune_run`, filled by the scheduler.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping

from hausa_asr.settings.sweep import SweepConfig
from sweeps.on_ray.messages import Reported
from sweeps.record.trial import TrialRecord

log = logging.getLogger("sweeps")

OVERDUE = 10.0
"""A report that takes this many times the longest wait so far is overdue."""

_Kind = tuple[str, bool]
"""What decides how long a trial takes to get ready: its base checkpoint, and whether it reads cached features."""


class Experience:
    """Learn from reports.

    Args:
        config: the sweep's settings.
        trials: those so far. Of waits under an earlier driver nothing is taken over, since the hardware may differ.
    """

    def __init__(self, config: SweepConfig, trials: Iterable[TrialRecord]) -> None:
        self._config = config
        self._waits_s: dict[_Kind, float] = {}
        self._first_waits_s: dict[_Kind, float] = {}
        self._nodes: dict[_Kind, set[str]] = {}
        self._fitting_s: dict[str, float] = {}
        for trial in trials:
            for report in trial.reports:
                self._learn_of_memory(trial, report.metrics)

    def learn(self, trial: TrialRecord, message: Reported) -> None:
        """Take in a report."""
        waits_s, kind = self._first_waits_s if message.is_first else self._waits_s, self._kind(trial)
        waits_s[kind] = max(waits_s.get(kind, 0.0), message.wait_s)
        self._nodes.setdefault(kind, set()).update(message.nodes)
        if self._learn_of_memory(trial, message.progress.metrics):
            log.warning("%s: its workers had too little memory: from now on trials from %s begin with micro-batches of "
                        "%g s of audio", trial.id, kind[0], self._fitting_s[kind[0]])  # fmt: skip

    def _learn_of_memory(self, trial: TrialRecord, metrics: Mapping[str, float]) -> bool:
        """Note the size of micro-batches, if that is smaller than asked for; whether none has been as small so far."""
        recipe = self._config.recipe(trial.settings)
        fitting_s = metrics.get("micro_batch_s", math.inf)
        if fitting_s >= min(recipe.micro_batch_s, self._fitting_s.get(recipe.base, math.inf)):
            return False
        self._fitting_s[recipe.base] = fitting_s
        return True

    def micro_batch_s(self, trial: TrialRecord) -> float:
        """Seconds of audio in a trial's micro-batches: as many as its recipe says and as have fit."""
        recipe = self._config.recipe(trial.settings)
        return min(recipe.micro_batch_s, self._fitting_s.get(recipe.base, math.inf))

    def longest_wait_s(self, trial: TrialRecord) -> float:
        """The longest wait of such trials between two reports; 0.0 before the first."""
        return self._waits_s.get(self._kind(trial), 0.0)

    def warm_nodes(self, trial: TrialRecord) -> list[str]:
        """The nodes on which such trials have reported: they have what such a trial must fetch or cache first."""
        return sorted(self._nodes.get(self._kind(trial), ()))

    def first_report_s(self, trial: TrialRecord) -> float:
        """How long a trial's first report may take on a warm node: it includes set-up, though no new feature cache.

        The first of a resumed trial is its checkpoint's and comes without training, so it alone shows too little.
        """
        kind, settings = self._kind(trial), self._config.cluster
        if kind not in self._first_waits_s or kind not in self._waits_s:
            return settings.first_report_timeout_s
        seen_s = self._first_waits_s[kind] + self._waits_s[kind]
        return min(settings.first_report_timeout_s, max(settings.report_timeout_s, OVERDUE * seen_s))

    def _kind(self, trial: TrialRecord) -> _Kind:
        recipe = self._config.recipe(trial.settings)
        return recipe.base, recipe.can_cache_features

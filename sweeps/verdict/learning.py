"""What a trial's learning curve shows, in sentences.

In: a trial as the ledger has it. Out: its evaluations as `hausa_asr.diagnosis.curve` reads them, and what that says.
Called by `result` for the model card, and by the report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hausa_asr.diagnosis.curve import Evaluated, read_curve
from hausa_asr.settings.sweep import SweepConfig
from sweeps.record.trial import Report, TrialRecord


def evaluated(reports: Sequence[Report]) -> list[Evaluated]:
    """A trial's reports as evaluations."""
    return [
        Evaluated(
            report.step,
            report.metrics["wer"],
            report.metrics["loss"],
            report.metrics.get("train_loss", math.nan),
            report.metrics.get("grad_norm", math.nan),
        )
        for report in reports
    ]


def learned(config: SweepConfig, trial: TrialRecord) -> list[str]:
    """What a trial's learning curve shows.

    Args:
        config: the sweep's settings.
        trial: any of its trials.
    """
    if not trial.reports:
        return []
    updates = trial.reports[-1].updates
    return read_curve(evaluated(trial.reports), updates, config.recipe(trial.settings).warmup_fraction * updates)

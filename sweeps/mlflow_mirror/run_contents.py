"""What a trial's run in MLflow should hold, and what it holds already.

In: a trial's record, its run as read back, its best checkpoint. Out: rows of metrics, transcripts, a colour, and what
is still lacking. Called by the mirror.
"""

from __future__ import annotations

import colorsys
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from hausa_asr.metrics import wer
from hausa_asr.tracking.tracker import SAMPLES_FILE, STATUS, MetricsRow, Sample, TrialRun
from sweeps.record.trial import TrialRecord
from sweeps.wording import short

_LONGEST_NAME = 60
AT_BEST = ("wer_folded", "cer_folded")
"""Metrics of the best checkpoint that only its own report has."""


@dataclass
class RunContents:
    """What a trial's run holds already.

    Attributes:
        step: the optimizer step of the last report; None where MLflow is yet to be asked.
        status: MLflow's; "" while that is not known.
        ended_s: its end, in seconds since the epoch.
        tags: those that are known.
        spent_s: seconds that a slot was busy with the trial.
        settings: the file of its settings.
        tag_again: when its checkpoint's tag is due again, by the monotonic clock.
        samples_step: the step of the checkpoint whose transcripts it shows.
    """

    step: int | None = None
    status: str = ""
    ended_s: float | None = None
    tags: dict[str, str] = field(default_factory=dict)
    spent_s: float | None = None
    settings: bool = False
    tag_again: float = 0.0
    samples_step: int | None = None


def run_name(trial: TrialRecord, searched: Sequence[str]) -> str:
    """A name to tell runs apart by: the trial, and what was chosen for it, as much as fits.

    Args:
        trial: the trial.
        searched: the searched settings, those that matter most first.
    """
    name = f"{trial.id} {trial.source}" if trial.is_baseline else trial.id
    for setting in searched:
        if setting not in trial.settings or trial.is_baseline:
            continue
        longer = f"{name} {setting}={short(trial.settings[setting])}"
        if len(longer) > _LONGEST_NAME:
            break
        name = longer
    return name


def contents(trial: TrialRecord, run: TrialRun | None) -> RunContents | None:
    """What a run that was read back holds; None if MLflow lacks anything, or the trial is still running.

    `spent_s` is written with the last of them and grows whenever a slot has the trial.
    """
    if run is None or run.run_id != trial.run_id or trial.is_open:
        return None
    same = run.status == STATUS[trial.state] and run.metrics.get("spent_s") == trial.spent_s
    if not same or run.tags.get("state") != trial.state or run.tags.get("reason", "") != trial.reason:
        return None
    there = SAMPLES_FILE in run.tags.get("mlflow.loggedArtifacts", "")
    shown = best_step(trial) if there else None
    return RunContents(
        trial.last_step, run.status, trial.ended_s, run.tags, trial.spent_s, settings=True, samples_step=shown
    )


def lacks_samples(trial: TrialRecord, has: RunContents) -> bool:
    """Whether the transcripts of a trial that has ended are not there, or are those of an earlier checkpoint."""
    ended = not trial.is_open and trial.state != "paused"
    return ended and trial.best is not None and has.samples_step != best_step(trial)


def best_step(trial: TrialRecord) -> int | None:
    """The step of a trial's best checkpoint, None before its first report."""
    return int(trial.best["step"]) if trial.best else None


def rows(trial: TrialRecord, after: int) -> list[MetricsRow]:
    """One row for each report beyond the step `after`: its metrics, and `best_*`, those of the best checkpoint."""
    by_step = {report.step: report.metrics for report in trial.reports}
    made = []
    for report in trial.reports:
        if report.step > after:
            at_best = by_step.get(int(report.best["step"]), {})
            best = {**report.best, **{name: at_best[name] for name in AT_BEST if name in at_best}}
            metrics = {"seen_s": report.seen_s, **report.metrics}
            if report.workers:
                metrics["workers"] = report.workers
            metrics |= {f"best_{name}": value for name, value in best.items()}
            made.append(MetricsRow(report.step, int(report.time * 1000), metrics))
    return made


def row_at_end(trial: TrialRecord, known_s: float | None) -> list[MetricsRow]:
    """The row of what a trial took, if its run has another figure, `known_s`; none while a slot has it.

    With `best_*` again if it lost the best checkpoint that it last reported: workers that died had it in their memory.
    """
    # The ledger's times and never now: the same call made again must change nothing.
    at = trial.ended_s or (trial.reports[-1].time if trial.reports else None)
    if not at or trial.is_open or trial.spent_s == known_s:
        return []
    metrics = {"spent_s": trial.spent_s}
    reported = trial.reports[-1].best if trial.reports else {}
    if trial.best and reported and int(trial.best["step"]) != int(reported["step"]):
        best = {
            **trial.best,
            **{name: trial.at_best.metrics[name] for name in AT_BEST if name in trial.at_best.metrics},
        }
        metrics |= {f"best_{name}": value for name, value in best.items()}
    return [MetricsRow(max(trial.last_step, 0), int(at * 1000), metrics)]


def samples(progress_json: bytes | None) -> list[Sample] | None:
    """Dev utterances as a checkpoint hears them, by its `progress.json`; None if it had to make room on the disk."""
    if progress_json is None:
        return None
    progress = json.loads(progress_json)
    return [Sample(name, reference, heard, wer([reference], [heard])) for name, reference, heard in progress["samples"]]


def colour(number: int) -> str:
    """A trial's colour in the UI, apart from its neighbours' by the golden angle; MLflow's own repeat after a few."""
    channels = colorsys.hls_to_rgb(number * 0.618034 % 1, 0.42, 0.65)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)

"""Warm start: the trials of earlier sweeps, for the sampler of a new one.

In: `search.warm_start`, names of sweeps in the storage (read from their ledgers) or `mlflow:EXPERIMENT` (read from the
tracking server, so that sweeps of other machines count too). Out: lessons (`lessons`), each a trial's settings and how
well they stood in their source. Called by the start of a sweep.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hausa_asr.errors import UserError
from hausa_asr.settings.load import load
from hausa_asr.settings.recipe import RECIPE_FIELDS, check_setting
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.tracking.tracker import Tracker, TrialRun
from sweeps.record.folders import bring, sweeps_in
from sweeps.record.ledger import read_state
from sweeps.record.names import LEDGER_FILE, SETTINGS_FILE
from sweeps.record.trial import DIVERGED, Report, TrialRecord
from sweeps.sampling.lessons import Lesson, lessons

MLFLOW = "mlflow:"
FINALIST_OF = "finalist_of"
"""A tag of a finalist's run in MLflow: the trial whose settings it repeats."""


@dataclass(frozen=True)
class WarmStart:
    """What trials of earlier sweeps teach, and what a person should know of them, a line for each source."""

    trials: list[Lesson]
    notes: list[str]


def earlier(config: SweepConfig, name: str, fingerprint: str, *, patient: bool = False) -> WarmStart:
    """Read what earlier sweeps teach the sampler.

    Args:
        config: the new sweep's settings, paths absolute.
        name: the new sweep's; its own trials are left out.
        fingerprint: of its prepared dataset.
        patient: the sweep goes on, and does so without what MLflow can't say now.

    Raises:
        UserError: there is no such sweep or experiment.
    """
    taught: list[Lesson] = []
    notes = []
    for source in config.search.warm_start:
        if source.startswith(MLFLOW):
            fixed: dict[str, Any] = {}  # each run has all of its recipe
            try:
                tracker = Tracker.open(config.mlflow.uri, source.removeprefix(MLFLOW))
            except UserError as fault:
                if not patient:
                    raise
                notes.append(f"warm start: goes on without {source}: {fault.what}")
                continue
            # Finalists repeat settings that are there already, on other seeds and perhaps at another length.
            runs = [run for run in tracker.trials() if run.sweep != name and FINALIST_OF not in run.tags]
            trials = [_record(run) for run in runs]
            others = sum(run.tags.get("fingerprint", fingerprint) != fingerprint for run in runs)
        else:
            folder = bring(config.storage, source)
            if not (folder / LEDGER_FILE).is_file():
                sweeps = sorted(sweeps_in(config.storage))
                raise UserError(
                    f"search.warm_start names a sweep that is not there: {source}.",
                    where=config.storage,
                    fix=f"Name one of the storage ({', '.join(sweeps) or 'none'}), or mlflow:EXPERIMENT for an "
                    "experiment of MLflow.",
                )
            state = read_state(folder)
            trials = state.searched
            fixed = _fixed_recipe(folder)
            others = len(trials) * (state.fingerprint != fingerprint)
        useful = lessons(config, trials, fixed)
        taught += useful
        note = f"warm start: {len(useful)} of {len(trials)} trials of {source}"
        if others:
            note += f"; {others} were scored on other data, so their WER may not compare"
        notes.append(note)
    return WarmStart(taught, notes)


def _fixed_recipe(folder: Path) -> dict[str, Any]:
    """The recipe that the trials of a sweep shared beside their own settings; empty where it can't be read any more."""
    try:
        return asdict(load(folder / SETTINGS_FILE, environment={}).recipe())
    except UserError:
        return {}


def _record(run: TrialRun) -> TrialRecord:
    """A run of MLflow as the ledger would have it, as far as the sampler asks."""
    settings = dict(_recipe(run.params.items()))
    trial = TrialRecord(run.trial, settings, run.tags.get("source", ""))
    trial.state = "pruned" if run.state == "paused" else run.state
    trial.reason = DIVERGED if run.tags.get("reason", "").startswith(DIVERGED) else ""
    if run.loss is not None and run.wer is not None:
        seen_s = run.metrics.get("seen_s", math.inf)
        figures = {"loss": run.metrics.get("loss", run.loss), "wer": run.wer, "cer": run.cer or math.inf}
        seen_s = seen_s if math.isfinite(seen_s) else 0.0
        trial.reports = [Report(0, 0, seen_s, figures, {"step": 0, **figures}, last=True, diverged=False, time=0.0)]
    return trial


def _recipe(params: Iterable[tuple[str, str]]) -> Iterable[tuple[str, Any]]:
    for name, text in params:
        if name in RECIPE_FIELDS:
            try:
                yield name, check_setting(name, text)
            except ValueError:  # recorded by another version, which allowed it
                continue

"""The last lines of a sweep: the winner with its interval, and where everything is.

In: a sweep whose search is over, its MLflow mirror and functions that score and average checkpoints. Out:
`result.json`, `report.html`, the winner in MLflow, and a summary on the console. Called by `run`.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from hausa_asr.settings.sweep import MlflowSettings
from hausa_asr.storage.address import portable
from hausa_asr.tracking.tracker import Tracker
from sweeps.driver.reporting import report_of, stopped_in_words
from sweeps.driver.sweep import Sweep
from sweeps.driver.sweep_folder import to_type
from sweeps.mlflow_mirror.mirror import Mirror
from sweeps.mlflow_mirror.views import trials_key
from sweeps.record.names import LOG_FILE, RESULT_FILE
from sweeps.verdict.outcome import Outcome
from sweeps.verdict.publish import publish
from sweeps.verdict.result import Conclusion, conclude
from sweeps.verdict.soup import Models
from sweeps.wording import duration, in_brackets, many

log = logging.getLogger("sweeps")

MLFLOW_END_S = 120.0
"""How long MLflow is waited for at the end of a sweep."""


@dataclass(frozen=True)
class Ending:
    """How a sweep came to its end: why, in words, and since when this driver is at work, by the monotonic clock."""

    why: str
    began_s: float


def close_sweep(
    sweep: Sweep, ending: Ending, models: Models, tracker: Tracker, mirror: Mirror, console: Console
) -> bool:
    """Conclude a sweep and print what it found.

    Args:
        sweep: the sweep, all its trials ended.
        ending: how it came to its end.
        models: scores and averages checkpoints, and transcribes with them.
        tracker, mirror: MLflow.
        console: where it is printed.

    Returns:
        Whether there is a winner and its model: no trial may have come as far as its first evaluation.
    """
    state = sweep.ledger.state
    sweep.ledger.settle()
    scoring = "scoring the finalists" if state.finalists else "scoring baseline and best on test"
    if sweep.config.finalists.language_model is not None:
        scoring += ", then with a language model, tuned on dev for each model"
    console.print(scoring, highlight=False, soft_wrap=True)
    missed = sweep.chance_missed()

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    conclusion = conclude(
        sweep.config, sweep.ledger, sweep.prepared, models.score, models.average, missed[1] if missed else None,
        models.listen, say,
    )  # fmt: skip
    behind = mirror.flush(MLFLOW_END_S)
    trouble = publish(tracker, sweep.ledger, conclusion)
    stopped = stopped_in_words(state, missed[1] if missed else None)
    page = _report(sweep)
    ui = [tracker.ui_hint(), tracker.view_url(trials_key(sweep.name))]
    for line in _summary(sweep, conclusion, ending, page, ui, stopped, tracker.shown_uri):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if behind or trouble:
        what = f"figures of {', '.join(behind)}" if behind else f"the sweep's end ({trouble})"
        line = f"MLflow lacks {what}; they follow with:  python sweeps/run.py --resume {to_type(sweep.folder)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return conclusion.best is not None and conclusion.export is not None


def _report(sweep: Sweep) -> Path | None:
    """Write the report; None if it can't be, since a chart must not cost a sweep its end."""
    try:
        return report_of(sweep.config, sweep.ledger.state, sweep.folder, sweep.prepared, live=False)
    except Exception as error:
        log.exception("the report could not be written: %s", error)
        return None


def _summary(
    sweep: Sweep,
    conclusion: Conclusion,
    ending: Ending,
    page: Path | None,
    ui: list[str],
    stopped: str,
    shown_uri: str,
) -> list[str]:
    """The last lines. The verdict comes last, where a person looks."""
    if conclusion.best is None:
        return ["", f"No trial got as far as a first evaluation; see {sweep.folder / LOG_FILE}"]
    lines = [
        "",
        f"sweep {sweep.name} finished in {duration(time.monotonic() - ending.began_s)}: {ending.why}",
        f"best      {_scores(conclusion.best)}",
    ]
    if conclusion.baseline:
        lines.append(f"baseline  {_scores(conclusion.baseline)}")
    elif conclusion.verdict is None and (baseline := sweep.ledger.state.baseline()):
        share = baseline.seen_s / sweep.config.recipe(baseline.settings).length_s
        lines.append(
            f"baseline  {baseline.id} was stopped after {share:.0%} of its length, so nothing is compared with it"
        )
    place = _mlflow_options(sweep.config.mlflow, shown_uri)
    model = portable(conclusion.export) if conclusion.export else "not exported, as said above"
    lines += [f"model     {model}", f"result    {portable(sweep.folder / RESULT_FILE)}"]
    if page is not None:
        lines.append(f"report    {portable(page)}")
    lines += [
        *(f"{name:<9} {where}" for name, where in zip(("compare", ""), ui, strict=True) if where),
        f"pruning   python -m sweeps.replay --sweep {sweep.name}{place}",
        f"export    hausa-asr best-model --sweep {sweep.name}{place}"
        + (f" --with-lm {conclusion.with_lm.file}" if conclusion.with_lm else ""),
    ]
    if conclusion.export:
        lines.append(f"errors    hausa-asr diagnose {conclusion.export} {sweep.prepared.path}")
    if stopped:
        lines.append(f"stopped   {stopped}")
    lines += [found.sentence() for found in (conclusion.soup, conclusion.growth, conclusion.with_lm) if found]
    if conclusion.verdict:
        return lines + conclusion.verdict.sentences()[::-1]
    return [*lines, "(lowest dev WER on one seed: no finalists ran)", *filter(None, [conclusion.headline])]


def _mlflow_options(mlflow: MlflowSettings, shown_uri: str) -> str:
    """What makes a command that is typed here find the sweep in MLflow, where its defaults do not."""
    found = shown_uri == f"sqlite:///{os.path.abspath('mlflow.db')}"
    secret = shown_uri.rstrip("/") != mlflow.uri.rstrip("/")  # the settings or the environment have the whole of it
    uri = "" if found or secret else f" --uri {shlex.quote(shown_uri)}"
    usual = MlflowSettings.model_fields["experiment"].default
    return uri + ("" if mlflow.experiment == usual else f" --experiment {shlex.quote(mlflow.experiment)}")


def _scores(outcome: Outcome) -> str:
    within = f" {in_brackets(*outcome.interval)}" if outcome.interval else ""
    over = f" over {many(outcome.seeds, 'fresh seed')}" if outcome.seeds else ""
    test = f", test WER {outcome.test['wer']:.3f}, test CER {outcome.test['cer']:.3f}" if outcome.test else ""
    return f"{outcome.trial.id}  dev WER {outcome.dev['wer']:.3f}{within}{over}{test}"

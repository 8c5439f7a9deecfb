"""The last lines of a sweep: the winner with its interval, what pruning cost, where all is. Called by `run.py`."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from hausa_asr.settings.load import SweepConfig
from hausa_asr.tracking.tracker import Tracker
from sweeps.driver.sweep_folder import LOG
from sweeps.mlflow_mirror.mirror import Mirror
from sweeps.planning.budget import duration
from sweeps.planning.slots import Plan
from sweeps.pruning.rule import Rule
from sweeps.record.ledger import Ledger
from sweeps.report.page import write_report
from sweeps.verdict.audit import audits, estimate
from sweeps.verdict.result import AUDIT_WON, AUDITED, Conclusion, End, conclude, publish

log = logging.getLogger("sweeps")


def end(
    config: SweepConfig,
    ledger: Ledger,
    prepared: Any,
    plan: Plan,
    rule: Rule,
    tracker: Tracker,
    mirror: Mirror,
    console: Console,
    *,
    over: str,
    started: float,
    mlflow_s: float,
) -> None:
    """Conclude a sweep and say what it found.

    Args:
        over: why the search ended, in words.
        started: when this driver started, by the monotonic clock.
        mlflow_s: how long MLflow is waited for.
    """
    state, folder = ledger.state, ledger.folder
    console.print("scoring the finalists" if state.finalists else "scoring baseline and best on test", highlight=False)
    won, audited = audits(state, lambda name: _in_the_end(rule, ledger, name))
    told = estimate(*_with_earlier(tracker, state.run_id, won, audited)).text
    found = conclude(config, ledger, folder, prepared, plan, told)
    behind = mirror.flush(mlflow_s)
    trouble = publish(tracker, ledger, found, (won, audited))
    try:
        test = {end.trial.id: end.test for end in (found.best, found.baseline) if end and end.test}
        page = write_report(
            config, state, folder,
            verdict=found.verdict, audit=told, dev_s=_seconds(prepared.splits["dev"]), test=test,
        )  # fmt: skip
    except Exception as error:  # a picture must not cost a sweep its end
        log.exception("the report could not be written: %s", error)
        page = None  # type: ignore[assignment]
    _say(found, folder, page, tracker.ui_hint(), told, over, duration(time.monotonic() - started), console)
    if behind or trouble:
        what = f"figures of {', '.join(behind)}" if behind else f"the sweep's end ({trouble})"
        console.print(
            f"MLflow lacks {what}; they follow with:  python sweeps/run.py --resume {state.name}",
            highlight=False,
            soft_wrap=True,
        )
    if found.best is None:
        raise typer.Exit(1)


def _in_the_end(rule: Rule, ledger: Ledger, name: str) -> bool:
    """Whether the rung that a trial lost at would let it pass, with all that came to it since."""
    lost = [d["rung"] for d in ledger.state.trials[name].decisions if not d["passed"]]
    return bool(lost) and rule.rank(lost[0], name).passed


def _with_earlier(tracker: Tracker, run_id: str | None, won: int, audited: int) -> tuple[int, int]:
    """The audit's counts with those of the experiment's other sweeps, as far as MLflow can be asked."""
    try:
        others = [run.metrics for run in tracker.sweeps() if run.run_id != run_id]
    except Exception as error:
        log.warning("MLflow: the audits of earlier sweeps could not be read: %s", error)
        others = []
    won += sum(int(one.get(AUDIT_WON, 0)) for one in others)
    return won, audited + sum(int(one.get(AUDITED, 0)) for one in others)


def _seconds(split: Any) -> float:
    from hausa_asr.utterance import SAMPLE_RATE

    return float(split.n_samples.sum()) / SAMPLE_RATE


def _say(
    found: Conclusion, folder: Path, page: Path | None, ui: str, audit: str, over: str, took: str, console: Console
) -> None:
    console.print()
    if found.best is None:
        console.print(f"No trial got as far as a first evaluation; see {folder / LOG}", highlight=False, soft_wrap=True)
        return
    console.print(f"[bold]sweep {found.result['sweep']}[/] finished in {took}: {over}", highlight=False)
    lines = [f"best      {_scores(found.best)}"]
    if found.baseline:
        lines.append(f"baseline  {_scores(found.baseline)}")
    lines += [
        f"pruning   {audit}",
        f"model     {found.result['export']}",
        f"result    {folder / 'result.json'}",
    ]
    if page is not None:
        lines.append(f"report    {page}")
    lines += [f"compare   {ui}", f"export    hausa-asr best-model --sweep {found.result['sweep']}"]
    # The verdict comes last, where a person looks.
    lines += found.verdict.sentences()[::-1] if found.verdict else ["(lowest dev WER on one seed: no finalists ran)"]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _scores(end: End) -> str:
    interval = f" [{end.interval[0]:.3f}, {end.interval[1]:.3f}]" if end.interval else ""
    over = f" over {end.seeds} fresh seed{'s' if end.seeds > 1 else ''}" if end.seeds else ""
    test = f", test WER {end.test['wer']:.3f}, test CER {end.test['cer']:.3f}" if end.test else ""
    return f"{end.trial.id}  dev WER {end.dev['wer']:.3f}{interval}{over}{test}"

"""Write a sweep's winner to MLflow, so that whoever has nothing but the tracking server can export it.

In: a `Conclusion` and the sweep's ledger. Out: scores, tags and the model's files in the sweep's run. Called by
`driver/closing`.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from hausa_asr.errors import first_line
from hausa_asr.storage.address import portable
from hausa_asr.tracking.tracker import MetricsRow, Tracker
from sweeps.record.ledger import Ledger
from sweeps.record.names import DIAGNOSIS_FOLDER
from sweeps.verdict.result import Conclusion

log = logging.getLogger("sweeps")


def publish(tracker: Tracker, ledger: Ledger, conclusion: Conclusion) -> str:
    """Write the winner's model and scores to MLflow, and end the sweep's run.

    Returns:
        What went wrong, in a line; "" if nothing did.
    """
    try:
        _test_scores(tracker, conclusion)
        _end_run(tracker, ledger, conclusion)
        _diagnoses(tracker, ledger, conclusion)
    except Exception as fault:
        log.warning("MLflow: the sweep's end is not recorded: %s", fault)
        return first_line(fault)
    return ""


def _note(sweep: str, folder: Path, conclusion: Conclusion) -> str:
    """What the MLflow UI shows as the description of the sweep's run, in Markdown."""
    assert conclusion.best is not None
    found = [conclusion.soup, conclusion.growth, conclusion.with_lm]
    sentences = conclusion.verdict.sentences() if conclusion.verdict else [conclusion.headline or "lowest dev WER"]
    sentences += [one.sentence() for one in found if one]
    rows = [("best", conclusion.best), ("baseline", conclusion.baseline)]
    scores = [
        f"| {name} | {one.trial.id} | {one.dev['wer']:.3f} | " + (f"{one.test['wer']:.3f} |" if one.test else "- |")
        for name, one in rows
        if one is not None
    ]
    commands = [f"hausa-asr best-model --sweep {sweep}", f"python sweeps/run.py --export-study study.db {folder}"]
    return "\n".join(
        [
            f"**{sentences[0]}**", "", *(f"- {one}" for one in sentences[1:]), "",
            "| | trial | dev WER | test WER |", "|---|---|---|---|", *scores, "",
            *(f"    {one}" for one in commands),
        ]
    )  # fmt: skip


def _test_scores(tracker: Tracker, conclusion: Conclusion) -> None:
    """Write its own scores on test and all of dev to each run that was scored; means over seeds are the sweep's."""
    on_dev = {
        trial: wer
        for one in (conclusion.verdict.standings if conclusion.verdict else ())
        for trial, wer in zip(one.trials, one.seeds.values(), strict=True)
    }
    for run, rates in conclusion.tested:
        if run.run_id:
            scores = {f"test_{name}": value for name, value in rates.items()}
            if run.id in on_dev:
                scores["dev_wer"] = on_dev[run.id]
            if conclusion.with_lm and run.id in conclusion.with_lm.test:
                scores["test_wer_with_lm"] = conclusion.with_lm.test[run.id]
            tracker.log(run.run_id, [MetricsRow(max(run.last_step, 0), int(time.time() * 1000), scores)])


def _diagnoses(tracker: Tracker, ledger: Ledger, conclusion: Conclusion) -> None:
    """Upload what each scored run gets wrong as artifacts of its own."""
    for name, folder in conclusion.diagnosed.items():
        run_id = ledger.state.trials[name].run_id
        if run_id:
            tracker.log_folder(run_id, folder, DIAGNOSIS_FOLDER)


def _end_run(tracker: Tracker, ledger: Ledger, conclusion: Conclusion) -> None:
    """Upload the winner's model and end the sweep's own run with its last tags and metrics."""
    state, best, baseline = ledger.state, conclusion.best, conclusion.baseline
    assert state.run_id is not None
    metrics = {"wall_s": state.wall_s, "spent_s": state.spent_s}
    tags: dict[str, str] = {}
    if best is not None:
        if conclusion.export is not None:
            tracker.log_folder(state.run_id, conclusion.export, "best_model")
        metrics |= {"best_wer": best.dev["wer"], "best_cer": best.dev["cer"]}
        metrics |= {f"test_{name}": value for name, value in (best.test or {}).items()}
        tags = {
            "winner": best.trial.id,
            "winner_run": best.run.id,
            "winner_seeds": str(best.seeds),
            "winner_checkpoint": portable(ledger.best_checkpoint(best.run) or ""),
        }
        soup = conclusion.soup if conclusion.soup and conclusion.soup.accepted else None
        tags["soup"] = ", ".join(soup.members) if soup else ""
        if soup:
            metrics |= {f"soup_{name}": value for name, value in soup.dev.items()}
            metrics |= {f"soup_test_{name}": value for name, value in (soup.test or {}).items()}
        tags["verdict_with_lm"] = conclusion.with_lm.sentence() if conclusion.with_lm else ""
        if conclusion.headline:
            tags["verdict"] = conclusion.headline
        tags["mlflow.note.content"] = _note(state.name, ledger.folder, conclusion)
    if baseline is not None:
        metrics["baseline_wer"] = baseline.dev["wer"]
        metrics |= {f"baseline_test_{name}": value for name, value in (baseline.test or {}).items()}
    tracker.end_sweep(state.run_id, "finished", tags, metrics)

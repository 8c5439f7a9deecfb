"""Write a sweep's winner to MLflow, so that whoever has nothing but the tracking server can export it.

In: a `Conclusion` and the sweep's ledger. Out: scores, tags and the model's files in the sweep's run. Called by
`driver/closing`.
"""

from __future__ import annotations

import logging
import time

from hausa_asr.errors import first_line
from hausa_asr.tracking.tracker import MetricsRow, Tracker
from sweeps.record.ledger import Ledger
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
    except Exception as fault:
        log.warning("MLflow: the sweep's end is not recorded: %s", fault)
        return first_line(fault)
    return ""


def _test_scores(tracker: Tracker, conclusion: Conclusion) -> None:
    """Write the test scores of the winner and the baseline to the runs of their models."""
    for outcome in (conclusion.best, conclusion.baseline):
        if outcome is not None and outcome.run.run_id and outcome.test:
            scores = {f"test_{name}": value for name, value in outcome.test.items()}
            row = MetricsRow(max(outcome.run.last_step, 0), int(time.time() * 1000), scores)
            tracker.log(outcome.run.run_id, [row])


def _end_run(tracker: Tracker, ledger: Ledger, conclusion: Conclusion) -> None:
    """Upload the winner's model and end the sweep's own run with its last tags and metrics."""
    state, best, baseline = ledger.state, conclusion.best, conclusion.baseline
    assert state.run_id is not None
    metrics = {"wall_s": state.wall_s, "spent_s": state.spent_s}
    tags: dict[str, str] = {}
    if best is not None and conclusion.export is not None:
        tracker.log_folder(state.run_id, conclusion.export, "best_model")
        metrics |= {"best_wer": best.dev["wer"], "best_cer": best.dev["cer"]}
        metrics |= {f"test_{name}": value for name, value in (best.test or {}).items()}
        tags = {
            "winner": best.trial.id,
            "winner_run": best.run.id,
            "winner_seeds": str(best.seeds),
            "winner_checkpoint": str(ledger.best_checkpoint(best.run)),
        }
        if conclusion.verdict:
            tags["verdict"] = conclusion.verdict.sentences()[0]
    if baseline is not None:
        metrics["baseline_wer"] = baseline.dev["wer"]
        metrics |= {f"baseline_test_{name}": value for name, value in (baseline.test or {}).items()}
    tracker.end_sweep(state.run_id, "finished", tags, metrics)

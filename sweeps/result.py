"""The end of a sweep: baseline and best are scored on test, the best is exported, and `result.json` is written."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray

from hausa_asr.config import SweepConfig
from hausa_asr.export import Card, Scores, export_checkpoint
from hausa_asr.tracking import Row, Tracker
from sweeps.ledger import Ledger, TrialRecord
from sweeps.plan import Plan

log = logging.getLogger("sweeps")

RESULT = "result.json"
EXPORT = "export"


def conclude(
    config: SweepConfig,
    ledger: Ledger,
    folder: Path,
    prepared: Any,
    plan: Plan,
    tracker: Tracker,
) -> dict[str, Any]:
    """Score, export and write down what the sweep found. Done again after a resume, it gives the same.

    Args:
        config: the sweep's settings.
        ledger: its ledger, all trials ended.
        folder: its folder.
        prepared: the prepared dataset.
        plan: what a worker takes.
        tracker: the experiment, for the parent run.

    Returns:
        What `result.json` holds.
    """
    state = ledger.state
    best, baseline = state.best(), state.baseline()
    wanted = {
        trial.id: str(ledger.best_checkpoint(trial)) for trial in (best, baseline) if trial is not None and trial.best
    }
    test = _score_test(wanted, prepared, plan)
    export = None
    if best is not None:
        export = _export(config, ledger, best, baseline, test, prepared)
        _publish(tracker, ledger, best, baseline, test, export)
    result = {
        "sweep": state.name,
        "wall_s": round(state.wall_s, 1),
        "trials": [_trial(trial) for trial in state.trials.values()],
        "baseline": _end(baseline, test),
        "best": _end(best, test),
        "export": str(export) if export else None,
        "mlflow": {"uri": config.mlflow.uri, "experiment": config.mlflow.experiment, "run_id": state.run_id},
    }
    _write(folder / RESULT, result)
    return result


def _trial(trial: TrialRecord) -> dict[str, Any]:
    best = trial.best or {}
    return {
        "id": trial.id,
        "source": trial.source,
        "settings": trial.settings,
        "state": trial.state,
        "reason": trial.reason,
        "steps": max(trial.last_step, 0),
        **{name: _finite(best.get(name)) for name in ("wer", "cer", "loss")},
        "spent_s": round(trial.spent_s, 1),
        "mlflow_run_id": trial.run_id,
    }


def _end(trial: TrialRecord | None, test: dict[str, dict[str, float]]) -> dict[str, Any] | None:
    if trial is None or trial.best is None:
        return None
    scores = test.get(trial.id, {})
    return {
        "id": trial.id,
        "wer": _finite(trial.best["wer"]),
        "cer": _finite(trial.best["cer"]),
        "test_wer": scores.get("wer"),
        "test_cer": scores.get("cer"),
    }


def _finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None


def _score_test(checkpoints: dict[str, str], prepared: Any, plan: Plan) -> dict[str, dict[str, float]]:
    """Test scores by trial, computed where trials were; nothing where there is no test split."""
    if "test" not in prepared.splits or not checkpoints:
        return {}
    resources = plan.worker_resources
    task = _score.options(num_cpus=resources["CPU"], num_gpus=resources.get("GPU", 0))
    # One task for both: starting one costs more than scoring.
    gpu = bool(resources.get("GPU"))
    asked = task.remote(str(prepared.path), list(checkpoints.values()), plan.threads, gpu)  # type: ignore[arg-type]
    scores: Any = ray.get(asked)
    return dict(zip(checkpoints, scores, strict=True))


@ray.remote
def _score(prepared_path: str, checkpoints: list[str], threads: int, gpu: bool) -> list[dict[str, float]]:
    import torch

    from hausa_asr import checkpoint
    from hausa_asr.evaluate import evaluate
    from hausa_asr.prepare import load_prepared

    torch.set_num_threads(threads)
    device = torch.device("cuda" if gpu else "cpu")
    split = load_prepared(Path(prepared_path)).splits["test"]
    scores = []
    for folder in checkpoints:
        model, processor = checkpoint.load(folder)
        report = evaluate(model.to(device), processor, split)  # type: ignore[arg-type]
        scores.append({name: getattr(report, name) for name in ("wer", "cer", "wer_folded", "cer_folded")})
    return scores


def _export(
    config: SweepConfig,
    ledger: Ledger,
    best: TrialRecord,
    baseline: TrialRecord | None,
    test: dict[str, dict[str, float]],
    prepared: Any,
) -> Path:
    checkpoint = ledger.best_checkpoint(best)
    assert checkpoint is not None
    has_baseline = baseline is not None and baseline.best is not None
    card = Card(
        sweep=ledger.state.name,
        trial=best.id,
        base=config.model.base,
        recipe=asdict(config.recipe(best.settings)),
        data=prepared.report,
        dev=_dev(best),
        test=_test(best, test),
        baseline_trial=baseline.id if has_baseline and baseline else None,
        baseline_dev=_dev(baseline) if has_baseline and baseline else None,
        baseline_test=_test(baseline, test) if has_baseline and baseline else None,
    )
    return export_checkpoint(checkpoint, ledger.folder / EXPORT, card, overwrite=True)


def _dev(trial: TrialRecord) -> Scores:
    report = next(r for r in trial.reports if r["step"] == trial.best["step"])  # type: ignore[index]
    return Scores(**{name: report["metrics"][name] for name in ("wer", "cer", "wer_folded", "cer_folded")})


def _test(trial: TrialRecord, test: dict[str, dict[str, float]]) -> Scores | None:
    return Scores(**test[trial.id]) if trial.id in test else None


def _publish(
    tracker: Tracker,
    ledger: Ledger,
    best: TrialRecord,
    baseline: TrialRecord | None,
    test: dict[str, dict[str, float]],
    export: Path,
) -> None:
    """The winner's model and scores in MLflow, so that whoever has nothing but the tracking server can export it."""
    try:
        for trial in (best, baseline):
            if trial is not None and trial.run_id and trial.id in test:
                scores = {f"test_{name}": value for name, value in test[trial.id].items()}
                tracker.log(trial.run_id, [Row(max(trial.last_step, 0), int(time.time() * 1000), scores)])
        assert ledger.state.run_id is not None and best.best is not None
        tracker.log_folder(ledger.state.run_id, export, "best_model")
        metrics = {"best_wer": best.best["wer"], "best_cer": best.best["cer"], "wall_s": ledger.state.wall_s}
        metrics |= {f"test_{name}": value for name, value in test.get(best.id, {}).items()}
        if baseline is not None and baseline.best:
            metrics["baseline_wer"] = baseline.best["wer"]
            metrics |= {f"baseline_test_{name}": value for name, value in test.get(baseline.id, {}).items()}
        tags = {"winner": best.id, "winner_checkpoint": str(ledger.best_checkpoint(best))}
        tracker.end_sweep(ledger.state.run_id, "finished", tags, metrics)
    except Exception as error:
        log.warning("MLflow: the sweep's end is not recorded: %s", error)


def _write(path: Path, result: dict[str, Any]) -> None:
    aside = path.with_suffix(".partial")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(result, file, ensure_ascii=False, indent=1, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    shutil.move(aside, path)

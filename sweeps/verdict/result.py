"""The end of a sweep: the winner is named, scored on test once and exported, and `result.json` is written.

The winner is what the finalists say, or without finalists the trial with the lowest dev WER.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray

from hausa_asr.export.best_model import export_checkpoint
from hausa_asr.export.model_card import Card
from hausa_asr.export.model_card import Scores as CardScores
from hausa_asr.settings.load import SweepConfig
from hausa_asr.tracking.tracker import Row, Tracker
from sweeps.planning.slots import Plan
from sweeps.record.ledger import Ledger, TrialRecord
from sweeps.verdict.finalists import Scores, complete
from sweeps.verdict.verdict import Verdict

log = logging.getLogger("sweeps")

RESULT = "result.json"
EXPORT = "export"
AUDIT_WON, AUDITED = "audit_won", "audited"
"""Metrics of a sweep's run: how many audited trials would have won, and how many there were."""
_RATES = ("wer", "cer", "wer_folded", "cer_folded")


@dataclass(frozen=True)
class End:
    """A setting as it stands at the end: the trial that found it, the model of it that counts, and its scores.

    Attributes:
        trial: of the search.
        run: whose model it is: the same, or the finalist run of it with the lowest dev WER.
        dev, test: rates; of finalists the means over their seeds. None where there is no test split.
        interval: of the dev WER over finalists, low and high; None without them.
        seeds: how many finalist runs it has.
    """

    trial: TrialRecord
    run: TrialRecord
    dev: dict[str, float]
    test: dict[str, float] | None
    interval: tuple[float, float] | None = None
    seeds: int = 0


@dataclass(frozen=True)
class Conclusion:
    """What a sweep found: `result` is what `result.json` holds."""

    best: End | None
    baseline: End | None
    verdict: Verdict | None
    export: Path | None
    result: dict[str, Any]


def conclude(config: SweepConfig, ledger: Ledger, folder: Path, prepared: Any, plan: Plan, audit: str) -> Conclusion:
    """Name the winner, score, export and write down what the sweep found. Done again after a resume, it gives the same.

    Args:
        config: the sweep's settings.
        ledger: its ledger, all trials ended.
        folder: its folder.
        prepared: the prepared dataset.
        plan: what a worker takes, and how many slots there are.
        audit: what the audit says of pruning, in words.
    """
    state = ledger.state
    scores = Scores(folder)
    runs = complete(state, config)
    _score(scores, ledger, runs, ["dev", "test"], prepared, plan)
    verdict = scores.compare(ledger, runs, config)
    if verdict is None:
        best, baseline = state.best(), state.baseline()
        _score(scores, ledger, [t for t in (best, baseline) if t and t.best], ["test"], prepared, plan)
        ends = [None if t is None or not t.best else End(t, t, _dev(t), scores.rates(t.id, "test"))
                for t in (best, baseline)]  # fmt: skip
    else:
        ends = [_finalist(scores, ledger, runs, verdict, name) for name in (verdict.winner, verdict.baseline)]
        ledger.append("decided", **verdict.to_json(), test={e.trial.id: e.test for e in ends if e})
    first, base = ends
    export = _export(config, ledger, scores, first, base, prepared) if first else None
    result = {
        "sweep": state.name,
        "wall_s": round(state.wall_s, 1),
        "spent_s": round(state.spent_s, 1),
        "trials": [_trial(trial) for trial in state.searched],
        "finalists": [_trial(trial) for trial in state.finalists],
        "verdict": verdict.to_json() if verdict else None,
        "audit": audit,
        "baseline": _end(base),
        "best": _end(first),
        "export": str(export) if export else None,
        "mlflow": {"uri": config.mlflow.uri, "experiment": config.mlflow.experiment, "run_id": state.run_id},
    }
    _write(folder / RESULT, result)
    return Conclusion(first, base, verdict, export, result)


def _dev(trial: TrialRecord) -> dict[str, float]:
    """The rates of a trial's best checkpoint on dev."""
    report = next(r for r in trial.reports if r["step"] == trial.best["step"])  # type: ignore[index]
    return {name: report["metrics"][name] for name in _RATES if name in report["metrics"]}


def _finalist(
    scores: Scores, ledger: Ledger, runs: list[TrialRecord], verdict: Verdict, name: str | None
) -> End | None:
    """A setting by its runs on fresh seeds."""
    mine = [run for run in runs if run.of == name]
    if not mine or name is None:
        return None
    standing = verdict.of(name)
    best = min(mine, key=lambda run: standing.seeds[int(run.settings["seed"])])
    found = {split: [scores.rates(run.id, split) for run in mine] for split in ("dev", "test")}

    def mean(split: str) -> dict[str, float] | None:
        rates = [one for one in found[split] if one]
        return {key: statistics.mean(one[key] for one in rates) for key in rates[0]} if rates else None

    dev = mean("dev") or _dev(best)
    return End(ledger.state.trials[name], best, dev, mean("test"), (standing.low, standing.high), len(mine))


def _trial(trial: TrialRecord) -> dict[str, Any]:
    best = trial.best or {}
    return {
        "id": trial.id,
        "source": trial.source,
        **({"of": trial.of} if trial.of else {}),
        "settings": trial.settings,
        "state": trial.state,
        "reason": trial.reason,
        "audited": trial.audited,
        "steps": max(trial.last_step, 0),
        **{name: _finite(best.get(name)) for name in ("wer", "cer", "loss")},
        "spent_s": round(trial.spent_s, 1),
        "mlflow_run_id": trial.run_id,
    }


def _end(end: End | None) -> dict[str, Any] | None:
    if end is None:
        return None
    test = end.test or {}
    return {
        "id": end.trial.id,
        "run": end.run.id,
        "wer": _finite(end.dev["wer"]),
        "cer": _finite(end.dev["cer"]),
        "wer_interval": list(end.interval) if end.interval else None,
        "seeds": end.seeds,
        "test_wer": test.get("wer"),
        "test_cer": test.get("cer"),
    }


def _finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None


def _score(
    scores: Scores, ledger: Ledger, trials: list[TrialRecord], splits: list[str], prepared: Any, plan: Plan
) -> None:
    """Score trials' best checkpoints where that was not done before, spread over as many workers as there are slots."""
    splits = [split for split in splits if split in prepared.splits]
    lacking = scores.lacking(trials)
    if not lacking or not splits:
        return
    resources = plan.worker_resources
    gpu = bool(resources.get("GPU"))
    task: Any = _score_models.options(num_cpus=resources["CPU"], num_gpus=resources.get("GPU", 0))
    parts = [part for part in (lacking[n :: plan.slots] for n in range(plan.slots)) if part]
    asked = [
        task.remote(str(prepared.path), [str(ledger.best_checkpoint(t)) for t in part], splits, plan.threads, gpu)
        for part in parts
    ]
    for part, found in zip(parts, ray.get(asked), strict=True):
        for trial, one in zip(part, found, strict=True):
            scores.put(trial, one)
    scores.write()


@ray.remote
def _score_models(
    prepared_path: str, checkpoints: list[str], splits: list[str], threads: int, gpu: bool
) -> list[dict[str, Any]]:
    """Per checkpoint and split: word errors and words by utterance, speakers, and the rates."""
    import torch

    from hausa_asr.dataset.prepare import load_prepared
    from hausa_asr.metrics import counts_by_utterance
    from hausa_asr.model.evaluate import evaluate
    from hausa_asr.training import checkpoint

    torch.set_num_threads(threads)
    device = torch.device("cuda" if gpu else "cpu")
    prepared = load_prepared(Path(prepared_path))
    found = []
    for folder in checkpoints:
        model, processor = checkpoint.load(folder)
        model.to(device)  # type: ignore[arg-type]
        one: dict[str, Any] = {}
        for split in splits:
            report = evaluate(model, processor, prepared.splits[split])
            errors, words = counts_by_utterance(report.references, report.hypotheses)
            one[split] = {
                "errors": errors.tolist(),
                "words": words.tolist(),
                "speakers": report.speakers,
                "rates": {name: getattr(report, name) for name in _RATES},
            }
        found.append(one)
    return found


def _export(
    config: SweepConfig, ledger: Ledger, scores: Scores, best: End, baseline: End | None, prepared: Any
) -> Path:
    """Export the winner's model; its card has the scores of that very model, not the means over seeds."""
    checkpoint = ledger.best_checkpoint(best.run)
    assert checkpoint is not None

    def test(end: End) -> CardScores | None:
        rates = scores.rates(end.run.id, "test")
        return CardScores(**rates) if rates else None

    card = Card(
        sweep=ledger.state.name,
        trial=best.run.id,
        base=config.model.base,
        recipe=asdict(config.recipe(best.run.settings)),
        data=prepared.report,
        dev=CardScores(**_dev(best.run)),
        test=test(best),
        baseline_trial=baseline.run.id if baseline else None,
        baseline_dev=CardScores(**_dev(baseline.run)) if baseline else None,
        baseline_test=test(baseline) if baseline else None,
    )
    return export_checkpoint(checkpoint, ledger.folder / EXPORT, card, overwrite=True)


def publish(tracker: Tracker, ledger: Ledger, found: Conclusion, audit: tuple[int, int]) -> str:
    """The winner's model and scores in MLflow, so that whoever has nothing but the tracking server can export it.

    Args:
        audit: how many audited trials would have won, and how many there were; later sweeps of the experiment add them
            to theirs.

    Returns:
        What went wrong, "" if nothing did.
    """
    state, best, baseline = ledger.state, found.best, found.baseline
    try:
        for end in (best, baseline):
            if end is not None and end.run.run_id and end.test:
                scores = {f"test_{name}": value for name, value in end.test.items()}
                tracker.log(end.run.run_id, [Row(max(end.run.last_step, 0), int(time.time() * 1000), scores)])
        assert state.run_id is not None
        metrics = {"wall_s": state.wall_s, "spent_s": state.spent_s, AUDIT_WON: audit[0], AUDITED: audit[1]}
        tags: dict[str, str] = {}
        if best is not None and found.export is not None:
            tracker.log_folder(state.run_id, found.export, "best_model")
            metrics |= {"best_wer": best.dev["wer"], "best_cer": best.dev["cer"]}
            metrics |= {f"test_{name}": value for name, value in (best.test or {}).items()}
            tags = {
                "winner": best.trial.id,
                "winner_run": best.run.id,
                "winner_seeds": str(best.seeds),
                "winner_checkpoint": str(ledger.best_checkpoint(best.run)),
            }
            if found.verdict:
                tags["verdict"] = found.verdict.sentences()[0]
        if baseline is not None:
            metrics["baseline_wer"] = baseline.dev["wer"]
            metrics |= {f"baseline_test_{name}": value for name, value in (baseline.test or {}).items()}
        tracker.end_sweep(state.run_id, "finished", tags, metrics)
    except Exception as error:
        log.warning("MLflow: the sweep's end is not recorded: %s", error)
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ""


def _write(path: Path, result: dict[str, Any]) -> None:
    aside = path.with_suffix(".partial")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(result, file, ensure_ascii=False, indent=1, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    shutil.move(aside, path)

"""What `chaos.py` checks of a sweep's records once it has ended: is anything lost, doubled, burned or changed?

In: the ledger's events, MLflow's file, and the curves of a sweep in which nothing broke. Out: faults, in words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Curves = dict[str, list[tuple[int, float, float]]]


def curves(events: Sequence[Mapping[str, Any]]) -> Curves:
    """Every trial's learning curve: step, loss and WER of each report."""
    found: Curves = {}
    for event in events:
        if event["event"] == "reported":
            metrics = event["metrics"]
            found.setdefault(event["trial"], []).append((event["step"], metrics["loss"], metrics["wer"]))
    return found


def faults(events: Sequence[Mapping[str, Any]], trials: int, mlflow_db: Path, expected: Curves | None) -> list[str]:
    """What is wrong with a sweep that has ended.

    Args:
        events: the ledger's.
        trials: how many there should be, each finished.
        mlflow_db: MLflow's SQLite file.
        expected: the curves; None if they are not known.
    """
    last = {event["trial"]: event.get("state") for event in events if event["event"] == "ended"}
    names = [f"t{number:03d}" for number in range(trials)]
    wrong = [f"{name} is {last.get(name)}" for name in names if last.get(name) != "finished"]
    for kind, key in (("proposed", "trial"), ("ended", "trial"), ("reported", "step")):
        counted = Counter((event["trial"], event[key]) for event in events if event["event"] == kind)
        wrong += [f"{kind} {count} times: {what}" for what, count in counted.items() if count > 1]
    if expected is not None:
        found = curves(events)
        wrong += [f"{name} has another curve" for name in expected if found.get(name) != expected[name]]
    return wrong + _mlflow_faults(events, names, mlflow_db)


def _mlflow_faults(events: Sequence[Mapping[str, Any]], names: Sequence[str], mlflow_db: Path) -> list[str]:
    """Where MLflow differs from the ledger."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{mlflow_db}")
    experiment = client.get_experiment_by_name("hausa-asr")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    runs = [one for one in runs if "trial" in one.data.tags]
    counted = Counter(one.data.tags["trial"] for one in runs)
    wrong = [f"MLflow has {count} runs of {name}" for name, count in counted.items() if count > 1]
    wrong += [f"MLflow has no run of {name}" for name in names if name not in counted]
    ends = {event["trial"]: event["metrics"] for event in events if event["event"] == "reported"}
    for one in runs:
        name = one.data.tags["trial"]
        wer = one.data.metrics.get("wer", 9)
        if one.info.status != "FINISHED" or name not in ends or abs(wer - ends[name]["wer"]) > 1e-9:
            wrong.append(f"MLflow has {name} as {one.info.status} with WER {wer}")
    return wrong

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


def ranks(events: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Who came to which rung, by what figure it was ranked, whether it went on, and who was promoted.

    Not its place: a trial that broke is tried again after another has reported, so it may come to a rung after others.
    """
    what = ("trial", "rung", "value", "passed", "promoted")
    found = [tuple(event.get(key) for key in what) for event in events if event["event"] == "ranked"]
    return sorted(found, key=str)


def _states(events: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """How each trial stands at the end."""
    return {event["trial"]: event.get("state", "paused") for event in events if event["event"] in ("ended", "paused")}


def faults(
    events: Sequence[Mapping[str, Any]],
    trials: int,
    mlflow_db: Path,
    expected: Sequence[Mapping[str, Any]],
    noticed: bool = False,
) -> list[str]:
    """What is wrong with a sweep that has ended.

    Args:
        events: the ledger's.
        trials: how many there should be.
        mlflow_db: MLflow's SQLite file.
        expected: the events of the sweep in which nothing broke.
        noticed: a node was given notice, or the driver stopped, so a trial may have one more evaluation, at a step of
            its own.
    """
    states, should = _states(events), _states(expected)
    names = [f"t{number:03d}" for number in range(trials)]
    wrong = [f"{name} is {states.get(name)}" for name in names if states.get(name, "") != should.get(name)]
    for kind, key in (("proposed", "trial"), ("ended", "trial"), ("reported", "step")):
        counted = Counter((event["trial"], event[key]) for event in events if event["event"] == kind)
        wrong += [f"{kind} {count} times: {what}" for what, count in counted.items() if count > 1]
    found, right = curves(events), curves(expected)
    for name in names:
        steps = {step for step, *_ in right.get(name, [])}
        curve = [one for one in found.get(name, []) if one[0] in steps or not noticed]
        if curve != right.get(name, []) or len(found.get(name, [])) > len(curve) + 1:
            lacking = sorted(steps - {step for step, *_ in found.get(name, [])})
            more = sorted({step for step, *_ in found.get(name, [])} - steps)
            wrong.append(f"{name} has another curve: without steps {lacking}, and with {more}")
    if ranks(events) != ranks(expected):
        wrong.append(f"ranked {ranks(events)}, not {ranks(expected)}")
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
    states, lines = _states(events), curves(events)
    for one in runs:
        name = one.data.tags["trial"]
        status = "FINISHED" if states.get(name) == "finished" else one.info.status
        history = [(point.step, point.value) for point in client.get_metric_history(one.info.run_id, "wer")]
        if one.info.status != status or sorted(history) != [(step, wer) for step, _, wer in lines.get(name, [])]:
            wrong.append(f"MLflow has {name} as {one.info.status} with the WERs {history}")
    return wrong

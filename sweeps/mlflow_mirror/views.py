"""What the MLflow UI shows of a sweep when its link is opened: columns, sorting and charts, as saved views.

In: a sweep's name, its run and its searched settings. Out: views for `Tracker.save_view`, which the UI lists in its
menu of views and opens by a link. The states are those that the UI of MLflow 3.17 makes itself; an older one ignores
them. Called by the mirror.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

_SECTION = "trials"
_MOST = 200
"""Runs in a chart."""
_AXES = 8
"""Settings in parallel coordinates: more would hide each other."""


class View(NamedTuple):
    """A saved view: the key in its link, its name in the menu, and its state."""

    key: str
    name: str
    state: dict[str, Any]


def trials_key(sweep: str) -> str:
    """The key of a sweep's own view."""
    return f"trials-{sweep}"


def trials_view(sweep: str, run_id: str, searched: Sequence[str]) -> View:
    """The trials of a sweep, the lowest WER first: learning curves, WER against the settings that matter most, bars.

    Args:
        sweep: its name.
        run_id: of its own run.
        searched: the searched settings, those that matter most first.
    """
    charts = [
        _chart("LINE", "WER over the audio trained on", **_curve("wer")),
        _chart("LINE", "Eval loss over the audio trained on", **_curve("loss")),
        _chart(
            "PARALLEL", "Settings and WER", selectedParams=list(searched[:_AXES]), selectedMetrics=["best_wer"],
            showAllRuns=True,
        ),
        *(
            _chart(
                "SCATTER", f"WER against {name}", xaxis={"key": name, "type": "PARAM"},
                yaxis={"key": "best_wer", "type": "METRIC"},
            )
            for name in searched[:2]
        ),
        _chart("BAR", "WER", metricKey="best_wer", selectedMetricKeys=["best_wer"]),
    ]  # fmt: skip
    columns = ["tags.`state`", *(f"metrics.`{name}`" for name in ("best_wer", "best_cer", "spent_s"))]
    return View(
        trials_key(sweep),
        f"Trials of {sweep}",
        {
            "searchFilter": f"tags.`mlflow.parentRunId` = '{run_id}'",
            "orderByKey": "metrics.`best_wer`",
            "orderByAsc": True,
            "selectedColumns": [*columns, *(f"params.`{name}`" for name in searched)],
            "compareRunCharts": charts,
            "compareRunSections": [{"uuid": _SECTION, "name": "Trials", "display": True, "isReordered": False}],
        },
    )


def sweeps_view() -> View:
    """All sweeps of the experiment, the newest first, each with its winner's WER."""
    metrics = ("best_wer", "baseline_wer", "test_wer", "baseline_test_wer", "wall_s")
    return View(
        "sweeps",
        "Sweeps",
        {
            "searchFilter": "tags.kind = 'sweep'",
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "selectedColumns": ["tags.`state`", "tags.`base`", *(f"metrics.`{name}`" for name in metrics)],
        },
    )


def _chart(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {
        "uuid": "-".join(name.lower().split()), "type": kind, "displayName": name, "metricSectionId": _SECTION,
        "runsCountToCompare": _MOST, "deleted": False, "isGenerated": False, **more,
    }  # fmt: skip


def _curve(metric: str) -> dict[str, Any]:
    """A line chart of a metric over the seconds of audio trained on."""
    return {
        "metricKey": metric, "selectedMetricKeys": [metric], "xAxisKey": "metric", "selectedXAxisMetricKey": "seen_s",
        "useGlobalXaxisKey": False, "useGlobalLineSmoothing": True, "lineSmoothness": 0, "scaleType": "linear",
        "xAxisScaleType": "linear", "range": {}, "yAxisKey": "metric", "yAxisExpressions": [], "ignoreOutliers": False,
    }  # fmt: skip

"""Charts of the searched settings: parallel coordinates, Optuna's own slices, and importance with its interval.

In: a sweep's search as an Optuna study. Out: charts. Importance by PED-ANOVA (Watanabe, Bansal and Hutter, 2023):
how much the settings of good trials differ from those of all; on draws of the trials with replacement, so that chance
is seen. Called by `page`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go

from hausa_asr.metrics import interval
from sweeps.report.charts import BLUE, GREY, styled

LEAST_TRIALS = 20
"""Importance of fewer finished trials is mostly chance, and is left out."""
_DRAWS, _LEAST_DRAWS, _DRAWN_AT_MOST, _SECONDS = 200, 20, 200, 6.0
"""How many draws, how many at least where each takes long, how many trials in one, and about how long all may take."""
MOST_SETTINGS = 8
ROW = 4
_COLOURS = "Cividis"
"""From blue to yellow, which people who confuse red and green see alike; Optuna's own begins with white."""


@dataclass(frozen=True)
class Importance:
    """How much a setting matters, as a share of all that matter, with a 95 % interval over draws of the trials."""

    setting: str
    share: float
    low: float
    high: float


def settings_of(study: optuna.Study) -> list[str]:
    """The settings of a study's trials, all of which have the same."""
    trials = study.get_trials(deepcopy=False)
    return list(trials[0].params) if len(trials) > 1 else []


def importances(study: optuna.Study, settings: Sequence[str]) -> list[Importance]:
    """The importance of settings, the most important first; none of fewer than 20 finished trials."""
    trials = study.get_trials(deepcopy=False)
    if len(trials) < LEAST_TRIALS or not settings:
        return []
    draw, began = np.random.default_rng(0), time.monotonic()
    drawn: list[list[float]] = []
    size = min(len(trials), _DRAWN_AT_MOST)
    while len(drawn) < _LEAST_DRAWS or (len(drawn) < _DRAWS and time.monotonic() - began < _SECONDS):
        drawn.append(_shares([trials[n] for n in draw.integers(len(trials), size=size)], settings))
    # Draws of fewer trials than there are scatter more, by the root of how many times fewer.
    off = (np.array(drawn) - np.mean(drawn, axis=0)) * np.sqrt(size / len(trials))
    found = [
        Importance(name, share, *np.clip(share + np.array(interval(off[:, column])), 0.0, 1.0).tolist())
        for column, (name, share) in enumerate(zip(settings, _shares(trials, settings), strict=True))
    ]
    return sorted(found, key=lambda one: -one.share)


def _shares(trials: Sequence[optuna.trial.FrozenTrial], settings: Sequence[str]) -> list[float]:
    study = optuna.create_study()
    study.add_trials(trials)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(settings))
    return [found[name] for name in settings]


def importance_chart(found: Sequence[Importance]) -> go.Figure:
    """Importance as bars with intervals."""
    figure = go.Figure()
    figure.add_bar(
        y=[one.setting for one in found], x=[one.share for one in found], orientation="h", marker={"color": BLUE},
        error_x={"type": "data", "symmetric": False, "array": [one.high - one.share for one in found],
                 "arrayminus": [one.share - one.low for one in found], "color": GREY},
    )  # fmt: skip
    styled(figure, 110 + 26 * len(found), xaxis_title="share of what matters", xaxis_rangemode="tozero")
    figure.update_layout(margin={"l": 220, "r": 16, "t": 16, "b": 48})
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def parallel(study: optuna.Study, settings: Sequence[str]) -> go.Figure:
    """Each finished trial as a line through its settings and its WER; axes can be brushed, which Optuna's own can't."""
    trials = study.get_trials(deepcopy=False)
    wers = [trial.value for trial in trials]
    axes = [_axis(name, [trial.params[name] for trial in trials], trials[0].distributions[name]) for name in settings]
    figure = go.Figure(
        go.Parcoords(
            dimensions=[*axes, {"label": "dev WER", "values": wers}],
            line={"color": wers, "colorscale": _COLOURS, "showscale": True, "colorbar": {"title": "dev WER"}},
            labelangle=-15,
        )
    )
    return styled(figure, 420, margin={"l": 70, "r": 70, "t": 90, "b": 30})


def _axis(name: str, values: Sequence[Any], distribution: optuna.distributions.BaseDistribution) -> dict[str, Any]:
    """An axis of one setting: logarithmic where it is searched so, in the order of its choices where it has some."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        names = [str(choice) for choice in distribution.choices]
        places = [names.index(str(value)) for value in values]
        return {"label": name, "values": places, "tickvals": list(range(len(names))), "ticktext": names}
    if getattr(distribution, "log", False):
        logs = np.log10(np.array(values, dtype=float))
        ticks = np.linspace(logs.min(), logs.max(), 5)
        return {"label": name, "values": logs, "tickvals": ticks, "ticktext": [f"{10**tick:.2g}" for tick in ticks]}
    return {"label": name, "values": values}


def slices(study: optuna.Study, settings: Sequence[str]) -> list[go.Figure]:
    """WER over each of the settings, four charts in a row."""
    rows = [settings[first : first + ROW] for first in range(0, len(settings), ROW)]
    figures = []
    for row in rows:
        figure = optuna.visualization.plot_slice(study, params=list(row), target_name="dev WER")
        figure.update_layout(title=None, width=None)
        figure.update_traces(marker_colorscale=_COLOURS, selector={"type": "scatter"})
        styled(figure, 280)
        figure.update_xaxes(nticks=5, tickangle=0)
        figures.append(figure)
    return figures

"""The pictures of a sweep's report: rows of figures in, PNG bytes out. Only `report` imports this, and late.

Colours are those of Okabe and Ito, which people who confuse red and green can distinguish; dashes and markers say the
same.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sweeps.pruning.rule import Point
from sweeps.record.state import State, TrialRecord
from sweeps.report.figures import TrialRow
from sweeps.verdict.verdict import Verdict

_BLUE, _RED, _GREEN, _BLACK, _GREY, _PALE = "#0072B2", "#D55E00", "#009E73", "#222222", "#666666", "#b5b5b5"
MOST_CURVES = 60
"""More than that is a tangle; baseline, the best twenty and an even choice of the others are drawn."""
_BEST_CURVES = 20
_MOST_NAMES = 8
_LEAST_WER = 1e-3
"""Where a WER of 0 is drawn on a logarithmic axis."""


def forest(verdict: Verdict) -> bytes:
    """Dev WER of the finalists' settings with intervals, and the single seeds as small marks."""
    count = len(verdict.standings)
    figure = Figure(figsize=(9, 0.9 + 0.46 * count), dpi=130, facecolor="white")
    axes = _axes(figure.add_subplot(), "")
    for place, one in enumerate(verdict.standings):
        colour = _BLUE if one.setting == verdict.winner else _GREY
        axes.plot([one.low, one.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot(list(one.seeds.values()), [place + 0.24] * len(one.seeds), "|", color=colour, markersize=7)
        axes.plot(one.wer, place, "s", color=colour, markersize=7)
    base = next((one for one in verdict.standings if one.setting == verdict.baseline), None)
    if base:
        axes.axvline(base.wer, color=_BLACK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    names = [
        one.setting + (" (baseline)" if one is base else " (winner)" if one.setting == verdict.winner else "")
        for one in verdict.standings
    ]
    axes.set_yticks(range(count), names)
    axes.set(ylim=(count - 0.4, -0.6), xlabel="dev WER, mean over seeds, with its 95 % interval")
    axes.grid(axis="x", color="#e2e2e2")
    axes.grid(axis="y", visible=False)
    return _png(figure)


def chosen_curves(state: State) -> list[TrialRecord]:
    """The trials of the search whose curves are drawn, at most `MOST_CURVES`, the best last so that it lies on top."""
    ranking = state.ranking()
    scored = {trial.id for trial in ranking}
    trials = ranking + [trial for trial in state.searched if _finite(trial) and trial.id not in scored]
    if len(trials) > MOST_CURVES:
        base = [trial for trial in trials[_BEST_CURVES:] if trial.source == "baseline"]
        rest = [trial for trial in trials[_BEST_CURVES:] if trial.source != "baseline"]
        some = np.linspace(0, len(rest) - 1, MOST_CURVES - _BEST_CURVES - len(base)).astype(int)
        trials = [*trials[:_BEST_CURVES], *(rest[number] for number in some), *base]
    return trials[::-1]


def curves(state: State, lead: str, lead_is: str) -> bytes:
    """WER and unmasked eval loss over the audio that trials were trained on, with the rungs.

    Args:
        state: the sweep.
        lead: the trial that stands out.
        lead_is: its name in the legend.
    """
    figure = Figure(figsize=(9, 7), dpi=130, facecolor="white")
    above, below = figure.subplots(2, 1, sharex=True)
    named: set[str] = set()
    for trial in chosen_curves(state):
        label, style = _style(trial)
        if trial.id == lead:
            label, style = f"{lead_is}, {lead}", {"color": _BLUE, "linewidth": 2.4, "zorder": 5}
        points = _finite(trial)
        seen = [point.seen_s for point in points]
        shown = label if label not in named else None
        named.add(label)
        above.plot(seen, [min(point.wer, 1.15) for point in points], label=shown, **style)
        below.plot(seen, [point.loss for point in points], **style)
    for axes, title in ((above, "Dev WER"), (below, "Eval loss without masks, nats per label")):
        _axes(axes, title)
        for number, mark in enumerate(state.marks, start=1):
            axes.axvline(mark, color=_GREY, linewidth=0.9, linestyle=":", zorder=0)
            if axes is above:
                axes.annotate(
                    f"rung {number}", (mark, 1.0), (3, -2), xycoords=("data", "axes fraction"),
                    textcoords="offset points", va="top", fontsize=9, color=_GREY,
                )  # fmt: skip
    above.set_ylim(0, 1.2)
    below.set_yscale("log")
    _plain_log(below.yaxis)
    below.set_xlabel("seconds of audio trained on")
    below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    below.set_xlim(left=0)
    if named:
        figure.legend(loc="upper right", ncols=len(named), frameon=False, fontsize=9.5, bbox_to_anchor=(0.99, 1.0))
    return _png(figure)


def _finite(trial: TrialRecord) -> list[Point]:
    return [point for point in trial.points if math.isfinite(point.loss)]


def fronts(rows: Sequence[TrialRow], hours_unit: str) -> bytes:
    """WER against what a trial took and against the real-time factor, with the Pareto front of each."""
    searched = [row for row in rows if not row.trial.of]
    speeds = [(row.real_time_factor, row, row.on_speed) for row in searched if row.real_time_factor is not None]
    figure = Figure(figsize=(9, 4.2), dpi=130, facecolor="white")
    left, *right = figure.subplots(1, 2 if speeds else 1, sharey=True, squeeze=False)[0]
    _front(_axes(left, f"WER against {hours_unit}"), [(row.hours, row, row.on_hours) for row in searched])
    left.set(xlabel=hours_unit, ylabel="dev WER")
    for axes in right:
        _front(_axes(axes, "WER against real-time factor"), speeds)
        axes.set(xlabel="seconds to score a second of dev audio")
    return _png(figure)


def _front(axes: Axes, points: Sequence[tuple[float, TrialRow, bool]]) -> None:
    drawn = [(x, max(row.trial.best["wer"], _LEAST_WER), row.trial, on) for x, row, on in points if row.trial.best]
    axes.set_yscale("log")
    _plain_log(axes.yaxis)
    for state, marker, colour in (("finished", "o", _BLUE), ("pruned", "v", _PALE), ("failed", "x", _RED)):
        inside = [(x, y) for x, y, trial, _ in drawn if _kind(trial) == state]
        if inside:
            axes.plot(*zip(*inside, strict=True), marker, color=colour, markersize=5, label=state)
    on = sorted((x, y, trial.id) for x, y, trial, is_on in drawn if is_on)
    if on:
        axes.step(
            [x for x, _, _ in on], [y for _, y, _ in on], where="post", color=_BLACK, linewidth=1.2, label="front"
        )
    for number, (x, y, name) in enumerate(on[-_MOST_NAMES:]):  # the lowest WER; below a front there is room
        below = (-4, -4 - 9 * (number % 2))
        axes.annotate(name, (x, y), below, textcoords="offset points", ha="right", va="top", fontsize=8.5)
    axes.margins(x=0.14, y=0.1)
    axes.locator_params(axis="x", nbins=5)  # small figures have long labels
    if drawn:
        axes.legend(frameon=False, fontsize=9)


def _kind(trial: TrialRecord) -> str:
    return trial.state if trial.state in ("finished", "failed") else "pruned"


def _style(trial: TrialRecord) -> tuple[str, dict]:
    if trial.source == "baseline":
        return f"baseline, {trial.id}", {"color": _BLACK, "linewidth": 1.8, "linestyle": (0, (4, 2)), "zorder": 4}
    if _kind(trial) == "failed":
        return "failed", {"color": _RED, "linewidth": 1.2, "linestyle": ":", "marker": "x", "markersize": 4}
    if _kind(trial) == "finished":
        return "finished", {"color": _GREEN, "linewidth": 1.1, "alpha": 0.8}
    return "pruned", {"color": _PALE, "linewidth": 1.0, "marker": ".", "markersize": 3}


def _axes(axes: Axes, title: str) -> Axes:
    axes.set_title(title, loc="left", fontsize=11, weight="bold", color=_BLACK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    axes.tick_params(colors="#444444", labelsize=9.5)
    axes.grid(color="#e8e8e8", linewidth=0.7)
    axes.set_axisbelow(True)
    return axes


def _plain_log(axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)  # and no pyplot, which keeps figures for the whole process and may look for a screen
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()

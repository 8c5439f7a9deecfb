"""The charts of a sweep's report: rows of figures in, Plotly charts out.

Colours are those of Okabe and Ito, which people who confuse red and green can distinguish; dashes and markers say the
same. Called by `page`; the charts of the searched settings are in `searched`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hausa_asr.diagnosis.curve import turning_point
from sweeps.record.state import State
from sweeps.record.trial import Report, TrialRecord
from sweeps.report.figures import RungRow, TrialRow
from sweeps.report.progress import Best, Share
from sweeps.verdict.learning import evaluated
from sweeps.verdict.verdict import Verdict
from sweeps.wording import short

BLUE, RED, GREEN, ORANGE, BLACK, GREY, PALE = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#222222", "#666666", "#a9a9a9",
)  # fmt: skip
MOST_CURVES = 60
"""More than that is a tangle; baseline, the best twenty and an even choice of the others are drawn."""
_BEST_CURVES = 20
_HIGHEST_WER = 1.15
"""Where a WER above it is drawn."""
_LOG_TICKS = [digit * 10.0**power for power in range(-4, 4) for digit in (1, 2, 5)]
_LEAST_WER = 1e-3
"""Where a WER of 0 is drawn on a logarithmic axis."""


class Chart(NamedTuple):
    """A chart with what it shows in words, for those who do not see it, and with a caption, or ""."""

    figure: go.Figure
    alt: str
    caption: str

    @property
    def json(self) -> str:
        """The chart as Plotly reads it, safe inside a script of a page."""
        return str(self.figure.to_json()).replace("<", "\\u003c").replace("&", "\\u0026")

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.figure.layout.height)


def styled(figure: go.Figure, height: int, **layout: object) -> go.Figure:
    """Give a chart the look that all have: white, light grid, legend on top."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 62, "r": 16, "t": 46, "b": 48},
        font={"family": "system-ui, sans-serif", "size": 12, "color": BLACK},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(gridcolor="#e8e8e8", zeroline=False, linecolor="#999999", ticks="outside", ticklen=4)
    figure.update_yaxes(gridcolor="#e8e8e8", zeroline=False, linecolor="#999999", ticks="outside", ticklen=4)
    figure.update_layout(**layout)
    return figure


def lowest_over_hours(ours: Sequence[Best], without: Sequence[Best], stock: Sequence[Best], unit: str) -> go.Figure:
    """The lowest dev WER over the work done: as it was, without stopping trials, and by the stock rule."""
    figure = go.Figure()
    for rows, name, colour, dash in (
        (without, "the same trials, none stopped", GREY, "dash"),
        (stock, "the same, by stock ASHA", ORANGE, "dot"),
        (ours, "this sweep", BLUE, "solid"),
    ):
        figure.add_scatter(
            x=[row.hours for row in rows], y=[min(row.wer, _HIGHEST_WER) for row in rows], name=name,
            mode="lines+markers", line={"color": colour, "dash": dash, "shape": "hv", "width": 2},
            marker={"size": 6, "symbol": "circle" if dash == "solid" else "circle-open"},
            text=[row.trial for row in rows], hovertemplate="%{text}: %{y:.3f} after %{x:.3g}<extra></extra>",
        )  # fmt: skip
    return styled(figure, 340, xaxis_title=unit, yaxis_title="lowest dev WER", yaxis_rangemode="tozero")


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


def curves(state: State, lead: str, lead_is: str) -> go.Figure:
    """WER and unmasked eval loss over the audio that trials were trained on, with rungs and turning points.

    Args:
        state: the sweep.
        lead: the trial that stands out.
        lead_is: its name in the legend.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    named: set[str] = set()
    turned: list[tuple[float, float, str]] = []
    for trial in chosen_curves(state):
        label, line = _style(trial)
        if trial.id == lead:
            label, line = f"{lead_is}, {lead}", {"color": BLUE, "width": 3}
        reports = _finite(trial)
        seen = [report.seen_s for report in reports]
        about = f"<b>{trial.id}</b> {trial.state}<br>" + "<br>".join(
            f"{name} {short(value)}" for name, value in trial.settings.items()
        )
        for row, name in ((1, "wer"), (2, "loss")):
            figure.add_scatter(
                x=seen, y=[min(report.metrics[name], _HIGHEST_WER if row == 1 else math.inf) for report in reports],
                row=row, col=1, name=label, legendgroup=label, showlegend=row == 1 and label not in named,
                mode="lines+markers", line=line, marker={"size": 3 if trial.id != lead else 5},
                hovertemplate=f"{name} %{{y:.3f}} at %{{x:,.0f}} s<br>{about}<extra></extra>",
            )  # fmt: skip
        named.add(label)
        place = turning_point(evaluated(reports))
        if place is not None:
            turned.append((seen[place], reports[place].metrics["wer"], trial.id))
    if turned:
        figure.add_scatter(
            x=[x for x, _, _ in turned], y=[y for _, y, _ in turned], row=1, col=1, mode="markers",
            name="turning point", text=[name for _, _, name in turned], hovertemplate="%{text} turns<extra></extra>",
            marker={"symbol": "diamond-open", "size": 8, "color": ORANGE, "line": {"width": 2}},
        )  # fmt: skip
    for number, mark in enumerate(state.marks, start=1):
        for row in (1, 2):
            figure.add_vline(x=mark, row=row, col=1, line={"color": GREY, "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=mark, y=1, yref="y domain", text=f"rung {number}", showarrow=False, xanchor="left", yanchor="top",
            font={"size": 10, "color": GREY},
        )  # fmt: skip
    styled(figure, 640)
    figure.update_yaxes(title="dev WER", range=[0, 1.2], row=1, col=1)
    figure.update_yaxes(title="eval loss, nats per label", type="log", tickvals=_LOG_TICKS, row=2, col=1)
    figure.update_xaxes(title="seconds of audio trained on", rangemode="tozero", tickformat=",d", row=2, col=1)
    return figure


def _finite(trial: TrialRecord) -> list[Report]:
    return [report for report in trial.reports if math.isfinite(report.metrics["loss"])]


def _style(trial: TrialRecord) -> tuple[str, dict[str, object]]:
    if trial.source == "baseline":
        return f"baseline, {trial.id}", {"color": BLACK, "width": 2.2, "dash": "dash"}
    kind = kind_of(trial)
    colour, width, dash = {
        "failed": (RED, 1.2, "dot"), "finished": (GREEN, 1.2, "solid"), "stopped": (PALE, 1, "solid"),
        "running": (ORANGE, 1.2, "solid"),
    }[kind]  # fmt: skip
    return kind, {"color": colour, "width": width, "dash": dash}


def kind_of(trial: TrialRecord) -> str:
    """Whether it is `finished`, `failed`, still `running`, or `stopped` before its end."""
    return "running" if trial.is_open else trial.state if trial.state in ("finished", "failed") else "stopped"


def forest(verdict: Verdict) -> go.Figure:
    """Dev WER of the finalists' settings with intervals, and the single seeds as small marks."""
    figure = go.Figure()
    for place, one in enumerate(verdict.standings):
        colour = BLUE if one.setting == verdict.winner else GREY
        figure.add_scatter(
            x=[one.wer], y=[place], mode="markers", showlegend=False,
            marker={"symbol": "square", "size": 9, "color": colour},
            error_x={"type": "data", "symmetric": False, "array": [one.high - one.wer],
                     "arrayminus": [one.wer - one.low], "color": colour, "thickness": 2.2, "width": 0},
            hovertemplate=f"{one.setting}: %{{x:.3f}} [{one.low:.3f}, {one.high:.3f}]<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=list(one.seeds.values()), y=[place + 0.25] * len(one.seeds), mode="markers", showlegend=False,
            marker={"symbol": "line-ns-open", "size": 7, "color": colour}, text=[f"seed {n}" for n in one.seeds],
            hovertemplate="%{text}: %{x:.3f}<extra></extra>",
        )  # fmt: skip
    base = next((one for one in verdict.standings if one.setting == verdict.baseline), None)
    if base:
        figure.add_vline(x=base.wer, line={"color": BLACK, "width": 1, "dash": "dash"})
    names = [
        one.setting + (" (baseline)" if one is base else " (winner)" if one.setting == verdict.winner else "")
        for one in verdict.standings
    ]
    styled(figure, 130 + 46 * len(names), xaxis_title="dev WER, mean over seeds, with its 95 % interval")
    figure.update_layout(margin={"l": 120, "r": 16, "t": 16, "b": 48})
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, range=[len(names) - 0.4, -0.6], showgrid=False
    )
    return figure


def fronts(rows: Sequence[TrialRow], unit: str) -> go.Figure:
    """WER against what a trial took and against the real-time factor, with the Pareto front of each."""
    searched = [row for row in rows if not row.trial.of and row.trial.best]
    pairs = [(unit, [(row.hours, row, row.on_hours) for row in searched])]
    speeds = [(row.real_time_factor, row, row.on_speed) for row in searched if row.real_time_factor is not None]
    if speeds:
        pairs.append(("seconds to score a second of dev audio", speeds))
    figure = make_subplots(rows=1, cols=len(pairs), shared_yaxes=True, horizontal_spacing=0.04)
    for column, (title, points) in enumerate(pairs, start=1):
        for kind, symbol, colour in (
            ("finished", "circle", BLUE),
            ("stopped", "triangle-down", PALE),
            ("running", "circle-open", ORANGE),
            ("failed", "x", RED),
        ):
            some = [(x, row.trial) for x, row, _ in points if kind_of(row.trial) == kind]
            if some:
                figure.add_scatter(
                    x=[x for x, _ in some], y=[_wer(trial) for _, trial in some], mode="markers", name=kind,
                    legendgroup=kind, showlegend=column == 1, marker={"symbol": symbol, "color": colour, "size": 7},
                    text=[trial.id for _, trial in some], row=1, col=column,
                    hovertemplate="%{text}: %{y:.3f}<extra></extra>",
                )  # fmt: skip
        on = sorted((x, _wer(row.trial), row.trial.id) for x, row, is_on in points if is_on)
        figure.add_scatter(
            x=[x for x, _, _ in on], y=[y for _, y, _ in on], mode="lines+text", name="front", legendgroup="front",
            showlegend=column == 1, line={"color": BLACK, "width": 1.2, "shape": "hv"}, row=1, col=column,
            text=["" if number < len(on) - 4 else name for number, (_, _, name) in enumerate(on)],
            textposition="bottom left", hoverinfo="skip",
        )  # fmt: skip
        figure.update_xaxes(title=title, row=1, col=column)
    figure.update_yaxes(type="log", tickvals=_LOG_TICKS)
    figure.update_yaxes(title="dev WER", row=1, col=1)
    return styled(figure, 400)


def _wer(trial: TrialRecord) -> float:
    assert trial.best
    return max(trial.best["wer"], _LEAST_WER)


def survival(rungs: Sequence[RungRow]) -> go.Figure:
    """How many trials each rung ranked, and how many of them went on."""
    names = [f"rung {number}<br>{one.at_s:,.0f} s" for number, one in enumerate(rungs, start=1)]
    stopped = [sum(one.stopped.values()) for one in rungs]
    figure = go.Figure()
    figure.add_bar(
        x=names, y=[one.ranked - less for one, less in zip(rungs, stopped, strict=True)], name="went on",
        marker={"color": GREEN},
    )  # fmt: skip
    figure.add_bar(x=names, y=stopped, name="stopped", marker={"color": PALE, "pattern": {"shape": "/"}})
    return styled(figure, 280, barmode="stack", yaxis_title="trials ranked")


def hours(shares: Sequence[Share], unit: str) -> go.Figure:
    """Where the hours went."""
    names = [share.name for share in shares]
    figure = go.Figure()
    figure.add_bar(
        y=names, x=[share.training for share in shares], name="training", orientation="h", marker={"color": BLUE}
    )
    figure.add_bar(
        y=names, x=[share.scoring for share in shares], name="scoring dev", orientation="h",
        marker={"color": ORANGE, "pattern": {"shape": "/"}},
    )  # fmt: skip
    styled(figure, 130 + 30 * len(names), barmode="stack", xaxis_title=unit)
    figure.update_layout(margin={"l": 150, "r": 16, "t": 40, "b": 48})
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure

"""Draw comparisons of pruning rules: the lowest WER so far over time, one panel per table and number of workers.

In: the comparisons. Out: a PNG file. Called by `python -m sweeps.replay --picture`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hausa_asr.files import written_whole
from sweeps.replay.compare import Comparison
from sweeps.replay.simulate import Simulation

_COLOURS = (
    "#444444",
    "#b5473c",
    "#e3a02b",
    "#8f6bb0",
    "#33658a",
    "#7a9e7e",
    "#b98b73",
    "#1b998b",
    "#d1495b",
    "#66a182",
)
_BANDED = ("full", "asha_wer_2", "ours")
_GREY = "#444444"


def draw_picture(comparisons: Mapping[str, Comparison], labels: Sequence[str], file: Path, title: str) -> None:
    """Draw the comparisons and write them as a PNG.

    Args:
        comparisons: one per panel, by its title.
        labels: of the rules to show.
        file: the PNG to write.
        title: what was compared.

    Raises:
        OSError: the file can't be written.
    """
    columns = min(2, len(comparisons))
    rows = -(-len(comparisons) // columns)
    figure = Figure(figsize=(7.2 * columns, 1.6 + 4.4 * rows), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)  # and no pyplot, which keeps figures for the whole process and may look for a screen
    figure.suptitle(
        f"{title}\nMean over replays, band: their middle half", x=0.01, ha="left", fontsize=13, color="#222222"
    )
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, comparison) in zip(panels, comparisons.items(), strict=False):
        _panel(axes, comparison, labels)
        axes.set_title(name, loc="left", fontsize=12, weight="bold")
    for axes in panels[len(comparisons) :]:
        axes.set_axis_off()
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=5, frameon=False, fontsize=10)
    with written_whole(file, "wb") as png:
        figure.savefig(png, format="png", pil_kwargs={"compress_level": 3})


def _panel(axes: Axes, comparison: Comparison, labels: Sequence[str]) -> None:
    whole_s = float(np.mean([run.end_s for run in comparison.simulations["full"]]))
    shares = np.linspace(0.0, 1.0, 300)
    for place, label in enumerate(labels):
        colour = _COLOURS[place % len(_COLOURS)]
        wers = np.array([_lowest_wers(run, shares * whole_s) for run in comparison.simulations[label]])
        strong = label in _BANDED
        axes.plot(shares, wers.mean(axis=0), color=colour, lw=2.2 if strong else 1.2, label=label)
        if strong:
            low, high = np.percentile(wers, [25, 75], axis=0)
            axes.fill_between(shares, low, high, color=colour, alpha=0.15, lw=0)
    floor = float(comparison.floors_s["ours"].mean()) / whole_s
    target = float(comparison.targets.mean())
    axes.axvline(
        floor, color="black", ls="--", lw=1.2, label="floor of the time to the target, settings in random order"
    )
    axes.axhline(target, color="black", ls=":", lw=1.0, label="target: as good as the best")
    axes.set(xlabel="time, as a share of random search's", ylabel="lowest dev WER so far")
    axes.set(xlim=(0, 1), ylim=(0.8 * target, 2 * target))  # above is the plateau, much the same for all
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=_GREY, labelsize=10)
    axes.grid(axis="y", color="#dddddd")
    axes.set_axisbelow(True)


def _lowest_wers(run: Simulation, times: np.ndarray) -> np.ndarray:
    """The incumbent's WER at each time, 1 before the first evaluation."""
    at = np.array([at for at, _ in run.incumbents])
    wers = np.array([1.0, *(wer for _, wer in run.incumbents)])
    return np.minimum(wers, 1.0)[np.searchsorted(at, times, side="right")]

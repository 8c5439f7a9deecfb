"""Draw the report of a preparation as one picture: lengths, speakers, letters, refusals.

In: the content of `report.json`. Out: `report.png` beside it. Called by `prepare`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hausa_asr.dataset.report import HOOKED
from hausa_asr.files import written_whole

_COLOURS = {"train": "#33658a", "dev": "#e3a02b", "test": "#b5473c"}
_GREY, _LIGHT = "#444444", "#dddddd"
_MOST_BARS = 14


def draw(report: Mapping[str, Any], file: Path) -> None:
    """Write the picture, a PNG of 1,400 by 1,000 pixels.

    Args:
        report: the content of `report.json`.
        file: to write.

    Raises:
        OSError: it can't be written.
    """
    figure = Figure(figsize=(14, 10), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)  # and no pyplot, which keeps figures for the whole process and may look for a screen
    hours, counts = report["hours"], report["utterances"]
    of_all = f"{counts['kept']:,} of {counts['in']:,} utterances, {hours['kept']:.2f} of {hours['in']:.2f} hours"
    parts = ", ".join(f"{split} {about['hours']:.2f} h" for split, about in report["splits"].items())
    figure.text(0.06, 0.96, "Prepared dataset", fontsize=17, weight="bold", color="#222222")
    figure.text(
        0.06,
        0.93,
        f"{of_all}   ·   {parts}",
        fontsize=11.5,
        color=_GREY,
    )
    grid = figure.add_gridspec(2, 2, left=0.06, right=0.97, top=0.86, bottom=0.07, wspace=0.17, hspace=0.36)
    _durations(_axes(figure.add_subplot(grid[0, 0]), "Length of the utterances"), report["splits"])
    _speakers(_axes(figure.add_subplot(grid[0, 1]), "Hours of each speaker"), report["splits"])
    _letters(_axes(figure.add_subplot(grid[1, 0]), "Letters of the transcripts"), report["letters"])
    _refused(_axes(figure.add_subplot(grid[1, 1]), "Refused"), report["refused"])
    with written_whole(file, "wb") as opened:
        figure.savefig(opened, format="png", pil_kwargs={"compress_level": 3})


def _axes(axes: Axes, title: str) -> Axes:
    axes.set_title(title, loc="left", fontsize=13, weight="bold", color="#222222", pad=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    axes.tick_params(colors=_GREY, labelsize=10)
    axes.set_axisbelow(True)
    return axes


def _durations(axes: Axes, splits: Mapping[str, Any]) -> None:
    longest = max(len(about["durations_s"]["histogram"]) for about in splits.values())
    below = np.zeros(longest)
    for split, about in splits.items():
        histogram = about["durations_s"]["histogram"]
        counts = np.array([*histogram, *[0] * (longest - len(histogram))], float)
        median = about["durations_s"]["percentiles"]["50"]
        label = f"{split}, median {median:.1f} s"
        axes.bar(np.arange(longest) + 0.5, counts, 0.9, bottom=below, color=_COLOURS[split], label=label)
        below += counts
    axes.set(xlabel="seconds", ylabel="utterances", xlim=(0, longest))
    axes.grid(axis="y", color=_LIGHT)
    axes.legend(frameon=False, fontsize=10, loc="upper right")


def _speakers(axes: Axes, splits: Mapping[str, Any]) -> None:
    """Draw a bar for each speaker, by split, the most talkative first: one person's share can be seen."""
    start, ticks = 0.0, []
    named = any(about["speakers"] for about in splits.values())
    for split, about in splits.items():
        each = list(about["speaker_hours"]["by_speaker"].values())
        unnamed = about["speaker_hours"]["unnamed"]
        values = [*each, *([unnamed] if unnamed else [])]
        where = start + np.arange(len(values))
        axes.bar(where[: len(each)], each, 0.85, color=_COLOURS[split])
        if unnamed:
            axes.bar(where[-1:], [unnamed], 0.85, color="white", edgecolor=_COLOURS[split], hatch="///")
        speakers = f"{about['speakers']:,} speakers" if named else "speakers not named"
        ticks.append((start + (len(values) - 1) / 2, f"{split}\n{speakers}"))
        start += len(values) + max(1.0, 0.03 * start)
    axes.set_xticks([at for at, _ in ticks], [label for _, label in ticks])
    axes.tick_params(axis="x", length=0)
    axes.set(ylabel="hours")
    axes.grid(axis="y", color=_LIGHT)
    if any(about["speaker_hours"]["unnamed"] for about in splits.values()) and named:
        axes.text(0.99, 0.97, "hatched: without a name", transform=axes.transAxes, ha="right", va="top", color=_GREY)


def _letters(axes: Axes, letters: Mapping[str, int]) -> None:
    total = sum(letters.values()) or 1
    shares = [1000 * count / total for count in letters.values()]
    colours = ["#b5473c" if letter in HOOKED else "#33658a" for letter in letters]
    axes.bar(range(len(letters)), shares, 0.8, color=colours)
    axes.set_xticks(range(len(letters)), [letter if letter != "'" else "ʼ" for letter in letters], fontsize=12)
    hooked = sum(letters.get(letter, 0) for letter in HOOKED)
    axes.set(ylabel="of 1,000 letters", xlim=(-0.7, len(letters) - 0.3))
    axes.grid(axis="y", color=_LIGHT)
    axes.text(
        0.99, 0.95, f"ɓ ɗ ƙ: {1000 * hooked / total:.1f} of 1,000 (careful text: 16 to 19)",
        transform=axes.transAxes, ha="right", va="top", color="#b5473c", fontsize=11,
    )  # fmt: skip


def _refused(axes: Axes, refused: Mapping[str, Any]) -> None:
    if not refused:
        axes.text(0.5, 0.5, "nothing", transform=axes.transAxes, ha="center", va="center", color=_GREY, fontsize=13)
        axes.set_axis_off()
        axes.set_title("Refused", loc="left", fontsize=13, weight="bold", color="#222222", pad=10)
        return
    rows = [(reason, about["utterances"], about["hours"]) for reason, about in refused.items()]
    if len(rows) > _MOST_BARS:
        rest = rows[_MOST_BARS - 1 :]
        rows = [*rows[: _MOST_BARS - 1], ("others", sum(row[1] for row in rest), sum(row[2] for row in rest))]
    most = max(count for _, count, _ in rows)
    axes.barh(range(len(rows)), [count for _, count, _ in rows], 0.36, color="#7a7a7a")
    for place, (reason, count, hours) in enumerate(rows):
        # Above its bar: some reasons are too long to stand beside them.
        label = f"{reason}: {count:,}" + (f" ({hours:.2f} h)" if hours >= 0.005 else "")
        axes.text(0.005 * most, place - 0.26, label, va="bottom", color="#222222", fontsize=10)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set(xlabel="utterances", xlim=(0, 1.05 * most), ylim=(max(len(rows), 6) - 0.5, -0.75))

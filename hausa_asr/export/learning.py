"""Put how a model learned, as a picture, and what that cost into its folder and card, from MLflow alone.

Called by `best_model`. A sweep's end has no need of it: there the report shows more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hausa_asr.export.folder import CURVE
from hausa_asr.recipe import GPU_ENERGY

if TYPE_CHECKING:
    from hausa_asr.tracking.tracker import SweepRun, Tracker, TrialRun

_BLUE, _GREY = "#33658a", "#999999"
Curve = dict[str, list[tuple[float, float]]]
"""Of `wer` and `loss`: hours of audio trained on, and the value then."""


def add_learning(
    tracker: Tracker, run: TrialRun, parent: SweepRun | None, trials: Sequence[TrialRun], folder: Path
) -> None:
    """Draw the learning curves of a run beside the baseline's, and say what run and sweep cost.

    Args:
        tracker: has the runs.
        run: the run whose model it is.
        parent: its sweep's run.
        trials: all of the sweep.
        folder: has the export, with its card.
    """
    curve = _curve(tracker, run)
    section = "\n## How it learned\n"
    if curve["wer"]:
        base = _baseline(run, trials)
        draw(curve, _curve(tracker, base) if base is not None else None, run.trial, folder / CURVE)
        beside = f", beside the baseline `{base.trial}`" if base is not None else ""
        section += f"\n![WER and loss on dev]({CURVE})\n\nDev WER and eval loss of `{run.trial}`{beside}.\n"
    cost = _cost(tracker, run, parent, trials)
    if curve["wer"] or cost:
        with (folder / "README.md").open("a", encoding="utf-8") as card:
            card.write(section + (f"\n{cost}\n" if cost else ""))


def _baseline(run: TrialRun, trials: Sequence[TrialRun]) -> TrialRun | None:
    """The baseline of a run's sweep, if it is another: on the finalists' seeds where a finalist is asked for."""
    mine = [one for one in trials if one.parent == run.parent and one.state == "finished"]
    base = next((one for one in mine if one.tags.get("source") == "baseline"), None)
    if base is None or base.trial in (run.trial, run.tags.get("finalist_of")):
        return None
    if "finalist_of" in run.tags:
        base = next((one for one in mine if one.tags.get("finalist_of") == base.trial), base)
    return base


def _curve(tracker: Tracker, run: TrialRun) -> Curve:
    found = tracker.history(run.run_id, ["seen_s", "wer", "loss"])
    hours = {step: seconds / 3600 for step, seconds in found["seen_s"]}
    return {name: [(hours[step], value) for step, value in found[name] if step in hours] for name in ("wer", "loss")}


def _cost(tracker: Tracker, run: TrialRun, parent: SweepRun | None, trials: Sequence[TrialRun]) -> str:
    """Hours of training, and energy where the GPUs measured it, in a sentence."""
    parts = []
    if spent_s := run.metrics.get("spent_s"):
        parts.append(f"Training `{run.trial}` took {_duration(spent_s)}{_energy(tracker, [run])}")
    if parent is not None and (spent_s := parent.metrics.get("spent_s")):
        mine = [one for one in trials if one.parent == run.parent]
        whole = f"its sweep of {len(mine)} runs {_duration(spent_s)}{_energy(tracker, mine)}, all slots added up"
        parts.append(whole if parts else whole[0].upper() + whole[1:])
    return "; ".join(parts) + "." if parts else ""


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _energy(tracker: Tracker, runs: Sequence[TrialRun]) -> str:
    """The energy that GPUs used, by their own meters; "" where none was measured."""
    measured = [run for run in runs if GPU_ENERGY in run.metrics]
    used = sum(value for run in measured for _, value in tracker.history(run.run_id, [GPU_ENERGY])[GPU_ENERGY])
    return f" and {used:.3g} kWh by the GPUs' meters" if measured else ""


def draw(curve: Curve, baseline: Curve | None, name: str, file: Path) -> None:
    """Draw WER and loss on dev over hours of audio as a PNG, the baseline dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)  # and no pyplot, which keeps figures for the whole process
    for axes, metric, title in zip(figure.subplots(1, 2), ("wer", "loss"), ("WER on dev", "Loss on dev"), strict=True):
        if baseline is not None and baseline[metric]:
            axes.plot(*zip(*baseline[metric], strict=True), color=_GREY, linestyle="--", label="baseline")
        if curve[metric]:
            axes.plot(*zip(*curve[metric], strict=True), color=_BLUE, linewidth=2, marker="o", markersize=3, label=name)
        axes.set_title(title, loc="left", weight="bold")
        axes.set_xlabel("hours of audio trained on")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(file, format="png")

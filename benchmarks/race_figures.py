"""The figures of a race of sweeps, from the records of its runs: tables, intervals over seeds, and a picture.

In: one record per run, as `sweeps.py` keeps them. Out: numbers, text and a PNG.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench
import numpy as np

RIVAL = "stock"
"""The contestant with which all others are compared on the same seed, unless another is named."""
_DRAWS = 10_000
_COLOURS = {"ours": "#1b998b", "stock": "#b5473c", "optuna": "#33658a", "random": "#444444"}

Record = dict[str, Any]


def lowest_wer(record: Record, times: np.ndarray) -> np.ndarray:
    """The lowest dev WER that a run had seen by each time; 1 before its first report."""
    at = np.array([one[0] for one in record["evaluations"]])
    # fmin: a diverged trial's NaN is no WER
    wers = np.fmin.accumulate([1.0, *(one[1] for one in record["evaluations"])])
    return wers[np.searchsorted(at, times, side="right")]


def reached_s(record: Record, wer: float) -> float | None:
    """When a run first had a dev WER as low as this; None if it never had."""
    return next((one[0] for one in record["evaluations"] if one[1] <= wer + 1e-9), None)


def interval(values: Sequence[float]) -> dict[str, float]:
    """The mean over seeds and its 95 % interval, from draws of the seeds with replacement."""
    data = np.array(values)
    means = np.random.default_rng(0).choice(data, (_DRAWS, len(data))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(data.mean()), "low": float(low), "high": float(high)}


def ratio(values: Sequence[float]) -> dict[str, float]:
    """The same for ratios: their geometric mean."""
    return {name: math.exp(value) for name, value in interval([math.log(one) for one in values]).items()}


def quartiles(values: Sequence[float]) -> dict[str, float]:
    low, median, high = np.percentile(np.array(values), [25, 50, 75])
    return {"median": float(median), "q25": float(low), "q75": float(high)}


def figures(records: Sequence[Record], clock_s: float, rival: str = RIVAL) -> dict[str, Any]:
    """All figures, by contestant; those beside the rival only over the seeds that both have run."""
    by_name: dict[str, dict[int, Record]] = {}
    for record in records:
        by_name.setdefault(record["contestant"], {})[record["seed"]] = record
    rivals = by_name.get(rival, {})
    found: dict[str, Any] = {}
    for name, runs in by_name.items():
        columns = ("begun", "finished", "first_report_s", "dev_wer", "test_wer")
        found[name] = {"seeds": len(runs), **{key: quartiles([one[key] for one in runs.values()]) for key in columns}}
        times = np.linspace(0, clock_s, 7)[1:]
        lowest = np.array([lowest_wer(one, times) for one in runs.values()])
        low, median, high = np.percentile(lowest, [25, 50, 75], axis=0)
        found[name]["over_time"] = {
            "at_s": times.tolist(), "median": median.tolist(), "q25": low.tolist(), "q75": high.tolist()
        }  # fmt: skip
        both = sorted(set(runs) & set(rivals)) if name != rival else []
        if both:
            found[name][f"beside_{rival}"] = _beside([(runs[seed], rivals[seed]) for seed in both], clock_s)
    return found


def _beside(pairs: Sequence[tuple[Record, Record]], clock_s: float) -> dict[str, Any]:
    """One contestant and its rival, seed by seed."""
    reached = [reached_s(mine, rival["dev_wer"]) for mine, rival in pairs]
    counted = [clock_s if at is None else at for at in reached]
    own = [reached_s(rival, rival["dev_wer"]) or clock_s for _, rival in pairs]
    return {
        "reached_s": reached,
        "reached": sum(at is not None for at in reached),
        "time_vs_clock": ratio([at / clock_s for at in counted]),
        "time_vs_its_own": ratio([at / its for at, its in zip(counted, own, strict=True)]),
        "dev_difference": interval([mine["dev_wer"] - rival["dev_wer"] for mine, rival in pairs]),
        "test_difference": interval([mine["test_wer"] - rival["test_wer"] for mine, rival in pairs]),
    }


def flat(found: dict[str, Any], rival: str = RIVAL) -> dict[str, float]:
    """The headline: ours beside its rival, under flat keys."""
    beside = found.get("ours", {}).get(f"beside_{rival}")
    if beside is None:
        return {}
    names = {"mean": "", "low": "_low", "high": "_high"}
    keys = ("time_vs_clock", "time_vs_its_own", "dev_difference", "test_difference")
    return {f"{key}{names[part]}": value for key in keys for part, value in beside[key].items()}


def text(found: dict[str, Any], clock_s: float, rival: str = RIVAL) -> str:
    """The tables."""
    runs, over_time, beside = [], [], []
    times = np.linspace(0, clock_s, 7)[1:]
    for name, one in found.items():
        wers = [f"{one[key]['median']:.4f} ({one[key]['q25']:.4f} to {one[key]['q75']:.4f})" for key in _WERS]
        counts = [f"{one[key]['median']:g}" for key in ("begun", "finished")]
        runs.append([name, str(one["seeds"]), *counts, f"{one['first_report_s']['median']:.0f}", *wers])
        line = one["over_time"]
        spans = zip(line["median"], line["q25"], line["q75"], strict=True)
        over_time.append([name, *(f"{median:.3f} ({low:.3f}-{high:.3f})" for median, low, high in spans)])
        its = one.get(f"beside_{rival}")
        if its:
            beside.append([
                name, f"{its['reached']} of {len(its['reached_s'])}",
                *(_span(its[key], 2) for key in ("time_vs_clock", "time_vs_its_own")),
                *(_span(its[key], 4) for key in ("dev_difference", "test_difference")),
            ])  # fmt: skip
    parts = [
        "Median over seeds (middle half)\n"
        + bench.table(["", "seeds", "begun", "finished", "first report, s", "dev WER", "test WER"], runs),
        "Lowest dev WER so far, median over seeds (middle half)\n"
        + bench.table(["", *(f"{at:.0f} s" for at in times)], over_time),
    ]
    if beside:
        head = ["", "reached", f"time / {clock_s:g} s", f"time / {rival}'s own", "dev WER less", "test WER less"]
        parts.append(
            f"Until the final dev WER of {rival} on the same seed, and WER less that of {rival}; mean over seeds\n"
            f"(95 % interval). A run that never reached it counts with the whole clock.\n" + bench.table(head, beside)
        )
    return "\n\n".join(parts)


_WERS = ("dev_wer", "test_wer")


def _span(value: dict[str, float], digits: int) -> str:
    return f"{value['mean']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


def draw(records: Sequence[Record], clock_s: float, file: Path, title: str) -> None:
    """Draw the lowest dev WER over time, median and middle half over seeds, and write it as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from hausa_asr.files import written_whole

    figure = Figure(figsize=(8.0, 4.8), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    times = np.linspace(0, clock_s, 600)
    ends = []
    for name, colour in _COLOURS.items():
        runs = [lowest_wer(one, times) for one in records if one["contestant"] == name]
        if not runs:
            continue
        low, median, high = np.percentile(np.array(runs), [25, 50, 75], axis=0)
        axes.plot(times, median, color=colour, lw=2.2 if name == "ours" else 1.5, label=name)
        axes.fill_between(times, low, high, color=colour, alpha=0.15, lw=0)
        ends += [float(low[-1]), float(median[-1])]
    if not ends:
        return
    axes.set_title(f"{title}\nMedian over seeds, band: their middle half", loc="left", fontsize=12)
    axes.set(xlabel="seconds since the command was typed", ylabel="lowest dev WER so far")
    axes.set(xlim=(0, clock_s), ylim=(0.9 * min(ends), min(1.0, 2.2 * max(ends))))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#dddddd")
    axes.set_axisbelow(True)
    axes.legend(frameon=False)
    with written_whole(file, "wb") as png:
        figure.savefig(png, format="png", pil_kwargs={"compress_level": 3})

"""What the recorded tables say of the end: at each age, by each figure; and what cheaper looks say for their price.

    python benchmarks/foretell.py [--picture FILE.png] [--json FILE]

It reads `benchmarks/curves/`, trains nothing, and takes half a minute.

1. By share of the length: Spearman's rank correlation of loss, WER, CER and the sum of their ranks (`blend`) with the
   final WER, over all settings of a table; and what its learning looks like: the turning point, where the eval loss is
   least, how far it rises after that. `prediction/standing.py` has the mean over the tables of the last column.
2. Calibration of the predictor, in simulated sweeps of up to 40 trials with workers at different ages: how often the
   final standing lies within the predicted 80 % interval, and seconds for a decision.
3. Cheaper looks, in the tables that have them: complete schedules of an eighth, a quarter and half of the length, and
   probes that cool down from a checkpoint, against the same settings' curves cut at the age that costs as much.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import bench
import numpy as np
from scipy.special import ndtri
from scipy.stats import spearmanr

from sweeps.prediction.predictor import Predictor
from sweeps.pruning.rule import Score, rank_sums, ranks
from sweeps.replay.places import places

SHARES = (0.05, 0.1, 0.14, 0.2, 0.3, 0.4, 0.56, 0.7, 0.85)
RUNGS = (0.2, 0.4, 0.8)
Lines = list[dict[str, Any]]


def at(line: dict[str, Any], seen_s: float) -> Score:
    """A curve's first evaluation at or after an age."""
    points = line["points"]
    place = min(int(np.searchsorted(points["seen_s"], seen_s - 1e-6)), len(points["seen_s"]) - 1)
    wers = points["wer"][max(0, place - 1) : place + 1]
    return Score(points["loss"][place], points["wer"][place], points["cer"][place], max(wers) < 0.97)


def final(line: dict[str, Any]) -> float:
    return min(line["points"]["wer"])


def by_figure(scores: list[Score], ends: list[float]) -> dict[str, float]:
    """The rank correlation of each figure with the ends."""
    columns = {
        "loss": [one.loss for one in scores],
        "WER": [min(one.wer, 1.0) for one in scores],
        "CER": [min(one.cer, 1.0) for one in scores],
        "blend": rank_sums(scores),
    }
    return {name: _rank_correlation(column, ends) for name, column in columns.items()}


def _rank_correlation(one: list[float], other: list[float]) -> float:
    return float(spearmanr(one, other).statistic) if len(set(one)) > 1 else 0.0


def shape(lines: Lines) -> str:
    """What a table's learning looks like, in words."""
    turned, least, rise = [], [], []
    for line in lines:
        points, length_s = line["points"], line["recipe"]["length_s"]
        under = [wer < 0.97 for wer in points["wer"]]
        turn = next((n for n in range(len(under) - 1) if under[n] and under[n + 1]), None)
        turned.append(points["seen_s"][turn] / length_s if turn is not None else 1.0)
        lowest = int(np.argmin(points["loss"]))
        least.append(min(1.0, points["seen_s"][lowest] / length_s))
        rise.append(points["loss"][-1] / points["loss"][lowest] - 1)
    ends = [final(line) for line in lines]
    return (
        f"final WER {min(ends):.3f} to {max(ends):.3f}, median {np.median(ends):.3f}; turning point at "
        f"{np.median(turned):.0%} of the length; eval loss least at {np.median(least):.0%} (a tenth of the settings "
        f"before {np.quantile(least, 0.1):.0%}), then rises by {np.median(rise):.0%} (at most {max(rise):.0%})"
    )


def calibration(lines: Lines, sweeps: int = 12) -> dict[str, float]:
    """How often final standings lie within the predicted 80 % interval, and seconds a decision."""
    inside, seconds = [], []
    found = places([line["settings"] for line in lines])
    for number in range(sweeps):
        rng = np.random.default_rng(number)
        chosen = rng.permutation(len(lines))[:40]
        cohorts: list[tuple[float, dict[str, Score]]] = [(share, {}) for share in RUNGS]
        predictor = Predictor(cohorts)
        ends = np.array([final(lines[place]) for place in chosen])
        true = ndtri((np.array(ranks(ends.tolist())) + 0.5) / len(ends))
        open_trials = []
        for order, place in enumerate(chosen):
            # The later a trial began, the less far it is: a third are through, a third at each of two rungs.
            deepest = 3 if order < len(chosen) / 3 else 1 + (order % 2)
            for rung in range(deepest):
                cohorts[rung][1][str(order)] = at(lines[place], RUNGS[rung] * lines[place]["recipe"]["length_s"])
            predictor.place(str(order), np.array(found[place]))
            if deepest == 3:
                predictor.finish(str(order), float(ends[order]))
            else:
                open_trials.append(order)
        started = time.perf_counter()
        expected = predictor.expected([str(order) for order in open_trials])
        seconds.append(time.perf_counter() - started)
        for order in open_trials:
            one = expected[str(order)]
            inside.append(abs(true[order] - one.mean) < 1.2816 * one.spread)
    return {"inside_80": float(np.mean(inside)), "decision_s": float(np.median(seconds))}


def looks(lines: Lines, all_lines: Lines) -> list[list[str]]:
    """What cheaper looks foretell, beside the same settings' curves cut at the age that costs as much."""
    full = {line["number"]: line for line in lines if line["seed"] == 0}
    rows = []
    for kind, share in (("eighth", 1 / 8), ("quarter", 1 / 4), ("half", 1 / 2)):
        short = [line for line in all_lines if line.get("kind") == kind and line["number"] in full]
        if len(short) >= 10:
            ends = [final(full[line["number"]]) for line in short]
            cut = [at(full[line["number"]], share * full[line["number"]]["recipe"]["length_s"]) for line in short]
            by = by_figure([at(line, 1e12) for line in short], ends)
            rows.append(
                [f"a complete {kind}", f"{share:.2f}", str(len(short)), *_cells(by), *_cells(by_figure(cut, ends))]
            )
    probed = [line for line in full.values() if line.get("probes")]
    for number in range(3 if len(probed) >= 10 else 0):
        ends = [final(line) for line in probed]
        probes = [line["probes"][number] for line in probed]
        share = float(
            np.mean([one["to_s"] / line["recipe"]["length_s"] for one, line in zip(probes, probed, strict=True)])
        )
        by = by_figure([Score(one["loss"], one["wer"], one["cer"], one["wer"] < 0.97) for one in probes], ends)
        cut = [at(line, one["to_s"]) for one, line in zip(probes, probed, strict=True)]
        rows.append(["a probe", f"{share:.2f}", str(len(probed)), *_cells(by), *_cells(by_figure(cut, ends))])
    return rows


def _cells(by: dict[str, float]) -> list[str]:
    return [f"{by['loss']:.2f}", f"{by['WER']:.2f}", f"{by['blend']:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, default=bench.ROOT / "benchmarks/curves")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    figures: dict[str, Any] = {}
    means = defaultdict(list)
    for file in sorted(chosen.curves.glob("*.jsonl")):
        all_lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        lines = [line for line in all_lines if line.get("kind", "full") == "full" and line["seed"] == 0]
        ends = [final(line) for line in lines]
        by = {s: by_figure([at(one, s * one["recipe"]["length_s"]) for one in lines], ends) for s in SHARES}
        calibrated = calibration(lines)
        print(f"\n{file.stem}: {len(lines)} settings; {shape(lines)}")
        print(bench.table(["share", "loss", "WER", "CER", "blend"], [
            [f"{share:.2f}", *[f"{value:.2f}" for value in row.values()]] for share, row in by.items()
        ]))  # fmt: skip
        print(f"predicted 80 % intervals hold {calibrated['inside_80']:.0%}; {calibrated['decision_s'] * 1e3:.0f} ms")
        rows = looks(lines, all_lines)
        if rows:
            headings = ["look", "cost", "settings", "loss", "WER", "blend", "cut: loss", "WER", "blend"]
            print(bench.table(headings, rows))
        for share, row in by.items():
            means[share].append(row["blend"])
        figures[file.stem] = {"correlations": by, **calibrated, "looks": rows}
    print("\nmean of blend over the tables: " + ", ".join(f"{s:.2f}: {np.mean(v):.2f}" for s, v in means.items()))
    bench.write(chosen.json, figures)
    if chosen.picture:
        draw(figures, chosen.picture)


def draw(figures: dict[str, Any], file: Path) -> None:
    """One panel a table: the rank correlations by share of the length."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    across = 4
    down = -(-len(figures) // across)
    whole, panels = plt.subplots(down, across, figsize=(13, 3.2 * down), sharex=True, sharey=True, squeeze=False)
    for panel, (name, one) in zip(panels.flat, figures.items(), strict=False):
        for label, style in (("loss", "--"), ("WER", ":"), ("CER", "-."), ("blend", "-")):
            rows = [(float(share), row[label]) for share, row in one["correlations"].items()]
            panel.plot(*zip(*rows, strict=True), style, label=label, linewidth=2 if label == "blend" else 1.3)
        panel.set_title(name)
        panel.set_ylim(0, 1)
    for panel in list(panels.flat)[len(figures) :]:
        panel.axis("off")
    panels[-1][0].set_xlabel("share of the length")
    panels[0][0].set_ylabel("rank correlation with the final WER")
    panels[0][0].legend()
    whole.tight_layout()
    whole.savefig(file, dpi=90)


if __name__ == "__main__":
    main()

"""A comparison of pruning rules as a text table and as JSON.

In: one comparison per number of workers. Out: text, and plain values. Called by `python -m sweeps.replay`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hausa_asr.settings.sweep import PruningSettings
from sweeps.replay.compare import Comparison
from sweeps.replay.curves import Curve
from sweeps.wording import many


def title(settings: Sequence[Sequence[Curve]], replays: int, trials: int) -> str:
    curves = sum(len(seeds) for seeds in settings)
    each = min(trials, len(settings))
    return f"{len(settings)} settings, {curves} recorded curves, {replays} replays of {each} trials each"


def in_columns(table: Comparison, labels: Sequence[str]) -> str:
    """The table of one number of workers; every figure with its 95 % interval over replays."""
    names = "time / full", "time / loss ASHA", "floor", "WER at budget", "top stopped", "stopped", "work", "reached"
    widths = 20, 20, 6, 21, 16, 8, 6, 8
    label_width = max(map(len, labels)) + 2
    lines = [many(table.workers, "worker").ljust(label_width)]
    lines[0] += "".join(name.rjust(width) for name, width in zip(names, widths, strict=True))
    for label in labels:
        figures = table.figures[label]
        cells = [
            f"{figures.time_vs_full:.2f}",
            f"{figures.time_vs_loss_asha:.2f}",
            f"{figures.floor_vs_full.mean:.2f}",
            f"{figures.wer_at_budget:.3f}",
            f"{figures.top_stopped:.0%}",
            f"{figures.stopped.mean:.0%}",
            f"{figures.work_vs_full.mean:.2f}",
            f"{figures.reached:.0%}",
        ]
        lines.append(label.ljust(label_width) + "".join(c.rjust(w) for c, w in zip(cells, widths, strict=True)))
    return "\n".join(lines)


def to_json(
    tables: Sequence[Comparison],
    workers: int,
    pruning: PruningSettings,
    settings: Sequence[Sequence[Curve]],
    replays: int,
    trials: int,
) -> dict[str, Any]:
    ours = next(table for table in tables if table.workers == workers).figures["ours"]
    return {
        "time_vs_random": ours.time_vs_full.mean,
        "time_vs_random_low": ours.time_vs_full.low,
        "time_vs_random_high": ours.time_vs_full.high,
        "time_vs_loss_asha": ours.time_vs_loss_asha.mean,
        "time_vs_loss_asha_low": ours.time_vs_loss_asha.low,
        "time_vs_loss_asha_high": ours.time_vs_loss_asha.high,
        "top_decile_stopped": ours.top_stopped.mean,
        "top_decile_stopped_high": ours.top_stopped.high,
        "floor_vs_random": ours.floor_vs_full.mean,
        "workers": workers,
        "settings": len(settings),
        "curves": sum(len(seeds) for seeds in settings),
        "replays": replays,
        "trials": min(trials, len(settings)),
        "pruning": pruning.model_dump(include={"rank_by", "reduction", "first_rung", "finish_share"}),
        "rules": {
            label: {str(table.workers): asdict(table.figures[label]) for table in tables} for label in tables[0].figures
        },
    }

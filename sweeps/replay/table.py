"""Print a comparison of pruning rules as a text table, and give it as JSON.

In: the replays and the rules. Out: one table per number of workers, and plain values. Called by
`python -m sweeps.replay`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hausa_asr.settings.sweep import PruningSettings
from sweeps.replay.compare import Comparison, Replays, compare
from sweeps.replay.rules import Selection
from sweeps.wording import many

HEADLINE_WORKERS = 4
"""The first figures of the JSON are with this number of workers, if it is compared."""
_COLUMNS = (
    ("time / full", 20),
    ("time / loss ASHA", 20),
    ("floor", 6),
    ("WER at budget", 21),
    ("top stopped", 16),
    ("stopped", 8),
    ("work", 6),
    ("reached", 8),
)
"""Names and widths."""


def show_comparison(replays: Replays, rules: Selection, counts: Sequence[int]) -> list[Comparison]:
    """Compare the rules with each number of workers, and print each table as soon as it is ready."""
    print(title(replays))
    comparisons = []
    for count in counts:
        comparisons.append(compare(replays, rules.rules, count))
        print("\n" + in_columns(comparisons[-1], rules.shown))
    return comparisons


def title(replays: Replays) -> str:
    """Say in one line what is compared."""
    recorded = f"{len(replays.settings)} settings, {_curves(replays)} recorded curves"
    return f"{recorded}, {len(replays.draws)} replays of {_trials(replays)} trials each"


def in_columns(comparison: Comparison, labels: Sequence[str]) -> str:
    """Lay out the table of one number of workers; ranges are 95 % intervals over replays."""
    label_width = max(map(len, labels)) + 2
    header = "".join(name.rjust(width) for name, width in _COLUMNS)
    lines = [many(comparison.workers, "worker").ljust(label_width) + header]
    for label in labels:
        figures = comparison.figures[label]
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
        row = "".join(cell.rjust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
        lines.append(label.ljust(label_width) + row)
    return "\n".join(lines)


def headline_workers(counts: Sequence[int]) -> int:
    """The number of workers of the first figures: `HEADLINE_WORKERS`, else the first number compared."""
    return HEADLINE_WORKERS if HEADLINE_WORKERS in counts else counts[0]


def to_json(comparisons: Sequence[Comparison], replays: Replays, pruning: PruningSettings) -> dict[str, Any]:
    """The figures as plain values: those of our rule first, then those of every rule by number of workers."""
    workers = headline_workers([one.workers for one in comparisons])
    ours = next(one for one in comparisons if one.workers == workers).figures["ours"]
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
        "settings": len(replays.settings),
        "curves": _curves(replays),
        "replays": len(replays.draws),
        "trials": _trials(replays),
        "pruning": pruning.model_dump(include={"rank_by", "reduction", "first_rung", "finish_share"}),
        "rules": {
            label: {str(one.workers): asdict(one.figures[label]) for one in comparisons}
            for label in comparisons[0].figures
        },
    }


def _curves(replays: Replays) -> int:
    return sum(len(seeds) for seeds in replays.settings)


def _trials(replays: Replays) -> int:
    """Trials of each replay."""
    return len(replays.draws[0])

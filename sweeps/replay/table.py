"""Compare pruning rules on one table of curves: print the figures as text, and give them as plain values.

In: the curves and the rules. Out: a `Table`, which holds one comparison per length of the sweep and number of workers.
Called by `python -m sweeps.replay`; `summary` puts several tables together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sweeps.replay.compare import Comparison, Replays, Setup, compare
from sweeps.replay.curves import Curve
from sweeps.replay.rules import Selection
from sweeps.wording import many

HEADLINE_WORKERS = 4
HEADLINE_TRIALS = 40
"""The first figures of the JSON are with this number of workers and of trials, if they are compared."""
_COLUMNS = (
    ("time / full", 19),
    ("time / WER ASHA", 19),
    ("work / full", 19),
    ("WER at 1/4", 12),
    ("at 1/2", 8),
    ("top stopped", 15),
    ("stopped", 9),
    ("reached", 9),
    ("floor", 7),
    ("least", 7),
)
"""Names and widths."""


@dataclass(frozen=True)
class Table:
    """The comparisons on one file of curves.

    Attributes:
        name: of the file.
        settings, curves: how many it holds.
        comparisons: by the trials of each sweep and the number of workers.
    """

    name: str
    settings: int
    curves: int
    comparisons: Mapping[tuple[int, int], Comparison]

    @property
    def headline(self) -> tuple[int, int]:
        """Trials and workers of the first figures."""
        trials = list(dict.fromkeys(trials for trials, _ in self.comparisons))
        workers = list(dict.fromkeys(workers for _, workers in self.comparisons))
        return nearest(trials, HEADLINE_TRIALS), headline_workers(workers)

    def first(self) -> Comparison:
        """The comparison of the first figures."""
        return self.comparisons[self.headline]


def nearest(trials: Sequence[int], wanted: int) -> int:
    """The wanted number of trials where it is compared, else the first."""
    return wanted if wanted in trials else trials[0]


def headline_workers(counts: Sequence[int]) -> int:
    """The number of workers of the first figures: `HEADLINE_WORKERS`, else the first number compared."""
    return HEADLINE_WORKERS if HEADLINE_WORKERS in counts else counts[0]


def show_table(
    name: str,
    settings: Sequence[Sequence[Curve]],
    rules: Selection,
    setup: Setup,
    lengths: Sequence[int],
    counts: Sequence[int],
) -> Table:
    """Compare the rules for each length of the sweep and number of workers, and print each as soon as it is ready.

    Args:
        name: of the table.
        settings: its curves, by setting.
        rules: what is compared.
        setup: how many replays, and of what; its `trials` are not used.
        lengths: trials of a sweep. One that tries all settings of the table makes longer ones needless.
        counts: trials side by side.
    """
    curves = sum(map(len, settings))
    print(f"\n{name}: {len(settings)} settings, {curves} recorded curves", flush=True)
    comparisons = {}
    whole = min((one for one in lengths if one >= len(settings)), default=max(lengths))
    for trials in [one for one in lengths if one <= whole]:
        replays = Replays(settings, replace(setup, trials=trials))
        for count in counts:
            comparisons[trials, count] = compare(replays, rules.rules, count)
            drawn = len(replays.draws[0])
            heading = f"{many(drawn, 'trial')}, {many(count, 'worker')}"
            print("\n" + in_columns(comparisons[trials, count], rules.shown, heading), flush=True)
    return Table(name, len(settings), curves, comparisons)


def in_columns(comparison: Comparison, labels: Sequence[str], heading: str) -> str:
    """Lay out one comparison; ranges are 95 % intervals, see `intervals`."""
    width = max(len(heading), *map(len, labels)) + 1
    lines = [heading.ljust(width) + "".join(name.rjust(width) for name, width in _COLUMNS)]
    for label in labels:
        figures = comparison.figures[label]
        cells = [
            f"{figures.time_vs_full:.2f}",
            f"{figures.time_vs_wer_asha:.2f}",
            f"{figures.work_vs_full:.2f}",
            f"{figures.wer_at_quarter.mean:.3f}",
            f"{figures.wer_at_half.mean:.3f}",
            f"{figures.top_stopped:.0%}",
            f"{figures.stopped.mean:.0%}",
            f"{figures.reached:.0%}",
            f"{figures.floor_vs_full.mean:.2f}",
            f"{figures.least_vs_full.mean:.2f}",
        ]
        row = "".join(cell.rjust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
        lines.append(label.ljust(width) + row)
    return "\n".join(lines)


def table_json(table: Table) -> dict[str, Any]:
    """The figures of one table as plain values: those of our rule first, then those of every rule."""
    trials, workers = table.headline
    ours = table.first().figures["ours"]
    rules = {
        length: {
            label: {
                str(count): asdict(one.figures[label]) for (at, count), one in table.comparisons.items() if at == length
            }
            for label in table.first().figures
        }
        for length in dict.fromkeys(length for length, _ in table.comparisons)
    }
    return {
        "time_vs_random": ours.time_vs_full.mean,
        "time_vs_random_low": ours.time_vs_full.low,
        "time_vs_random_high": ours.time_vs_full.high,
        "time_vs_wer_asha": ours.time_vs_wer_asha.mean,
        "time_vs_wer_asha_low": ours.time_vs_wer_asha.low,
        "time_vs_wer_asha_high": ours.time_vs_wer_asha.high,
        "time_vs_loss_asha": ours.time_vs_loss_asha.mean,
        "time_vs_loss_asha_low": ours.time_vs_loss_asha.low,
        "time_vs_loss_asha_high": ours.time_vs_loss_asha.high,
        "top_decile_stopped": ours.top_stopped.mean,
        "top_decile_stopped_high": ours.top_stopped.high,
        "floor_vs_random": ours.floor_vs_full.mean,
        "least_vs_random": ours.least_vs_full.mean,
        "workers": workers,
        "settings": table.settings,
        "curves": table.curves,
        "replays": len(table.first().targets),
        "trials": min(trials, table.settings),
        "rules": rules.pop(trials),
        "other_trials": {str(length): figures for length, figures in rules.items()},
    }

"""Put the figures of several tables together: geometric means, and the worst table.

In: the `Table`s of one command. Out: a text table of the rules, and the values of `--json`. Called by
`python -m sweeps.replay`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hausa_asr.settings.sweep import PruningSettings
from sweeps.replay.compare import RuleFigures
from sweeps.replay.intervals import together
from sweeps.replay.table import Table, table_json
from sweeps.wording import many

_COLUMNS = (
    ("time / full", 19),
    ("at worst", 10),
    ("time / WER ASHA", 19),
    ("at worst", 10),
    ("work / full", 19),
    ("top stopped at worst", 22),
    ("reached at worst", 18),
    ("least", 7),
)
"""Names and widths."""


def show_summary(tables: Sequence[Table], labels: Sequence[str]) -> None:
    """Print the geometric means, for every length of the sweep and number of workers, over the tables that have it."""
    for trials, workers in dict.fromkeys(key for one in tables for key in one.comparisons):
        held = [one.comparisons[trials, workers] for one in tables if (trials, workers) in one.comparisons]
        heading = f"{many(trials, 'trial')}, {many(workers, 'worker')}"
        width = max(len(heading), *map(len, labels)) + 1
        print(
            f"\nGeometric mean over {many(len(held), 'table')}; at worst: the upper end of the worst table's interval"
        )
        print(heading.ljust(width) + "".join(name.rjust(width) for name, width in _COLUMNS))
        for label in labels:
            figures = [one.figures[label] for one in held]
            cells = zip(_cells(figures), _COLUMNS, strict=True)
            print(label.ljust(width) + "".join(cell.rjust(width) for cell, (_, width) in cells))


def _cells(figures: Sequence[RuleFigures]) -> list[str]:
    return [
        f"{together([one.time_vs_full for one in figures]):.2f}",
        f"{max(one.time_vs_full.high for one in figures):.2f}",
        f"{together([one.time_vs_wer_asha for one in figures]):.2f}",
        f"{max(one.time_vs_wer_asha.high for one in figures):.2f}",
        f"{together([one.work_vs_full for one in figures]):.2f}",
        f"{max(one.top_stopped.mean for one in figures):.0%}",
        f"{min(one.reached for one in figures):.0%}",
        f"{together([one.least_vs_full for one in figures]).mean:.2f}",
    ]


def to_json(tables: Sequence[Table], pruning: PruningSettings) -> dict[str, Any]:
    """The figures as plain values: our rule over all tables, then each table; of a single one, its own figures too."""
    ours = [table.first().figures["ours"] for table in tables]
    random, stock = (together([getattr(one, name) for one in ours]) for name in ("time_vs_full", "time_vs_wer_asha"))
    by_table = {table.name: table_json(table) for table in tables}
    single = by_table[tables[0].name] if len(tables) == 1 else {"workers": tables[0].headline[1]}
    return {
        **single,
        "time_vs_random": random.mean,
        "time_vs_random_interval": [random.low, random.high],
        "worst_time_vs_random": max(one.time_vs_full.high for one in ours),
        "time_vs_wer_asha": stock.mean,
        "time_vs_wer_asha_interval": [stock.low, stock.high],
        "time_vs_wer_asha_high": max(one.time_vs_wer_asha.high for one in ours),
        "top_decile_stopped": max(one.top_stopped.mean for one in ours),
        "least_vs_random": together([one.least_vs_full for one in ours]).mean,
        "pruning": pruning.model_dump(include={"rank_by", "reduction", "first_rung", "finish_share"}),
        "tables": by_table,
    }

"""Pruning rules raced on recorded learning curves: `python -m sweeps.replay`. No training, one core, under a minute.

In: complete curves, from `benchmarks/curves/` or from a finished sweep in MLflow. Out: a table of the rules by number
of workers, a picture, JSON; or for a sweep of your own, what pruning would have saved.

In a replay the settings come in a random order, the same for every rule, on W workers and a virtual clock: training
takes what the median curve took when it was recorded, and so does each evaluation that a sweep would have made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hausa_asr.errors import EXIT_USER_ERROR, UserError
from hausa_asr.settings.load import load, make_absolute
from hausa_asr.settings.sweep import PruningSettings, SweepConfig
from sweeps.replay.compare import Field, Table, standings
from sweeps.replay.curves import Curve, of_sweep, read, steady
from sweeps.replay.rules import RULES, Entry, Options, entry
from sweeps.replay.savings import in_words, saved

_ROOT = Path(__file__).resolve().parent.parent.parent
CURVES = _ROOT / "benchmarks/curves/demo.jsonl"
CONFIG = _ROOT / "sweeps/configs/demo.yaml"
EPOCH_S = 2069.0
"""Seconds of audio in the demo corpus's train split."""
HEADLINE_WORKERS = 4
ALWAYS = ("full", "asha_loss", "ours")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    curves: Annotated[Path, typer.Option(help="Recorded curves, a JSONL file.")] = CURVES,
    config: Annotated[Path, typer.Option(help="The settings whose pruning is raced as `ours`.")] = CONFIG,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:OPTION=VALUE,...]",
            help="Race this rule, in place of the usual ones; again for more. Such as ours:rank_by=loss,reduction=2",
        ),
    ] = None,
    replays: Annotated[int, typer.Option(min=2, help="How many orders of the settings.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Of the orders.")] = 0,
    workers: Annotated[str, typer.Option(metavar="N,N,...", help="Trials side by side.")] = "1,4,16,64",
    first_rung: Annotated[float | None, typer.Option(help="In place of the settings' own.")] = None,
    reduction: Annotated[int | None, typer.Option(help="In place of the settings' own.")] = None,
    every: Annotated[
        float, typer.Option(min=0, max=1, help="Evaluate so often beside the rungs, as a share of the length.")
    ] = 0.25,
    trials: Annotated[int, typer.Option(min=5, help="Settings that each replay draws, the baseline among them.")] = 40,
    numbers: Annotated[
        str | None,
        typer.Option(metavar="FIRST-LAST", help="Only the settings of these numbers, and the baseline."),
    ] = None,
    recorded_seconds: Annotated[
        bool, typer.Option(help="Take the seconds of each curve as they were, whatever else the machine did then.")
    ] = False,
    gap_s: Annotated[float, typer.Option(min=0, help="Seconds before a trial's first step.")] = 0.0,
    epoch_s: Annotated[float, typer.Option(min=1, help="Seconds of audio in the train split.")] = EPOCH_S,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the races.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures.")] = None,
    sweep: Annotated[str | None, typer.Option(help="Replay this finished sweep from MLflow instead.")] = None,
    uri: Annotated[str | None, typer.Option(help="Of MLflow, for --sweep; the settings' by default.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Of MLflow, for --sweep; the settings' by default.")] = None,
) -> None:
    """Race pruning rules on recorded learning curves, or see what pruning would have saved a finished sweep.

    \b
    python -m sweeps.replay --picture replay.png
    python -m sweeps.replay --rule ours:rank_by=loss --rule ours:reduction=4,first_rung=0.2
    python -m sweeps.replay --sweep my_sweep-20261123-120000 --uri http://mlflow.example:5000
    """
    try:
        changed = {"first_rung": first_rung, "reduction": reduction}
        settings = load(config, [f"pruning.{name}={value}" for name, value in changed.items() if value is not None])
        counts = _counts(workers)
        if sweep is not None:
            told = _replay_sweep(settings, sweep, uri, experiment, _headline(counts), replays, seed)
        else:
            known = read(curves, *_numbers(numbers))
            known = known if recorded_seconds else steady(known)
            length_s = max(curve.length_s for seeds in known for curve in seeds)
            entries = _entries(rule or list(RULES), Options(length_s, epoch_s, settings.pruning))
            field = Field(known, replays, seed, every, trials)
            shown = [one for one in entries if one.label in (*ALWAYS, *(rule or RULES))]
            print(_title(known, replays, trials))
            tables = []
            for count in counts:
                tables.append(standings(field, entries, count, gap_s, seed))
                print("\n" + _in_columns(tables[-1], shown))
            if picture is not None:
                from sweeps.replay.picture import draw

                draw(tables, [one.label for one in shown], picture, _title(known, replays, trials))
            told = _as_json(tables, _headline(counts), settings.pruning, known, replays, trials)
        if json_ is not None:
            json_.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        raise typer.Exit(EXIT_USER_ERROR) from None
    except OSError as error:
        Console(stderr=True, soft_wrap=True).print(f"Cannot write: {error}", markup=False, highlight=False)
        raise typer.Exit(EXIT_USER_ERROR) from None


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise UserError(f"{text!r} are no numbers of workers.", where="--workers", fix="Write for example 1,4,16,64.")
    return list(dict.fromkeys(counts))


def _numbers(text: str | None) -> tuple[int, int | None]:
    if text is None:
        return 0, None
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise UserError(f"{text!r} is no range of numbers.", where="--numbers", fix="Write for example 60-119.")
    return int(first), int(last)


def _headline(counts: Sequence[int]) -> int:
    return HEADLINE_WORKERS if HEADLINE_WORKERS in counts else counts[0]


def _entries(labels: Sequence[str], options: Options) -> list[Entry]:
    """The rules that were asked for, those that are always raced, and the peer of each, once."""
    asked = [entry(label, options) for label in (*ALWAYS, *labels)]
    order = [*labels, *ALWAYS, *(one.peer.label for one in asked)]
    found = {one.label: one for rule in asked for one in (rule, rule.peer)}
    return [found[label] for label in dict.fromkeys(order)]


def _title(settings: Sequence[Sequence[Curve]], replays: int, trials: int) -> str:
    curves = sum(len(seeds) for seeds in settings)
    each = min(trials, len(settings))
    return f"{len(settings)} settings, {curves} recorded curves, {replays} replays of {each} trials each"


def _in_columns(table: Table, shown: Sequence[Entry]) -> str:
    """The table of one number of workers; every figure with its 95 % interval over replays."""
    names = "time / full", "time / loss ASHA", "floor", "WER at budget", "top stopped", "stopped", "work", "reached"
    widths = 20, 20, 6, 21, 16, 8, 6, 8
    label_width = max(len(one.label) for one in shown) + 2
    lines = [f"{table.workers} worker{'s' if table.workers > 1 else ''}".ljust(label_width)]
    lines[0] += "".join(name.rjust(width) for name, width in zip(names, widths, strict=True))
    for one in shown:
        found = table.standings[one.label]
        cells = [
            f"{found.time_vs_full:.2f}",
            f"{found.time_vs_loss_asha:.2f}",
            f"{found.floor_vs_full.mean:.2f}",
            f"{found.wer_at_budget:.3f}",
            f"{found.top_stopped:.0%}",
            f"{found.stopped.mean:.0%}",
            f"{found.work_vs_full.mean:.2f}",
            f"{found.reached:.0%}",
        ]
        lines.append(one.label.ljust(label_width) + "".join(c.rjust(w) for c, w in zip(cells, widths, strict=True)))
    return "\n".join(lines)


def _as_json(
    tables: Sequence[Table],
    workers: int,
    pruning: PruningSettings,
    settings: Sequence[Sequence[Curve]],
    replays: int,
    trials: int,
) -> dict[str, Any]:
    ours = next(table for table in tables if table.workers == workers).standings["ours"]
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
            label: {str(table.workers): asdict(table.standings[label]) for table in tables}
            for label in tables[0].standings
        },
    }


def _replay_sweep(
    settings: SweepConfig, sweep: str, uri: str | None, experiment: str | None, workers: int, replays: int, seed: int
) -> dict[str, Any]:
    from hausa_asr.tracking.tracker import Tracker

    mlflow = make_absolute(settings, in_job=False).mlflow
    curves, left_out = of_sweep(Tracker.open(uri or mlflow.uri, experiment or mlflow.experiment), sweep)
    told = saved(curves, settings.pruning, workers, replays, seed)
    print(in_words(sweep, told, left_out, workers))
    return {**asdict(told), "left_out": left_out, "workers": workers, "replays": replays}


if __name__ == "__main__":
    app()

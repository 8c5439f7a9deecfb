"""Pruning rules compared on recorded learning curves: `python -m sweeps.replay`. No training, one core, under a minute.

In: complete curves, from `benchmarks/curves/` or from a finished sweep in MLflow. Out: a table of the rules by number
of workers, a picture, JSON; or for a sweep of your own, what pruning saves. Options and help are here; the work is in
`compare`, `savings` and `table`.

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
from hausa_asr.settings.sweep import SweepConfig
from sweeps.replay.compare import Comparison, Replays, compare
from sweeps.replay.curves import of_sweep, read, steady
from sweeps.replay.rules import RULES, NamedRule, Options, named_rule
from sweeps.replay.savings import in_words, savings
from sweeps.replay.table import in_columns, title, to_json

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
    config: Annotated[Path, typer.Option(help="The settings whose pruning is compared as `ours`.")] = CONFIG,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:OPTION=VALUE,...]",
            help="Compare this rule, in place of the usual ones; again for more. Such as ours:rank_by=loss,reduction=2",
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
    picture: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the best WER over time.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures.")] = None,
    sweep: Annotated[str | None, typer.Option(help="Replay this finished sweep from MLflow instead.")] = None,
    uri: Annotated[str | None, typer.Option(help="Of MLflow, for --sweep; the settings' by default.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Of MLflow, for --sweep; the settings' by default.")] = None,
) -> None:
    """Compare pruning rules on recorded learning curves, or see what pruning saves on a sweep of yours.

    Without --sweep, the rules run on the complete curves of a file: how soon does each find the best setting, how much
    work does it take, how many of the best does it stop?

    \b
    python -m sweeps.replay --picture replay.png
    python -m sweeps.replay --rule ours:rank_by=auto --rule ours:reduction=4,first_rung=0.2

    With --sweep, the trials of a finished sweep that ran to their end are run again with our rule, from MLflow alone:
    what did pruning save, or what would it have saved, and would it have stopped the winner?

    \b
    python -m sweeps.replay --sweep my_sweep-20261123-120000 --uri http://mlflow.example:5000
    """
    try:
        changed = {"first_rung": first_rung, "reduction": reduction}
        settings = load(config, [f"pruning.{name}={value}" for name, value in changed.items() if value is not None])
        counts = _counts(workers)
        if sweep is not None:
            figures = _replay_sweep(settings, sweep, uri, experiment, _headline(counts), replays, seed)
        else:
            recorded = read(curves, *_numbers(numbers))
            recorded = recorded if recorded_seconds else steady(recorded)
            length_s = max(curve.length_s for seeds in recorded for curve in seeds)
            rules = _named_rules(rule or list(RULES), Options(length_s, epoch_s, settings.pruning))
            labels = [one.label for one in rules if one.label in (*ALWAYS, *(rule or RULES))]
            heading = title(recorded, replays, trials)
            print(heading)
            tables = _compare_all(Replays(recorded, replays, seed, every, trials), rules, labels, counts, gap_s, seed)
            if picture is not None:
                from sweeps.replay.picture import draw

                draw(tables, labels, picture, heading)
            figures = to_json(tables, _headline(counts), settings.pruning, recorded, replays, trials)
        if json_ is not None:
            json_.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        raise typer.Exit(EXIT_USER_ERROR) from None
    except OSError as error:
        Console(stderr=True, soft_wrap=True).print(f"Cannot write: {error}", markup=False, highlight=False)
        raise typer.Exit(EXIT_USER_ERROR) from None


def _compare_all(
    replays: Replays, rules: Sequence[NamedRule], labels: Sequence[str], counts: Sequence[int], gap_s: float, seed: int
) -> list[Comparison]:
    """Compare the rules with each number of workers, and print each table as soon as it is there."""
    tables = []
    for count in counts:
        tables.append(compare(replays, rules, count, gap_s, seed))
        print("\n" + in_columns(tables[-1], labels))
    return tables


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


def _named_rules(labels: Sequence[str], options: Options) -> list[NamedRule]:
    """The rules that were asked for, those that are always compared, and the peer of each, once."""
    asked = [named_rule(label, options) for label in (*ALWAYS, *labels)]
    order = [*labels, *ALWAYS, *(one.peer.label for one in asked)]
    by_label = {one.label: one for rule in asked for one in (rule, rule.peer)}
    return [by_label[label] for label in dict.fromkeys(order)]


def _replay_sweep(
    settings: SweepConfig, sweep: str, uri: str | None, experiment: str | None, workers: int, replays: int, seed: int
) -> dict[str, Any]:
    from hausa_asr.tracking.tracker import Tracker

    mlflow = make_absolute(settings, in_job=False).mlflow
    curves, left_out = of_sweep(Tracker.open(uri or mlflow.uri, experiment or mlflow.experiment), sweep)
    saved = savings(curves, settings.pruning, workers, replays, seed)
    print(in_words(sweep, saved, left_out, workers))
    return {**asdict(saved), "left_out": left_out, "workers": workers, "replays": replays}


if __name__ == "__main__":
    app()

"""Compare pruning rules on recorded learning curves, or replay a finished sweep: `python -m sweeps.replay`.

In: complete curves, from `benchmarks/curves/` or from a finished sweep in MLflow. Out: figures of the rules for each
table and over all, a picture, JSON; or what pruning would save the finished sweep. Options and help are here; the work
is in `compare`, `intervals`, `table`, `summary` and `savings`. It trains nothing, and takes some minutes on one core.

In a replay the settings come in a random order, the same for every rule, on W workers and a virtual clock; a rule may
pick another of them next. Training and each evaluation that a sweep would make take the median time of the recorded
ones.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hausa_asr.errors import EXIT_USER_ERROR, UserError
from hausa_asr.settings.load import load, make_absolute
from hausa_asr.userinfo import keep_for_mlflow
from sweeps.replay.compare import STOCK, Setup
from sweeps.replay.curves import BASELINE, longest_s, read, steady
from sweeps.replay.rules import Options, Selection, select
from sweeps.replay.savings import show_savings
from sweeps.replay.summary import show_summary, to_json
from sweeps.replay.table import HEADLINE_TRIALS, Table, headline_workers, show_table
from sweeps.wording import many

_ROOT = Path(__file__).resolve().parent.parent.parent
CURVES = _ROOT / "benchmarks/curves"
CONFIG = _ROOT / "sweeps/configs/demo.yaml"
EPOCH_S = 2069.0
"""Seconds of audio in the demo corpus's train split."""
USUAL = ("full", "asha_wer_2", "asha_wer_4", "asha_loss", "ours", "plain")
REPLAYS, PART_REPLAYS, FEWEST_PART_REPLAYS = 180, 24, 4
"""For one table; several share them, so that the command takes about three minutes in all."""
SWEEP_REPLAYS = 400
GRID_TRIALS, GRID_WORKERS = (20, 40, 100), (1, 4, 16)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    curves: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Recorded curves; repeatable. By default all of benchmarks/curves."),
    ] = None,
    config: Annotated[Path, typer.Option(help="The settings whose pruning is compared as `ours`.")] = CONFIG,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:OPTION=VALUE,...]",
            help="Compare this rule instead of the usual ones; repeatable. For example ours:rank_by=loss,reduction=2",
        ),
    ] = None,
    replays: Annotated[
        int | None,
        typer.Option(min=2, help=f"Random orders of the settings, per table; by default {REPLAYS} in all."),
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=0, help="Random two thirds of the settings that are replayed too, for the intervals.")
    ] = 20,
    part_replays: Annotated[
        int | None,
        typer.Option(
            min=2,
            help=f"Random orders of each of these; by default {PART_REPLAYS} over all tables, at least "
            f"{FEWEST_PART_REPLAYS}.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random orders.")] = 0,
    workers: Annotated[str, typer.Option(metavar="N,N,...", help="Trials side by side.")] = "4",
    first_rung: Annotated[float | None, typer.Option(help="First rung, instead of the settings' own.")] = None,
    reduction: Annotated[int | None, typer.Option(help="Reduction factor, instead of the settings' own.")] = None,
    every: Annotated[
        float,
        typer.Option(min=0, max=1, help="Interval of the evaluations beside the rungs, as a share of the length."),
    ] = 0.25,
    trials: Annotated[
        list[int] | None,
        typer.Option(min=5, help="Settings that each replay draws, the baseline included; repeatable.  [default: 40]"),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Sweeps of 20, 40 and 100 trials on 1, 4 and 16 workers: takes half an hour.")
    ] = False,
    numbers: Annotated[
        str | None,
        typer.Option(metavar="FIRST-LAST", help="Only the settings with these numbers, and the baseline."),
    ] = None,
    recorded_seconds: Annotated[
        bool, typer.Option(help="Use the recorded seconds of each curve, not the median pace of all curves.")
    ] = False,
    gap_s: Annotated[float, typer.Option(min=0, help="Seconds before a trial's first step.")] = 0.0,
    epoch_s: Annotated[float, typer.Option(min=1, help="Seconds of audio in the train split.")] = EPOCH_S,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the lowest WER over time.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON.")] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Show what pruning would save this finished sweep (a name or a run id in MLflow)."
        ),
    ] = None,
    uri: Annotated[
        str | None, typer.Option(help="MLflow's address, for --sweep; by default that of the settings.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="MLflow's experiment, for --sweep; by default that of the settings.")
    ] = None,
) -> None:
    """Compare pruning rules on recorded learning curves, or show what pruning would save a finished sweep.

    Without --sweep, the rules run on the complete curves of each file. The
    tables show how soon each rule finds the best setting, how much work it takes,
    and how many of the best settings it stops; then come the geometric means.
    Ranges are 95 % intervals, and count the choice of the settings as chance.

    \b
    python -m sweeps.replay --picture replay.png
    python -m sweeps.replay --curves my_curves.jsonl --json my_figures.json
    python -m sweeps.replay --rule ours:rank_by=auto --rule ours:reduction=4,first_rung=0.2

    --sweep NAME shows what pruning would have saved a finished sweep, and whether
    it would have stopped the winner. It reads the sweep from MLflow and replays
    the trials that ran to their end with our rule. Pruned trials are left out,
    since the rest of their curves is not known: only a sweep without pruning
    (--set pruning.rule=none) shows whether one of them would have won.

    \b
    python -m sweeps.replay --sweep my_sweep-20261123-120000 --uri http://mlflow.example:5000
    """
    with _errors_in_words():
        changed = {"first_rung": first_rung, "reduction": reduction}
        settings = load(config, [f"pruning.{name}={value}" for name, value in changed.items() if value is not None])
        counts, lengths = _counts(workers), sorted(set(trials or [HEADLINE_TRIALS]))
        if grid:
            counts, lengths = list(GRID_WORKERS), list(GRID_TRIALS)
        if sweep is not None:
            from hausa_asr.tracking.tracker import Tracker

            mlflow = make_absolute(settings, in_job=False).mlflow
            tracker = Tracker.open(keep_for_mlflow(uri or mlflow.uri), experiment or mlflow.experiment)
            setup = Setup(replays or SWEEP_REPLAYS, seed)
            figures = show_savings(tracker, sweep, settings.pruning, headline_workers(counts), setup)
        else:
            files = curves or sorted(CURVES.glob("*.jsonl"))
            setup = Setup(
                replays or max(REPLAYS // len(files), 2),
                seed,
                every,
                gap_s=gap_s,
                resamples=resamples,
                part_replays=part_replays or max(PART_REPLAYS // len(files), FEWEST_PART_REPLAYS),
            )
            first_picks = settings.search.random_trials
            labels, tables = tuple(dict.fromkeys([*(rule or USUAL), STOCK])), []
            print(_in_words(setup))
            for file, name in _names(files).items():
                recorded = read(file, *_numbers(numbers))
                recorded = recorded if recorded_seconds else steady(recorded)
                baseline = recorded[0][0].source == BASELINE
                options = Options(longest_s(recorded), epoch_s, settings.pruning, first_picks, baseline)
                rules = select(labels, options)
                tables.append(show_table(name, recorded, rules, setup, lengths, counts))
            if len(tables) > 1:
                show_summary(tables, rules.shown)
            if picture is not None:
                _draw(tables, rules, picture, _in_words(setup))
            figures = to_json(tables, settings.pruning)
        if json_ is not None:
            json_.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _in_words(setup: Setup) -> str:
    """Say in one line how much is replayed."""
    parts = f"{setup.part_replays} each of {many(setup.resamples, 'random part')} of its settings"
    return f"Of each table {many(setup.replays, 'replay')}" + (
        f", and {parts} for the intervals" * bool(setup.resamples)
    )


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """What each table is called: its file's name, or the whole path where two have the same."""
    stems = Counter(file.stem for file in dict.fromkeys(files))
    return {file: file.stem if stems[file.stem] == 1 else str(file) for file in files}


def _draw(tables: Sequence[Table], rules: Selection, picture: Path, title: str) -> None:
    """Draw all comparisons of a single table, or the first of each."""
    from sweeps.replay.picture import draw_picture

    if len(tables) == 1:
        (one,) = tables
        panels = {f"{trials} trials, {many(n, 'worker')}": seen for (trials, n), seen in one.comparisons.items()}
    else:
        panels = {f"{one.name}, {many(one.headline[1], 'worker')}": one.first() for one in tables}
    draw_picture(panels, rules.shown, picture, title)


@contextmanager
def _errors_in_words() -> Iterator[None]:
    """Print errors that the user can mend without a traceback, and exit with `EXIT_USER_ERROR`."""
    try:
        yield
    except (UserError, OSError) as error:
        message = str(error) if isinstance(error, UserError) else f"Cannot write: {error}"
        Console(stderr=True, soft_wrap=True).print(message, markup=False, highlight=False)
        raise typer.Exit(EXIT_USER_ERROR) from None


def _counts(text: str) -> list[int]:
    """Read the numbers of workers."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise UserError(
            f"{text!r} does not list numbers of workers.", where="--workers", fix="Write for example 1,4,16,64."
        )
    return list(dict.fromkeys(counts))


def _numbers(text: str | None) -> tuple[int, int | None]:
    """Read the first and the last number of the settings to replay."""
    if text is None:
        return 0, None
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise UserError(f"{text!r} is not a range of settings.", where="--numbers", fix="Write for example 60-119.")
    return int(first), int(last)


if __name__ == "__main__":
    app()

"""The entry point of a sweep: `python sweeps/run.py --config sweeps/configs/demo.yaml`, alone or as a Ray job.

Reads like a table of contents: settings, Ray, data, tracker, search, result. What each step does is in its room. Much
is imported late, so that `--help` is there at once and Ray starts while the rest is imported. Long, since its
options and all steps are here, and what each step needs is imported beside it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

_ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(_ROOT)  # run as a script, Python puts sweeps/ there, where our files would shadow other packages

import typer
from rich.console import Console

from hausa_asr.command_options import Resume, Retry
from hausa_asr.errors import EXIT_USER_ERROR, UserError, of_the_disk
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.storage.address import here, join, portable
from sweeps.driver.console import console_of
from sweeps.driver.interrupts import end_at_sigterm
from sweeps.driver.moved_mlflow import passed_over
from sweeps.driver.sweep_folder import (
    by_name,
    data_of,
    forget_deleted,
    refuse_closed,
    refuse_retry,
    refuse_taken,
    refuse_useless_lm,
    saved,
    settings_of,
    storage_of,
    to_type,
)  # fmt: skip
from sweeps.record.names import LOG_FILE
from sweeps.record.state import FAULT, INTERRUPTED, PAUSED_ITSELF
from sweeps.wording import many

if TYPE_CHECKING:
    from sweeps.driver.agenda import Agenda
    from sweeps.driver.sweep import Sweep
    from sweeps.mlflow_mirror.mirror import Mirror
    from sweeps.planning.estimate import Prediction
    from sweeps.record.state import State

EXIT_INTERRUPTED, EXIT_LOST = 130, 1
_MLFLOW_INTERRUPT_S = 2.0
"""How long MLflow is waited for after an interrupt: `ray job stop` kills after 3 s."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    config: Annotated[Path | None, typer.Option(help="The sweep's settings, a YAML file.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Replace one setting, for example search.trials=4."),
    ] = None,
    resume: Resume = None,
    retry: Retry = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would run where, for how long and at what cost; start nothing.")
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(metavar="TRIAL", help="Say why a trial went on or not: t004 of the newest sweep, or SWEEP/t004."),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="SWEEP",
            help="Write a sweep's report.html again; keep that of a running one up to date until it ends.",
        ),
    ] = None,
    export_study: Annotated[
        tuple[Path, str] | None,
        typer.Option(metavar="FILE.db SWEEP", help="Write a sweep as an Optuna study, for optuna-dashboard."),
    ] = None,
) -> None:
    """Search for the fine-tune with the lowest word error rate.

    Trains the baseline and then what Optuna proposes, pauses what loses at a rung, records every trial in MLflow,
    trains the best again on fresh seeds, names the winner with its interval, scores it on test once and exports it.
    Everything of a sweep is in RUNS/NAME/: settings, ledger, checkpoints, logs, and at the end result.json and
    report.html.

    \b
    python sweeps/run.py --config my_sweep.yaml --plan
    python sweeps/run.py --config sweeps/configs/demo.yaml
    python sweeps/run.py --config my_sweep.yaml --set model.base=facebook/wav2vec2-xls-r-300m --set search.trials=40

    Interrupted, killed or out of time, a sweep goes on where it stopped. A finished one can be given more trials, a
    larger budget or a wider space:

    \b
    python sweeps/run.py --resume demo-20260101-120000
    python sweeps/run.py --resume demo-20260101-120000 --set search.trials=80
    python sweeps/run.py --resume demo-20260101-120000 --retry t004
    python sweeps/run.py --resume demo-20260101-120000 --set "space.layerdrop={low: 0.0, high: 0.2}"
    python sweeps/run.py --explain t004
    python sweeps/run.py --report demo-20260101-120000
    python sweeps/run.py --export-study study.db demo-20260101-120000
    """
    console = console_of(sys.stdout)
    end_at_sigterm()
    name = ""
    try:
        overrides = set_ or []
        if explain is not None:
            from sweeps.record.explain import explain as explained
            from sweeps.record.explain import find

            text = explained(*find(storage_of(overrides), explain))
            console.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        if report is not None:
            from sweeps.driver.reporting import report_again

            report, overrides = by_name(report, overrides)
            report_again(storage_of(overrides), report, partial(_say, console))
            return
        if export_study is not None:
            from sweeps.sampling.export import export_study as write_study
            from sweeps.sampling.export import url_of

            file, sweep = export_study
            sweep, overrides = by_name(sweep, overrides)
            count = write_study(*saved(storage_of(overrides), sweep), file)
            _say(console, f"{many(count, 'trial')} in {file}; look at them with:  optuna-dashboard {url_of(file)}")
            return
        if resume is not None:
            resume, overrides = by_name(resume, overrides)
        settings, name = settings_of(config, overrides, resume)
        if plan:
            show_plan(settings, console)
            return
        if retry:
            refuse_retry(here(join(settings.storage, name)) if resume else None, retry)
        run(settings, name, resume is not None, console, retry or [])
    except (UserError, OSError) as fault:
        error = fault if isinstance(fault, UserError) else of_the_disk(fault)
        if error is None:
            raise
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        raise typer.Exit(EXIT_USER_ERROR) from None
    except KeyboardInterrupt:
        folder = here(join(settings.storage, name)) if name else None
        then = "Nothing of the sweep was written."
        if folder is not None and folder.is_dir():
            then = _how_to_go_on(folder)
        console.print(f"\nInterrupted. {then}", highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def show_plan(config: SweepConfig, console: Console) -> None:
    """Print what a sweep would take. Nothing is started; only a cluster that is given is asked for its nodes.

    Raises:
        UserError: it cannot run; the fix says what would.
    """
    from hausa_asr.dataset.from_settings import seconds_and_fingerprint
    from hausa_asr.recipe import CACHE
    from sweeps.on_ray.cluster import address_of, connected
    from sweeps.planning.admission import check, describe
    from sweeps.planning.epochs import of_known_length
    from sweeps.planning.estimate import predict
    from sweeps.planning.slots import admit, local_nodes

    if address_of(config.cluster) is None or config.cluster.nodes:
        nodes = local_nodes(config.cluster)
    else:
        with connected(config.cluster, here(config.storage), config.resources.labels) as living:
            nodes = living
    seconds, fingerprint = seconds_and_fingerprint(config.data, here(config.storage) / CACHE)
    config = of_known_length(config, seconds)
    plan = admit(config.resources, nodes, config.search.trials, grows=address_of(config.cluster) is not None)
    prediction = predict(config, plan, here(config.storage), seconds, fingerprint=fingerprint)
    console.print(describe(config, nodes, plan, prediction), markup=False, highlight=False, soft_wrap=True)
    check(config, prediction)


def run(config: SweepConfig, name: str, resumed: bool, console: Console, retry: Sequence[str] = ()) -> None:
    """Run a sweep to its end.

    Args:
        config: its settings, all paths absolute.
        name: its name, and its folder's in the storage.
        resumed: it goes on, rather than being new.
        console: where progress is shown.
        retry: its failed trials that are to be tried again.

    Raises:
        UserError: it cannot start. Nothing of the sweep is written then.
        KeyboardInterrupt: it was interrupted, and can be resumed.
    """
    began_s = time.monotonic()
    folder = here(join(config.storage, name))
    if not resumed:
        refuse_taken(config, name)
        refuse_closed(folder)
        forget_deleted(folder)
    _say(console, f"sweep {name}: starting")
    from hausa_asr.model.base_check import check_base
    from sweeps.driver.log_lines import formatter, log_to
    from sweeps.driver.publisher import published
    from sweeps.on_ray.cluster import address_of, connecting, prepare_environment
    from sweeps.sampling import space

    space.check(config)
    for base in config.bases:
        check_base(base)
    refuse_useless_lm(config, folder)
    formatter(name)  # refuses what it does not know while nothing is written
    prepare_environment(config.cluster)
    driving = partial(published, folder, partial(_taken_over, folder, console), partial(_say, console))
    with ExitStack() as hold:
        # At once, before anything is waited for; a new sweep writes nothing before it is known that it can run.
        publisher = hold.enter_context(driving()) if resumed else None
        connection = hold.enter_context(connecting(config.cluster, folder / "logs"))  # starts while the rest is readied
        prepared = data_of(config, folder, console)
        splits = ", ".join(f"{name} {len(split)}" for name, split in prepared.splits.items())
        _say(console, f"data: {splits} utterances in {prepared.path}")
        config = config.with_length(prepared.seconds["train"])
        with console.status("waiting for MLflow"):
            from hausa_asr.tracking.tracker import Tracker
            from sweeps.sampling.warm_start import earlier

            tracker = Tracker(config.mlflow.uri, config.mlflow.experiment, patient=resumed)
            warm = earlier(config, name, prepared.fingerprint, patient=resumed)
        if resumed and (note := passed_over(config)):
            _say(console, note)
        if not tracker.answers:
            _say(console, f"MLflow at {tracker.shown_uri} does not answer: what is new waits in the ledger")
        with console.status("waiting for Ray"):
            nodes = connection.nodes(config.resources.labels)
        end_at_sigterm()  # once more, since Ray sets a handler of its own

        from sweeps.driver.agenda import Agenda
        from sweeps.driver.closing import Ending, close_sweep
        from sweeps.driver.sweep import open_sweep
        from sweeps.mlflow_mirror.mirror import Mirror
        from sweeps.on_ray.averaging import averager
        from sweeps.on_ray.calibration import calibrated, is_worthwhile
        from sweeps.on_ray.guard import watched
        from sweeps.on_ray.listening import listener
        from sweeps.on_ray.metrics import exported
        from sweeps.on_ray.scoring import scorer
        from sweeps.planning.admission import check, in_a_line
        from sweeps.planning.estimate import predict
        from sweeps.planning.memory import too_little
        from sweeps.planning.slots import admit
        from sweeps.sampling.study import Study
        from sweeps.verdict.soup import Models

        plan = admit(config.resources, nodes, config.search.trials, grows=address_of(config.cluster) is not None)
        prediction = predict(config, plan, here(config.storage), prepared.seconds, fingerprint=prepared.fingerprint)
        if not resumed:
            if is_worthwhile(config, prediction):
                _say(console, "measuring a trial's speed, about a minute")
                prediction = calibrated(config, plan, prepared, prediction)
            check(config, prediction)
        folder.mkdir(parents=True, exist_ok=True)
        with nullcontext(publisher) if resumed else driving() as publisher:
            log_to(folder / LOG_FILE)
            sweep = open_sweep(config, folder, prepared, plan, publisher)
            for trial in retry:
                sweep.ledger.append("retried", trial=trial)
            warnings = [*prediction.warnings, *too_little(config, plan.slots, nodes, prediction.features)]
            _describe(sweep, [in_a_line(config, prediction), *warm.notes, *warnings], console)
            agenda = Agenda(config, sweep.ledger, sweep.rule, Study(config, warm.trials, sweep.predictor))
            mirror = Mirror(tracker, sweep.ledger, config, sweep.tags)
            mirror.start()
            try:
                lost = partial(_ray_is_lost, sweep, mirror, console)
                with watched(folder / "logs", lost), exported(sweep, mirror.waiting), sweep.leaving():
                    if not _search(sweep, agenda, mirror, prediction, console):
                        why = agenda.failures.too_many()
                        sweep.leave(PAUSED_ITSELF if why else INTERRUPTED, why)
                        if why:
                            mirror.interrupted(_MLFLOW_INTERRUPT_S)
                            _say(console, f"The sweep has paused itself: {why}\nMend that. {_how_to_go_on(folder)}")
                            raise typer.Exit(EXIT_LOST)
                        raise KeyboardInterrupt
                    ending = Ending(agenda.over, began_s)
                    agenda.finish()
                    for trial in sweep.ledger.state.trials:
                        mirror.mark(trial)
                    models = Models(
                        averager(prepared.path, plan),
                        scorer(prepared.path, plan, config.recipe().dev_part_s),
                        listener(prepared.path, plan),
                    )
                    if not close_sweep(sweep, ending, models, tracker, mirror, console):
                        raise typer.Exit(1)
            except KeyboardInterrupt:
                mirror.interrupted(_MLFLOW_INTERRUPT_S)
                raise
            finally:
                mirror.close()


def _search(sweep: Sweep, agenda: Agenda, mirror: Mirror, prediction: Prediction, console: Console) -> bool:
    """Run trials and finalists, with the table of trials on the console; False after an interrupt."""
    from sweeps.driver.board import Board
    from sweeps.on_ray.cluster import address_of
    from sweeps.on_ray.node_changes import node_changes_said
    from sweeps.on_ray.tune_run import search
    from sweeps.planning.forecast import forecast

    config, slots = sweep.config, sweep.plan.slots

    def left(state: State) -> str:
        return str(forecast(state, config, state.slots or slots, time.time(), prediction))

    with ExitStack() as hold:
        board = hold.enter_context(Board(sweep.ledger, config, slots, left, console))
        if address_of(config.cluster) is not None:
            hold.enter_context(node_changes_said(sweep.ledger, config.resources, partial(_say, console)))
        return search(sweep, agenda, mirror, board, at_once=partial(_leave_at_once, sweep, mirror, console))


def _leave_at_once(sweep: Sweep, mirror: Mirror, console: Console) -> None:
    """Record an interrupt while slots end, since whoever sent it may kill the driver in seconds."""
    _say(console, "Interrupted: trials have some seconds to write where they are. Once more, and it ends at once.")
    sweep.leave(INTERRUPTED)
    mirror.interrupted(_MLFLOW_INTERRUPT_S)


def _ray_is_lost(sweep: Sweep, mirror: Mirror, console: Console) -> NoReturn:
    """End the driver, and say how to go on, after the local Ray has ended."""
    sweep.leave(FAULT, "the local Ray has ended")
    mirror.interrupted(_MLFLOW_INTERRUPT_S)
    console.show_cursor()
    why = f"The local Ray has ended; its logs in {sweep.folder / 'logs'} may say why."
    _say(console, f"\n{why} {_how_to_go_on(sweep.folder)}")
    os._exit(EXIT_LOST)  # anything gentler would wait for Ray


def _how_to_go_on(folder: Path) -> str:
    return f"Go on with:  python sweeps/run.py --resume {to_type(folder)}"


def _taken_over(folder: Path, console: Console) -> NoReturn:
    """End the driver, without another word to the storage, after another one has taken the sweep over."""
    console.show_cursor()
    _say(console, f"\nAnother driver has taken over the sweep {portable(folder)}, since this one was cut off from the "
                  "storage. This one stops; what it did since counts no more.")  # fmt: skip
    os._exit(EXIT_LOST)


def _describe(sweep: Sweep, notes: list[str], console: Console) -> None:
    """Print what will run where, and what the user should know before."""
    from sweeps.planning.epochs import epochs
    from sweeps.planning.groups import range_in_words, sizes_in_words

    resources, plan, bases = sweep.config.resources, sweep.plan, " or ".join(sweep.config.bases)
    workers = f" with {range_in_words(resources)} each"
    if resources.has_range:
        workers = f": {sizes_in_words(plan.workers)} (resources.workers_per_trial is {range_in_words(resources)})"
    trials = f"{many(sweep.config.search.trials, 'trial')}, {plan.slots} side by side{workers}"
    _say(console, f"{trials}; base checkpoint {bases}; logs in {sweep.folder}")
    _say(
        console, f"a trial of full length sees the train split {epochs(sweep.config, sweep.prepared.seconds):.3g} times"
    )
    for note in filter(None, notes):
        _say(console, note)


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    app()

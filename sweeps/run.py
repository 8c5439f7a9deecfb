"""The entry point of a sweep: `python sweeps/run.py --config sweeps/configs/demo.yaml`, alone or as a Ray job.

Reads like a table of contents: settings, tracker, data, cluster, search, result. What each step does is in its room.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

_ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(_ROOT)  # run as a script, Python puts sweeps/ there, where our files would shadow other packages

import typer
from rich.console import Console

from hausa_asr.errors import EXIT_USER_ERROR, UserError
from hausa_asr.settings.load import SweepConfig
from sweeps.driver.sweep_folder import LOG, log_to, only_driver, refuse_taken, save, settings_of, storage_of

EXIT_INTERRUPTED, EXIT_LOST = 130, 1
_MLFLOW_END_S, _MLFLOW_INTERRUPT_S = 120.0, 2.0
"""How long MLflow is waited for at the end of a sweep, and after an interrupt (`ray job stop` kills after 3 s)."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    config: Annotated[Path | None, typer.Option(help="The sweep's settings, a YAML file.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Replace one setting, for example search.trials=4."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="SWEEP", help="Go on with this sweep of the storage, where it stopped.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would run where, for how long and at what cost; start nothing.")
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(metavar="TRIAL", help="Say why a trial went on or not: t004 of the newest sweep, or SWEEP/t004."),
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
    python sweeps/run.py --resume demo-20260101-120000 --set "space.layerdrop={low: 0.0, high: 0.2}"
    python sweeps/run.py --explain t004
    """
    console = Console()
    _end_gently()
    name = ""
    try:
        if explain is not None:
            from sweeps.record.explain import explain as explained
            from sweeps.record.explain import find

            told = explained(*find(storage_of(set_ or []), explain))
            console.print(told, markup=False, highlight=False, soft_wrap=True)
            return
        settings, name = settings_of(config, set_ or [], resume)
        if plan:
            show_plan(settings, console)
            return
        run(settings, name, resume is not None, console)
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        raise typer.Exit(EXIT_USER_ERROR) from None
    except KeyboardInterrupt:
        begun = name and (Path(settings.storage) / name).is_dir()
        then = f"Go on with:  python sweeps/run.py --resume {name}" if begun else "Nothing of the sweep was written."
        console.print(f"\nInterrupted. {then}", highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def show_plan(config: SweepConfig, console: Console) -> None:
    """Print what a sweep would take. Nothing is started; only a cluster that is given is asked for its nodes.

    Raises:
        UserError: it cannot run, with what would.
    """
    from sweeps.on_ray.cluster import address_of
    from sweeps.planning.admission import check, describe
    from sweeps.planning.estimate import predict
    from sweeps.planning.slots import admit, local_nodes

    if address_of(config.cluster) is None or config.cluster.nodes:
        nodes = local_nodes(config.cluster)
    else:
        from sweeps.on_ray.cluster import connected

        with connected(config.cluster, Path(config.storage)) as found:
            nodes = found
    plan = admit(config.resources, nodes, config.search.trials)
    prediction = predict(config, plan, Path(config.storage))
    console.print(describe(config, nodes, plan, prediction), markup=False, highlight=False, soft_wrap=True)
    check(config, prediction)


def run(config: SweepConfig, name: str, resumed: bool, console: Console) -> None:
    """Run a sweep to its end.

    Args:
        config: its settings, all paths absolute.
        name: its name; everything of it is in the storage's folder of that name.
        resumed: it goes on, rather than being new.
        console: where progress is shown.

    Raises:
        UserError: it cannot start. Nothing of the sweep is written then.
        KeyboardInterrupt: it was interrupted, and can be resumed.
    """
    started = time.monotonic()
    folder = Path(config.storage) / name
    if not resumed:
        refuse_taken(folder)
    from sweeps.on_ray.cluster import connected, protect_local_ray

    protect_local_ray(config.cluster)
    console.print(f"[bold]sweep {name}[/]: loading", highlight=False)
    from hausa_asr.model.wav2vec2 import check_base
    from hausa_asr.tracking.tracker import Tracker
    from sweeps.driver.agenda import Agenda
    from sweeps.driver.board import Board
    from sweeps.driver.closing import end
    from sweeps.mlflow_mirror.mirror import Mirror
    from sweeps.on_ray.guard import watched
    from sweeps.on_ray.scheduler import marks, rule_of
    from sweeps.on_ray.tune_run import search
    from sweeps.planning.admission import check
    from sweeps.planning.estimate import predict
    from sweeps.planning.forecast import forecast
    from sweeps.planning.slots import admit
    from sweeps.record.ledger import Ledger, State, read_state
    from sweeps.sampling import space
    from sweeps.sampling.study import Study
    from sweeps.sampling.warm_start import earlier
    from sweeps.verdict.result import RESULT

    space.check(config)
    check_base(config.model.base)
    tracker = Tracker(config.mlflow.uri, config.mlflow.experiment)
    prepared = _data(config, read_state(folder), console)
    taught, notes = earlier(config, name, prepared.fingerprint)
    with connected(config.cluster, folder / "logs") as nodes:
        _end_gently()  # again: connecting to Ray has set a handler of its own
        plan = admit(config.resources, nodes, config.search.trials)
        prediction = predict(config, plan, Path(config.storage))
        if not resumed:
            check(config, prediction)
        folder.mkdir(parents=True, exist_ok=True)
        lock = only_driver(folder)
        log_to(folder / LOG)
        ledger = Ledger(folder)
        save(config, folder)
        (folder / RESULT).unlink(missing_ok=True)  # of a finished sweep that is given more trials
        if not ledger.state.name:
            ledger.append(
                "sweep", name=name, prepared=str(prepared.path), fingerprint=prepared.fingerprint, rungs=marks(config)
            )
        ledger.append("opened", slots=plan.slots)
        tags = {"base": config.model.base, "prepared": str(prepared.path), "fingerprint": prepared.fingerprint}
        mirror = Mirror(tracker, ledger, config, tags)
        mirror.start()
        rule = rule_of(config, ledger.state)
        agenda = Agenda(config, ledger, rule, Study(config, taught))
        _describe(config, plan, folder, [*notes, *prediction.warnings], console)

        def left(state: State) -> str:
            return str(forecast(state, config, plan.slots, time.time(), prediction))

        def lost() -> NoReturn:
            mirror.interrupted(_MLFLOW_INTERRUPT_S)
            console.show_cursor()
            why = f"The local Ray has ended; its logs in {folder / 'logs'} may say why."
            then = f"Go on with:  python sweeps/run.py --resume {name}"
            console.print(f"\n{why} {then}", highlight=False, soft_wrap=True)
            os._exit(EXIT_LOST)  # anything gentler would wait for Ray

        try:
            with watched(folder / "logs", lost):
                with Board(ledger, config.search.trials, plan.slots, left, console) as board:
                    done = search(config, ledger, folder, prepared, plan, agenda, rule, mirror, board)
                if not done:
                    mirror.interrupted(_MLFLOW_INTERRUPT_S)
                    raise KeyboardInterrupt
                agenda.finish()
                for trial in ledger.state.trials:
                    mirror.mark(trial)
                end(
                    config, ledger, prepared, plan, rule, tracker, mirror, console,
                    over=agenda.over, started=started, mlflow_s=_MLFLOW_END_S,
                )  # fmt: skip
        finally:
            mirror.close()
            lock.close()


def _end_gently() -> None:
    """Let SIGTERM, which is what `ray job stop` sends, do what Ctrl-C does: leave a sweep that can be resumed."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))


def _data(config: SweepConfig, began: Any, console: Console) -> Any:
    """The prepared dataset: the very one that a sweep began with, since trials on other dev splits don't compare.

    Raises:
        UserError: it can't be had.
    """
    from hausa_asr.dataset.from_settings import CACHE, prepared_dataset
    from hausa_asr.dataset.prepare import load_prepared

    if began.prepared:
        prepared = load_prepared(began.prepared)
        if prepared.fingerprint != began.fingerprint:
            raise UserError(
                "The prepared dataset is not the one that the sweep began with.",
                where=began.prepared,
                fix="Prepare the same audio with the same settings again, or start a new sweep.",
            )
    else:
        prepared = prepared_dataset(config.data, Path(config.storage) / CACHE, console=console)
    parts = [f"{name} {len(split)}" for name, split in prepared.splits.items()]
    console.print(f"data: {', '.join(parts)} utterances in {prepared.path}", highlight=False, soft_wrap=True)
    return prepared


def _describe(config: SweepConfig, plan: Any, folder: Path, notes: list[str], console: Console) -> None:
    workers = config.resources.workers_per_trial
    console.print(
        f"{config.search.trials} trials, {plan.slots} side by side with {workers} "
        f"worker{'s' if workers > 1 else ''} each; base checkpoint {config.model.base}; logs in {folder}",
        highlight=False,
        soft_wrap=True,
    )
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    app()

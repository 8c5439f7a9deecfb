"""The entry point of a sweep: `python sweeps/run.py --config sweeps/configs/demo.yaml`, alone or as a Ray job.

Reads like a table of contents: settings, tracker, data, cluster, search, result. What each step does is in its room.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any

_ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(_ROOT)  # run as a script, Python puts sweeps/ there, where our files would shadow other packages

import typer
from rich.console import Console

from hausa_asr.config import SweepConfig, in_ray_job, load, make_absolute
from hausa_asr.errors import EXIT_USER_ERROR, UserError

SETTINGS = "sweep.yaml"
LOG = "sweep.log"
EXIT_INTERRUPTED = 130
CHANGEABLE = ("search", "resources", "cluster", "storage")
"""Settings of a sweep that may be others when it goes on; the trials stay comparable."""

log = logging.getLogger("sweeps")
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
) -> None:
    """Search for the fine-tune with the lowest word error rate.

    Trains the baseline and then what Optuna proposes, prunes by eval loss, records every trial in MLflow, scores the
    best on test and exports it. Everything of a sweep is in RUNS/NAME/: settings, ledger, checkpoints, logs, and at
    the end result.json.

    \b
    python sweeps/run.py --config sweeps/configs/demo.yaml
    python sweeps/run.py --config my_sweep.yaml --set model.base=facebook/wav2vec2-xls-r-300m --set search.trials=40
    python sweeps/run.py --resume demo-20260101-120000
    """
    console = Console()
    _end_gently()
    name = ""
    try:
        settings, name = _settings(config, set_ or [], resume)
        run(settings, name, resume is not None, console)
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        raise typer.Exit(EXIT_USER_ERROR) from None
    except KeyboardInterrupt:
        begun = name and (Path(settings.storage) / name).is_dir()
        then = f"Go on with:  python sweeps/run.py --resume {name}" if begun else "Nothing of the sweep was written."
        console.print(f"\nInterrupted. {then}", highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


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
    if not resumed and folder.exists():
        raise UserError(
            f"There is a sweep named {name} already.",
            where=folder,
            fix=f"Go on with it (python sweeps/run.py --resume {name}), or give another name (--set name=...).",
        )

    from sweeps.connect import connected, protect_local_ray

    protect_local_ray(config.cluster)
    console.print(f"[bold]sweep {name}[/]: loading", highlight=False)
    from hausa_asr.data import CACHE, prepared_dataset
    from hausa_asr.model import check_base
    from hausa_asr.prepare import load_prepared
    from hausa_asr.tracking import Tracker
    from sweeps import space
    from sweeps.callbacks import Mirror
    from sweeps.ledger import Ledger, read_state
    from sweeps.plan import admit
    from sweeps.progress import Board, duration
    from sweeps.result import RESULT, conclude
    from sweeps.search import search

    space.check(config)
    check_base(config.model.base)
    tracker = Tracker(config.mlflow.uri, config.mlflow.experiment)
    began = read_state(folder)
    if began.prepared:
        # The very dataset that it began with: trials on other dev splits could not be compared.
        prepared = load_prepared(began.prepared)
        if prepared.fingerprint != began.fingerprint:
            raise UserError(
                "The prepared dataset is not the one that the sweep began with.",
                where=began.prepared,
                fix="Prepare the same audio with the same settings again, or start a new sweep.",
            )
    else:
        prepared = prepared_dataset(config.data, Path(config.storage) / CACHE, console=console)
    _describe(prepared, console)

    with connected(config.cluster, folder / "logs") as nodes:
        _end_gently()  # again: connecting to Ray has set a handler of its own
        plan = admit(config.resources, nodes, config.search.trials)
        folder.mkdir(parents=True, exist_ok=True)
        lock = _only_driver(folder)
        _log_to(folder / LOG)
        ledger = Ledger(folder)
        aside = folder / f"{SETTINGS}.partial"
        aside.write_text(config.to_yaml(), encoding="utf-8")
        aside.replace(folder / SETTINGS)
        (folder / RESULT).unlink(missing_ok=True)  # of a finished sweep that is given more trials
        if not ledger.state.name:
            ledger.append("sweep", name=name, prepared=str(prepared.path), fingerprint=prepared.fingerprint)
        ledger.append("opened")
        _open_parent(tracker, ledger, config, folder, prepared)
        tags = {"base": config.model.base, "prepared": str(prepared.path)}
        mirror = Mirror(tracker, ledger, config, tags)
        workers = config.resources.workers_per_trial
        console.print(
            f"{config.search.trials} trials, {plan.slots} side by side with {workers} "
            f"worker{'s' if workers > 1 else ''} each; base checkpoint {config.model.base}; logs in {folder}",
            highlight=False,
            soft_wrap=True,
        )
        with Board(ledger, config.search.trials, plan.slots, console) as board:
            search(config, ledger, folder, prepared, plan, mirror, board)
        behind = mirror.sync_all()
        if any(trial.is_open for trial in ledger.state.trials.values()):
            mirror.interrupted()
            raise KeyboardInterrupt
        console.print("scoring baseline and best on test", highlight=False)
        result = conclude(config, ledger, folder, prepared, plan, tracker)
        lock.close()
    _say(result, folder, tracker.ui_hint(), duration(time.monotonic() - started), console)
    if behind:
        console.print(f"MLflow lacks figures of {', '.join(behind)}; {folder / LOG} says why", soft_wrap=True)


def _end_gently() -> None:
    """Let SIGTERM, which is what `ray job stop` sends, do what Ctrl-C does: leave a sweep that can be resumed."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))


def _settings(path: Path | None, overrides: list[str], resume: str | None) -> tuple[SweepConfig, str]:
    """The settings and the sweep's name: from the file for a new one, from its folder for one that goes on."""
    if resume is None:
        if path is None:
            raise UserError("No settings were given.", fix="Add --config sweeps/configs/demo.yaml, or --resume SWEEP.")
        config = make_absolute(load(path, overrides), in_job=in_ray_job())
        when = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        return config, config.name or f"{re.sub(r'[^A-Za-z0-9._-]', '-', path.stem)}-{when}"
    others = [o for o in overrides if o.partition("=")[0].partition(".")[0].strip() not in CHANGEABLE]
    if path is not None or others:
        raise UserError(
            f"A sweep that goes on keeps its settings, but {', '.join(others) or path} would change them.",
            where=f"--resume {resume}",
            fix=f"Only {', '.join(CHANGEABLE)} can be set with --resume; for anything else start a new sweep.",
        )
    # Only the storage is looked up here; the settings themselves are the sweep's own.
    storage = Path(os.path.abspath(load(None, [o for o in overrides if o.startswith("storage=")]).storage))
    saved = storage / resume / SETTINGS
    if not saved.is_file():
        known = sorted((p.parent for p in storage.glob(f"*/{SETTINGS}")), key=lambda p: p.stat().st_mtime)
        names = ", ".join(p.name for p in known[-5:]) or "none"
        raise UserError(
            f"There is no sweep named {resume}.",
            where=storage,
            fix=f"Name one of the storage (newest last: {names}), or give its storage with --set storage=DIR.",
        )
    config = load(saved, [*overrides, f"storage={storage}"], environment={})  # the folder may have been moved
    return make_absolute(config, in_job=in_ray_job()), resume


def _open_parent(tracker: Any, ledger: Any, config: SweepConfig, folder: Path, prepared: Any) -> None:
    """The sweep's MLflow run: a new one, or the one it had."""
    run_id: str | None = ledger.state.run_id
    if run_id is not None:
        tracker.reopen(run_id)
        return
    params = config.model_dump(mode="json", exclude={"space", "storage", "mlflow"}, exclude_none=True)
    run_id = tracker.start_sweep(folder.name, params, {"base": config.model.base, "folder": str(folder)})
    ledger.append("opened", run_id=run_id)  # at once: a crash from here on finds the same run again
    report = Path(prepared.path) / "report.json"
    with tempfile.TemporaryDirectory() as aside:
        for part, file in (("settings", folder / SETTINGS), ("data", report)):
            (Path(aside) / part).mkdir()
            shutil.copy(file, Path(aside) / part)
            try:
                tracker.log_folder(run_id, Path(aside) / part, part)
            except Exception as error:  # the sweep does not need it
                log.warning("MLflow: %s is not recorded: %s", part, error)


def _only_driver(folder: Path) -> IO[str]:
    """Keep other drivers out of a sweep's folder, until this process ends or the file is closed."""
    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(
            "Another driver is at work on this sweep.",
            where=folder,
            fix="Let it finish, or stop it (Ctrl-C, or `ray job stop`), before you resume the sweep.",
        ) from None
    return lock


def _log_to(path: Path) -> None:
    """Everything that Ray, Tune and we have to say goes to the sweep's log and not across the table of trials."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    for name in ("sweeps", "ray", "ray.tune", "ray.train", "mlflow", "optuna"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == "sweeps" else logging.WARNING)
    logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)  # it misses the records that we turned off


def _describe(prepared: Any, console: Console) -> None:
    parts = [f"{name} {len(split)}" for name, split in prepared.splits.items()]
    console.print(f"data: {', '.join(parts)} utterances in {prepared.path}", highlight=False, soft_wrap=True)


def _say(result: dict[str, Any], folder: Path, ui: str, took: str, console: Console) -> None:
    best, baseline = result["best"], result["baseline"]
    console.print()
    if best is None:
        console.print(f"No trial got as far as a first evaluation; see {folder / LOG}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)

    def scores(end: dict[str, Any]) -> str:
        test = (
            f", test WER {end['test_wer']:.3f}, test CER {end['test_cer']:.3f}" if end["test_wer"] is not None else ""
        )
        return f"dev WER {end['wer']:.3f}{test}"

    lines = [f"best      {best['id']}  {scores(best)}"]
    if baseline:
        lines.append(f"baseline  {baseline['id']}  {scores(baseline)}")
    lines += [
        f"model     {result['export']}",
        f"result    {folder / 'result.json'}",
        f"compare   {ui}",
        f"export    hausa-asr best-model --sweep {result['sweep']}",
    ]
    console.print(f"[bold]sweep {result['sweep']}[/] finished in {took}", highlight=False)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    app()

"""A sweep's folder: whose settings count, who may drive it, where its log is.

In: what was typed. Out: the settings and the sweep's name; a folder that no other driver works in. Called by `run`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hausa_asr.errors import UserError
from hausa_asr.files import write_whole
from hausa_asr.settings.load import in_ray_job, load, make_absolute
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.storage.address import absolute, here, is_remote, join, parent, portable
from hausa_asr.storage.address import name as last_of
from hausa_asr.storage.fetched import at_hand, share
from sweeps.driver.moved_mlflow import with_moved_mlflow
from sweeps.planning.finalists import refuse_mixed_lengths
from sweeps.record.folders import bring, is_there, sweeps_in
from sweeps.record.ledger import read_state
from sweeps.record.ledger_parts import forget
from sweeps.record.names import LEDGER_FILE, LOCK_FILE, SETTINGS_FILE
from sweeps.record.state import State

if TYPE_CHECKING:
    from rich.console import Console

    from hausa_asr.dataset.prepared import Prepared

_LOOKS, _LOOK_S = 3, 0.1
CHANGEABLE = (
    "search",
    "space",
    "starting_points",
    "budget",
    "finalists",
    "resources",
    "cluster",
    "storage",
    "max_checkpoint_gb",
    "mlflow.uri",
    "data.prepared",
)
"""Settings that may change when a sweep goes on: its trials stay comparable. `mlflow.uri` is the same server at another
address, `data.prepared` the same dataset at another place."""


def settings_of(path: Path | None, overrides: list[str], resume: str | None) -> tuple[SweepConfig, str]:
    """Read the settings and the sweep's name: a new one's from its file, a resumed one's from its folder.

    Raises:
        UserError: they can't be read, are wrong, or would change what a sweep that goes on must keep.
    """
    if resume is None:
        if path is None:
            raise UserError("No settings were given.", fix="Add --config sweeps/configs/demo.yaml, or --resume SWEEP.")
        config = make_absolute(load(path, overrides), in_job=in_ray_job())
        when = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        return config, config.name or f"{re.sub(r'[^A-Za-z0-9._-]', '-', path.stem)}-{when}"
    refuse_changes(path, overrides, resume)
    state, config = saved(storage_of(overrides), resume, overrides)
    refuse_mixed_lengths(state, config)
    config = make_absolute(config, in_job=in_ray_job())
    if not any(override.partition("=")[0].strip() == "mlflow.uri" for override in overrides):
        config = with_moved_mlflow(config, state.run_id)
    return config, resume


def refuse_changes(path: Path | None, overrides: Sequence[str], resume: str) -> None:
    """Refuse what a sweep that goes on must keep.

    Args:
        path: a file of settings, which it has already.
        overrides: `name=value` each.
        resume: what names the sweep.

    Raises:
        UserError: with what may change.
    """
    names = [override.partition("=")[0].strip() for override in overrides]
    others = [name for name in names if not any(name == one or name.startswith(f"{one}.") for one in CHANGEABLE)]
    if path is not None or others:
        raise UserError(
            f"A sweep that goes on keeps its settings, but {', '.join(others) or path} would change them.",
            where=f"--resume {resume}",
            fix=f"Only {', '.join(CHANGEABLE)} can be set with --resume; for anything else start a new sweep.",
        )


def saved(storage: str, name: str, overrides: Sequence[str] = ()) -> tuple[State, SweepConfig]:
    """Read a sweep's ledger, and its settings with some replaced.

    Raises:
        UserError: the storage has no sweep of this name.
    """
    file = bring(storage, name) / SETTINGS_FILE
    if not file.is_file():
        names = ", ".join(sweeps_in(storage)[-5:]) or "none"
        raise UserError(
            f"There is no sweep named {name}.",
            where=storage,
            fix=f"Name one of the storage (newest last: {names}), or give its storage with --set storage=DIR.",
        )
    # Its own address of MLflow, not that of the environment; the folder may have been moved.
    config = load(file, [*overrides, f"storage={storage}"], environment={})
    return read_state(file.parent), config


def by_name(sweep: str, overrides: list[str]) -> tuple[str, list[str]]:
    """A sweep's name, and the overrides with its storage where it was given as a folder."""
    if os.sep not in sweep:
        return sweep, overrides
    place = absolute(sweep)
    return last_of(place), [*overrides, f"storage={parent(place)}"]


def to_type(folder: Path) -> str:
    """What names a sweep in a command typed here: its name if it is in the default storage, else its folder."""
    return (
        folder.name
        if folder.parent == Path(os.path.abspath(SweepConfig.model_fields["storage"].default))
        else shlex.quote(portable(folder))
    )


def storage_of(overrides: list[str]) -> str:
    """The folder of all sweeps, by `--set storage=`, the environment or the default."""
    return absolute(load(None, [o for o in overrides if o.startswith("storage=")]).storage)


def data_of(config: SweepConfig, folder: Path, console: Console) -> Prepared:
    """Open the prepared dataset: the very one that a sweep began with, since trials on other dev splits don't compare.

    Raises:
        UserError: it can't be had.
    """
    from hausa_asr.dataset.from_settings import folder_of, prepared_dataset
    from hausa_asr.dataset.prepared import load_prepared
    from hausa_asr.recipe import CACHE

    began = read_state(folder)
    if not began.prepared:
        cache = here(config.storage) / CACHE
        if not config.data.prepared and is_remote(config.storage):
            with suppress(FileNotFoundError):  # another driver may have prepared it
                at_hand(folder_of(config.data, cache), foreign=False)
        prepared = prepared_dataset(config.data, cache, console=console)
        share(prepared.path)  # else only this node has it
        return prepared
    # The storage may have been moved, and the dataset with it.
    places = [config.data.prepared, began.prepared, join(config.storage, CACHE, last_of(began.prepared))]
    faults = []
    for place in dict.fromkeys(filter(None, places)):
        try:
            prepared = load_prepared(place)
        except UserError as fault:
            faults.append(f"{place}: {fault.what}")
            continue
        if prepared.fingerprint == began.fingerprint:
            return prepared
        faults.append(f"{place}: it is another dataset, by its fingerprint.")
    raise UserError(
        "The prepared dataset that the sweep began with is not there:\n" + "\n".join(f"  - {one}" for one in faults),
        where=folder,
        fix="Say where it is now with --set data.prepared=DIR, or prepare the same audio with the same settings again.",
    )


def refuse_taken(config: SweepConfig, name: str) -> None:
    """Refuse to begin a sweep under a name that is taken.

    Raises:
        UserError: with what to type instead.
    """
    if is_there(config.storage, name):
        folder = here(join(config.storage, name))
        raise UserError(
            f"There is a sweep named {name} already.",
            where=portable(folder),
            fix=f"Go on with it (python sweeps/run.py --resume {to_type(folder)}), or give another name "
            "(--set name=...).",
        )


def refuse_closed(folder: Path) -> None:
    """Refuse to begin a sweep whose folder could not be made.

    Raises:
        UserError: this user may not write there.
    """
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            "The sweep's folder can't be made: you may not write there.", where=there, fix="Give another storage=..."
        )


def forget_deleted(folder: Path) -> None:
    """Put aside what this node has of a sweep of the same name that was deleted in the object store.

    Args:
        folder: of a sweep that begins anew and is not in the storage.

    Raises:
        UserError: another driver begins it at this moment.
    """
    file = folder / LEDGER_FILE
    if is_remote(portable(folder)) and file.is_file():
        with only_driver(folder):
            forget(file)


def refuse_retry(folder: Path | None, trials: Sequence[str]) -> None:
    """Refuse to try trials again that have not failed.

    Args:
        folder: the sweep's folder; None for a new sweep.
        trials: their ids.

    Raises:
        UserError: with the ids of those that have failed.
    """
    known = read_state(folder).trials if folder is not None else {}
    failed = [name for name, trial in known.items() if trial.state == "failed"]
    for name in trials:
        if name not in failed:
            raise UserError(
                f"Trial {name} has not failed, so it cannot be tried again.",
                where="--retry" if folder is None else folder,
                fix=f"With --resume name one that has: {', '.join(failed) or 'none has'}.",
            )


def refuse_useless_lm(config: SweepConfig, folder: Path) -> None:
    """Refuse a language model that the sweep's end could not use.

    Raises:
        UserError: with what is wrong with it.
    """
    if config.finalists.language_model is not None:
        from sweeps.verdict.with_lm import check_language_model

        check_language_model(config.finalists.language_model, folder)


def save(config: SweepConfig, folder: Path) -> None:
    """Write a sweep's settings to its folder."""
    write_whole(folder / SETTINGS_FILE, config.to_yaml())


def only_driver(folder: Path) -> IO[str]:
    """Lock a sweep's folder against other drivers, until this process ends or the file is closed.

    Raises:
        UserError: another driver is at work, or the file system has no locks.
    """
    try:
        lock = (folder / LOCK_FILE).open("w")
    except PermissionError as error:
        raise UserError(
            f"The sweep's folder can't be written: {error.strerror}.",
            where=folder,
            fix="Get the rights there, or copy the sweep's folder to a storage of your own.",
        ) from None
    for left in reversed(range(_LOOKS)):  # who asks whether a driver is at work holds the lock for a moment
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if left:
                time.sleep(_LOOK_S)
        except OSError as error:
            raise UserError(
                f"This file system has no locks, so two drivers could write one sweep: {error.strerror}.",
                where=folder,
                fix="Mount it with locks, or put the storage on another file system or into an object store "
                "(storage=s3://bucket/runs)."
                if not is_remote(portable(folder))
                else "Set HAUSA_ASR_SCRATCH to a folder on a local disk.",
            ) from None
    raise UserError(
        "Another driver is at work on this sweep.",
        where=folder,
        fix="Let it finish, or stop it (Ctrl-C, or `ray job stop`), before you resume the sweep.",
    )

"""How a sweep begins or goes on: whose settings count, who may drive it, where its log is. Called by `run.py`."""

from __future__ import annotations

import fcntl
import logging
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from hausa_asr.errors import UserError
from hausa_asr.settings.load import SweepConfig, in_ray_job, load, make_absolute

SETTINGS = "sweep.yaml"
LOG = "sweep.log"
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
)
"""Settings of a sweep that may be others when it goes on; the trials stay comparable."""


def settings_of(path: Path | None, overrides: list[str], resume: str | None) -> tuple[SweepConfig, str]:
    """The settings and the sweep's name: from the file for a new one, from its folder for one that goes on.

    Raises:
        UserError: they can't be read, are wrong, or would change what a sweep that goes on must keep.
    """
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
    storage = storage_of(overrides)
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


def storage_of(overrides: list[str]) -> Path:
    """Where sweeps are, by `--set storage=`, the environment or the default; all else is the sweep's own."""
    return Path(os.path.abspath(load(None, [o for o in overrides if o.startswith("storage=")]).storage))


def refuse_taken(folder: Path) -> None:
    """Refuse to begin a sweep under a name that is taken.

    Raises:
        UserError: with what to type instead.
    """
    if folder.exists():
        raise UserError(
            f"There is a sweep named {folder.name} already.",
            where=folder,
            fix=f"Go on with it (python sweeps/run.py --resume {folder.name}), or give another name (--set name=...).",
        )


def save(config: SweepConfig, folder: Path) -> None:
    """Keep a sweep's settings in its folder, whole or not at all."""
    aside = folder / f"{SETTINGS}.partial"
    aside.write_text(config.to_yaml(), encoding="utf-8")
    aside.replace(folder / SETTINGS)


def only_driver(folder: Path) -> IO[str]:
    """Keep other drivers out of a sweep's folder, until this process ends or the file is closed.

    Raises:
        UserError: another driver is at work.
    """
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


def log_to(path: Path) -> None:
    """Everything that Ray, Tune and we have to say goes to the sweep's log and not across the table of trials."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    for name in ("sweeps", "ray", "ray.tune", "ray.train", "mlflow", "optuna", "urllib3"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == "sweeps" else logging.WARNING)
    logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)  # it misses the records that we turned off

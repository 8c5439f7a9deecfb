"""Get the model of a run: from the artifact of its sweep, or from its checkpoint in the sweep's storage.

In: a run as MLflow has it. Out: a folder that is filled, with its card. Called by `best_model`.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

import yaml

from hausa_asr.errors import UserError
from hausa_asr.export.folder import NEEDED, POSSIBLE, WEIGHTS, weights_are_whole
from hausa_asr.export.model_card import Card, scores_from
from hausa_asr.export.write import write_model
from hausa_asr.recipe import CHECKPOINT
from hausa_asr.settings.recipe import RECIPE_FIELDS, check_setting
from hausa_asr.storage.address import is_remote
from hausa_asr.storage.fetched import at_hand
from hausa_asr.storage.retry import patience

if TYPE_CHECKING:
    from hausa_asr.tracking.tracker import SweepRun, Tracker, TrialRun

_AWAY_S = 20.0
"""How long an object store that does not answer is waited for: somebody looks on."""
ARTIFACT = "best_model"
"""Where a sweep's parent run in MLflow keeps the export of its winner."""


def fetch(
    tracker: Tracker, best: TrialRun, parent: SweepRun | None, trials: list[TrialRun], partial: Path
) -> tuple[Literal["artifact", "checkpoint"], float | None]:
    """Fill `partial` with the export of a trial, from MLflow or from its checkpoint.

    Returns:
        Which of the two; and for a checkpoint the dev WER that was saved with it, since it may be an older one.

    Raises:
        UserError: neither has it; the message lists what is missing.
    """
    missing = []
    winner = parent.tags.get("winner_run", parent.tags.get("winner")) if parent else None
    if parent is None:
        missing.append(f"the sweep's run {best.parent or '(unknown)'}, which would hold the model")
    elif winner != best.trial:
        ended = f"is of its winner {winner}" if winner else "is made when the sweep ends"
        missing.append(f"an artifact of this trial (the artifact {ARTIFACT} of run {parent.run_id} {ended})")
    else:
        trouble = _fetch_artifact(tracker, parent.run_id, partial)
        if trouble is None:
            return "artifact", None
        missing.append(f"the artifact {ARTIFACT} of run {parent.run_id} ({trouble})")
    stated = best.tags.get("checkpoint_uri")
    if not stated:
        missing.append(f"the tag checkpoint_uri of run {best.run_id}, which names the trial's checkpoint")
    elif (folder := _local_path(stated)) is None:
        missing.append(f"a checkpoint that can be had (checkpoint_uri is {stated})")
    elif not (folder / CHECKPOINT).is_file():
        missing.append(f"the folder {folder}, which checkpoint_uri names")
    else:
        write_model(folder, partial, _card_of(tracker, best, parent, trials, folder))
        return "checkpoint", _figures_of(folder).get("wer")
    raise UserError(
        f"The model of trial {best.trial} (dev WER {best.wer:.4f}) was not found. Missing:\n"
        + "\n".join(f"  - {one}" for one in missing),
        where=f"{tracker.shown_uri}, sweep {best.sweep}, run {best.run_id}",
        fix="Run this where the sweep's storage is, or end the sweep (python sweeps/run.py --resume "
        f"{_to_resume(best, parent)}), which puts its winner into MLflow.",
    )


def _fetch_artifact(tracker: Tracker, run_id: str, partial: Path) -> str | None:
    """Download the export that a sweep's run holds into `partial`; return what is wrong with it, or None."""
    downloads = partial / "download"
    fetched = tracker.download(run_id, ARTIFACT, downloads)
    try:
        if fetched is None:
            return "it is not there"
        lacking = sorted(name for name in NEEDED if not (fetched / name).is_file())
        if lacking:
            return f"it lacks {', '.join(lacking)}"
        if not weights_are_whole(fetched / WEIGHTS):
            return f"its {WEIGHTS} is damaged"
        for file in list(fetched.iterdir()):
            if file.name in POSSIBLE:
                file.rename(partial / file.name)
        return None
    finally:
        shutil.rmtree(downloads, ignore_errors=True)


def _local_path(uri: str) -> Path | None:
    """The folder that a `file://` URI or a plain path names, or what an address names, fetched; None if it is gone."""
    if is_remote(uri):
        with suppress(OSError, UserError), patience(_AWAY_S):
            return at_hand(uri)
        return None
    if "://" not in uri and not uri.startswith("file:"):
        return Path(uri)
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None


def _card_of(
    tracker: Tracker, trial: TrialRun, parent: SweepRun | None, trials: list[TrialRun], checkpoint: Path
) -> Card:
    """The card of a trial, from what MLflow and its checkpoint's folder know of it."""
    in_sweep = [other for other in trials if other.parent == trial.parent]
    ended = (other for other in in_sweep if other.state == "finished")  # one that was stopped early says nothing
    baseline = next((other for other in ended if other.tags.get("source") == "baseline"), None)
    dev = {**_figures_of(checkpoint), "wer": trial.wer, "cer": trial.cer if trial.cer is not None else math.nan}
    scores = scores_from(dev)  # type: ignore[arg-type]
    assert scores is not None
    base_license, data_license = _licenses(tracker, trial)
    return Card(
        sweep=trial.sweep,
        trial=trial.trial,
        base=trial.tags.get("base", "unknown"),
        recipe=_recipe(trial.params),
        data=_data_report(tracker, trial),
        dev=scores,
        test=scores_from(trial.metrics, "test_"),
        baseline_trial=baseline.trial if baseline else None,
        baseline_dev=scores_from(baseline.metrics, "best_") if baseline else None,
        baseline_test=scores_from(baseline.metrics, "test_") if baseline else None,
        headline=verdict_of(trial, parent),
        base_license=base_license,
        data_license=data_license,
    )


def _figures_of(checkpoint: Path) -> dict[str, float]:
    """The figures of the evaluation that a checkpoint was saved at; {} if it has none."""
    try:
        return dict(json.loads((checkpoint / "progress.json").read_text(encoding="utf-8"))["metrics"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _recipe(params: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a recipe among a run's params, which MLflow keeps as text; the base is a tag besides."""
    recipe: dict[str, Any] = {}
    for name in RECIPE_FIELDS:
        if name in params and name != "base":
            try:
                recipe[name] = check_setting(name, params[name])
            except ValueError:  # recorded by another version, which allowed it
                recipe[name] = params[name]
    return recipe


def _data_report(tracker: Tracker, trial: TrialRun) -> dict[str, Any]:
    """The report of the prepared dataset, from the sweep's run or from the dataset itself; {} where both are gone."""
    prepared = Path(trial.tags.get("prepared", "nowhere"))
    with tempfile.TemporaryDirectory() as folder:
        path = tracker.download(trial.parent, "data/report.json", Path(folder)) if trial.parent else None
        for candidate in (path, prepared / "report.json"):
            if candidate is not None and candidate.is_file():
                return json.loads(candidate.read_text(encoding="utf-8"))
    return {}


def _to_resume(best: TrialRun, parent: SweepRun | None) -> str:
    """What names its sweep from any directory: the folder, where its run says that."""
    return shlex.quote(parent.tags.get("folder") or best.sweep) if parent is not None else best.sweep


def _licenses(tracker: Tracker, trial: TrialRun) -> tuple[str, str]:
    """The licences of base and data, from the settings that the sweep's run holds; "" where they are gone."""
    from hausa_asr.tracking.tracker import SETTINGS_FILE

    with tempfile.TemporaryDirectory() as folder:
        file = tracker.download(trial.parent, SETTINGS_FILE, Path(folder)) if trial.parent else None
        try:
            about = yaml.safe_load(file.read_text(encoding="utf-8")) if file is not None else {}
            of_base = about["model"].get("license") if about["model"].get("base") == trial.tags.get("base") else ""
            return str(of_base or ""), str(about["data"].get("license") or "")
        except (OSError, ValueError, KeyError, AttributeError, TypeError, yaml.YAMLError):
            return "", ""


def verdict_of(best: TrialRun, parent: SweepRun | None) -> str:
    """What a sweep says of its winner; "" of any other run."""
    if parent is None or parent.tags.get("winner_run", parent.tags.get("winner")) != best.trial:
        return ""
    return parent.tags.get("verdict", "")

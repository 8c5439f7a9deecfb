"""Find the best model that MLflow knows, and export it.

In: a tracking URI, an experiment, perhaps a sweep. Out: a model folder that is complete or absent, and what is in it.
Called by `hausa-asr best-model`.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

from hausa_asr.errors import UserError, first_line
from hausa_asr.export.folder import NEEDED, POSSIBLE, WEIGHTS, check_out, weights_are_whole, written_aside
from hausa_asr.export.language_model import add_language_model, check_language_model
from hausa_asr.export.model_card import Card, scores_from
from hausa_asr.export.write import write_model
from hausa_asr.recipe import CHECKPOINT
from hausa_asr.settings.recipe import RECIPE_FIELDS, check_setting

if TYPE_CHECKING:
    from hausa_asr.tracking.tracker import SweepRun, Tracker, TrialRun

ARTIFACT = "best_model"
"""Where a sweep's parent run in MLflow keeps the export of its winner."""


@dataclass(frozen=True)
class Exported:
    """The model that `best_model` exported, and how good it is.

    Attributes:
        out: the folder that was written.
        sweep, trial, run_id: the trial and its run in MLflow.
        wer, cer: on dev; `cer` is None where it was not recorded. Of a winner of finalists the means over its seeds.
        test_wer, test_cer: on test; None where the winner was not scored on it.
        source: whether it came from the sweep's artifact or from the trial's checkpoint.
        chosen: why this one: `finalists`, or `lowest dev WER` where no finalists ran.
        seeds: on how many fresh seeds the winner of finalists was trained; 0 without finalists.
        soup: the trials whose weights the model is the mean of, if it is such an average; its error rates are its own.
        verdict: how the winner did against the baseline, in a sentence; "" for a model that is no sweep's winner.
    """

    out: Path
    sweep: str
    trial: str
    wer: float
    cer: float | None
    test_wer: float | None
    test_cer: float | None
    source: Literal["artifact", "checkpoint"]
    run_id: str
    chosen: Literal["finalists", "lowest dev WER"] = "lowest dev WER"
    seeds: int = 0
    soup: tuple[str, ...] = ()
    verdict: str = ""


def best_model(
    uri: str, experiment: str, *, sweep: str | None, out: Path, overwrite: bool = False, with_lm: Path | None = None
) -> Exported:
    """Export the best model of a sweep, or of a whole experiment, as MLflow has it.

    The winner of a sweep is what its finalists named, or the lowest dev WER where none ran. Between sweeps their
    winners' dev WER counts. The winner of a finished sweep is an artifact of the sweep's run, so the tracking server is
    enough. Any other trial is exported from its checkpoint in the sweep's storage.

    Args:
        uri: MLflow's tracking URI.
        experiment: the experiment's name.
        sweep: a sweep's name or run id; None for all sweeps of the experiment.
        out: the folder to write.
        overwrite: replace `out` if it is an export.
        with_lm: a language model to put into the folder.

    Raises:
        UserError: MLflow can't be read, no trial has a WER, `out` is taken, or a model was not found.
    """
    check_out(out, overwrite)
    check_language_model(with_lm, out)
    from hausa_asr.tracking import tracker as tracking

    try:
        tracker = tracking.Tracker.open(uri, experiment)
        trials = tracker.trials(sweep)
        parents = {run.run_id: run for run in tracker.sweeps()}
        best = _best(trials, parents)
        if best is None:
            raise UserError(
                f"None of the {len(trials)} trials has a WER yet.",
                where=f"{tracker.shown_uri}, experiment {experiment}" + (f", sweep {sweep}" if sweep else ""),
                fix="Wait for the first evaluation, or name another sweep with --sweep.",
            )
        parent = parents.get(best.parent)
        with written_aside(out, overwrite) as partial:
            source = _fetch(tracker, best, parent, trials, partial)
            if with_lm is not None:
                add_language_model(with_lm, partial)
    except (OSError, tracking.MlflowException) as fault:
        raise UserError(
            f"MLflow stopped answering: {first_line(fault)}.", where=uri, fix="Check the server, then try again."
        ) from fault
    assert best.wer is not None
    seeds = _seeds(parent)
    means = parent.metrics if parent is not None and seeds else {}
    test = means if seeds else best.metrics
    members, own = _soup(parent, source)
    return Exported(
        out=out.resolve(),
        sweep=best.sweep,
        trial=best.trial,
        wer=own.get("wer", means.get("best_wer", best.wer)),
        cer=own.get("cer", means.get("best_cer", best.cer)),
        test_wer=own.get("test_wer") if members else test.get("test_wer"),
        test_cer=own.get("test_cer") if members else test.get("test_cer"),
        source=source,
        run_id=best.run_id,
        chosen="finalists" if seeds else "lowest dev WER",
        seeds=seeds,
        soup=members,
        verdict=_verdict(best, parent),
    )


def _seeds(parent: SweepRun | None) -> int:
    """On how many fresh seeds a sweep's winner was trained; 0 where no finalists ran."""
    count = parent.tags.get("winner_seeds", "0") if parent is not None else "0"
    return int(count) if count.isdigit() else 0


def _soup(parent: SweepRun | None, source: str) -> tuple[tuple[str, ...], dict[str, float]]:
    """The members and the error rates of an average that a sweep exported; () and {} for a model of one trial."""
    if parent is None or source != "artifact" or not parent.tags.get("soup"):
        return (), {}
    own = {name.removeprefix("soup_"): value for name, value in parent.metrics.items() if name.startswith("soup_")}
    return tuple(parent.tags["soup"].split(", ")), own


def _verdict(best: TrialRun, parent: SweepRun | None) -> str:
    """What a sweep says of its winner; "" of any other run."""
    if parent is None or parent.tags.get("winner_run", parent.tags.get("winner")) != best.trial:
        return ""
    return parent.tags.get("verdict", "")


def _best(trials: list[TrialRun], parents: Mapping[str, SweepRun]) -> TrialRun | None:
    """Of each sweep the run that its finalists named, or the lowest dev WER; of these the lowest dev WER.

    Where finalists named a winner, its mean over seeds counts, and the other trials of that sweep do not: the lowest of
    many is a lucky one. CER, then loss break ties, as in the sweep itself.
    """

    def order(trial: TrialRun) -> tuple[float, ...]:
        parent = parents.get(trial.parent)
        mean = parent.metrics.get("best_wer") if parent is not None and _seeds(parent) else None
        values = (mean if mean is not None else trial.wer, trial.cer, trial.loss)
        return tuple(math.inf if value is None else value for value in values)

    def named(trial: TrialRun) -> bool:
        parent = parents.get(trial.parent)
        if parent is None or not _seeds(parent):
            return "finalist_of" not in trial.tags
        return trial.trial == parent.tags.get("winner_run")

    return min((trial for trial in trials if trial.wer is not None and named(trial)), key=order, default=None)


def _fetch(
    tracker: Tracker, best: TrialRun, parent: SweepRun | None, trials: list[TrialRun], partial: Path
) -> Literal["artifact", "checkpoint"]:
    """Fill `partial` with the export of a trial, from MLflow or from its checkpoint.

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
            return "artifact"
        missing.append(f"the artifact {ARTIFACT} of run {parent.run_id} ({trouble})")
    stated = best.tags.get("checkpoint_uri")
    if not stated:
        missing.append(f"the tag checkpoint_uri of run {best.run_id}, which names the trial's checkpoint")
    elif (folder := _local_path(stated)) is None:
        missing.append(f"a checkpoint on this machine (checkpoint_uri is {stated})")
    elif not (folder / CHECKPOINT).is_file():
        missing.append(f"the folder {folder}, which checkpoint_uri names")
    else:
        write_model(folder, partial, _card_of(tracker, best, parent, trials, folder))
        return "checkpoint"
    raise UserError(
        f"The model of trial {best.trial} (dev WER {best.wer:.4f}) was not found. Missing:\n"
        + "\n".join(f"  - {one}" for one in missing),
        where=f"{tracker.shown_uri}, sweep {best.sweep}, run {best.run_id}",
        fix=f"Run this where the sweep's storage is, or end the sweep (python sweeps/run.py --resume {best.sweep}), "
        "which puts its winner into MLflow.",
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
    """The folder that a `file://` URI or a plain path names; None for any other URI."""
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
        headline=_verdict(trial, parent),
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

"""A sweep as an Optuna study, in a file for `optuna-dashboard`, or in memory for Optuna's own charts.

In: a sweep's ledger and settings. Out: every trial of the search: its settings, dev WER, curve, state and what else is
known of it. Nothing reads it back: the ledger is what lasts. Called by `run --export-study` and by the report.
"""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL

from hausa_asr.errors import UserError, first_line
from hausa_asr.settings.sweep import SweepConfig
from sweeps.prediction.columns import is_number
from sweeps.record.state import State
from sweeps.record.trial import TrialRecord
from sweeps.sampling.encode import Encoder
from sweeps.sampling.space import parameters

_STATES = {
    "finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "paused": TrialState.PRUNED,
    "failed": TrialState.FAIL, "running": TrialState.RUNNING, "proposed": TrialState.WAITING,
}  # fmt: skip


def export_study(state: State, config: SweepConfig, file: Path) -> int:
    """Write a sweep's search as a study of the sweep's name.

    Args:
        state: what its ledger adds up to.
        config: its settings.
        file: an SQLite file, which may hold studies of other sweeps.

    Returns:
        How many trials it has.

    Raises:
        UserError: the file can't be written, or has a study of this name.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials = _frozen_trials(state, config)
    made = False
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.RDBStorage(url_of(file))
        study = optuna.create_study(study_name=state.name, storage=storage, direction="minimize")
        made = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is marked experimental
            study.set_metric_names(["dev WER"])
        study.set_user_attr("sweep", state.name)
        study.set_user_attr("base", ", ".join(config.bases))
        study.add_trials(trials)
    except optuna.exceptions.DuplicatedStudyError:
        raise UserError(
            f"The file has a study {state.name} already.", where=file, fix="Give another file, or remove this one."
        ) from None
    except Exception as error:  # of the database, in many kinds
        if made:
            with suppress(Exception):
                optuna.delete_study(study_name=state.name, storage=url_of(file))
        raise UserError(
            f"The study can't be written: {first_line(error)}.", where=file, fix="Give a file that can be written."
        ) from error
    return len(trials)


def study_of_finished(state: State, config: SweepConfig) -> optuna.Study:
    """The finished trials as a study in memory in which all have all searched settings, for charts.

    A setting that a trial leaves out has the recipe's default, and one outside the space, such as the baseline's, is
    kept as it is. So the ranges are those of the values that there are, and a setting with several ranges is one.

    Args:
        state: what the ledger adds up to.
        config: the sweep's settings.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    defaults = Encoder(config).defaults
    done = [trial for trial in state.searched if trial.state == "finished" and _finite(trial)]
    rows: list[dict[str, Any]] = [
        {name: trial.settings.get(name, defaults.get(name)) for name in config.space} for trial in done
    ]
    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    for name, ranges in config.space.items():
        values = [row[name] for row in rows]
        if len(set(map(str, values))) < 2:
            continue
        if all(is_number(value) for value in values):
            low, high = float(min(values)), float(max(values))
            log = low > 0 and any(one.log for one in ranges)
            distributions[name] = optuna.distributions.FloatDistribution(low, high, log=log)
        else:
            choices = list(dict.fromkeys(str(value) for value in values))
            distributions[name] = optuna.distributions.CategoricalDistribution(choices)
    study = optuna.create_study(direction="minimize")
    study.add_trials(
        optuna.trial.create_trial(
            params={
                name: float(row[name]) if isinstance(one, optuna.distributions.FloatDistribution) else str(row[name])
                for name, one in distributions.items()
            },
            distributions=distributions,
            value=trial.best["wer"],  # type: ignore[index]
        )
        for trial, row in zip(done, rows, strict=True)
    )
    return study


def _finite(trial: TrialRecord) -> bool:
    return trial.best is not None and math.isfinite(trial.best["wer"])


def url_of(file: Path) -> str:
    """The address of an SQLite file for Optuna, whatever characters are in its name."""
    return URL.create("sqlite", database=str(file.absolute())).render_as_string()


def _frozen_trials(state: State, config: SweepConfig) -> list[FrozenTrial]:
    defaults, now_s = Encoder(config).defaults, state.clock or 0.0
    return [_frozen(trial, number, config, defaults, now_s) for number, trial in enumerate(state.searched)]


def _frozen(trial: TrialRecord, number: int, config: SweepConfig, defaults: dict, now_s: float) -> FrozenTrial:
    values, distributions = parameters(config.space, trial.settings, defaults)
    curve = {report.step: report.metrics["wer"] for report in trial.reports}
    became = _STATES[trial.state]
    ended_s = trial.ended_s or (trial.reports[-1].time if trial.reports else now_s)
    over = became.is_finished()
    known = {
        "trial": trial.id, "source": trial.source, "reason": trial.reason, "seen_s": trial.seen_s,
        "spent_s": round(trial.spent_s, 1), "mlflow_run_id": trial.run_id, "settings": trial.settings,
        **{name: figure for name, figure in (trial.best or {}).items() if math.isfinite(figure)},
    }  # fmt: skip
    wer = trial.best["wer"] if trial.best and math.isfinite(trial.best["wer"]) else None
    if became is TrialState.COMPLETE and wer is None:
        became = TrialState.FAIL
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=became,
        value=wer if became in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        datetime_start=_moment(ended_s - trial.spent_s) if became is not TrialState.WAITING else None,
        datetime_complete=_moment(ended_s) if over else None,
        params=values,
        distributions=distributions,
        user_attrs=known,
        system_attrs={},
        intermediate_values={step: value for step, value in curve.items() if math.isfinite(value)},
    )


def _moment(seconds: float) -> datetime:
    """A time in UTC as Optuna keeps it, without its zone."""
    return datetime.fromtimestamp(max(0.0, seconds), UTC).replace(tzinfo=None)

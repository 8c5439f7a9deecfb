"""The finalists: the best settings and the baseline, trained again on fresh seeds.

The lowest dev WER of a search is the luckiest of many draws on one seed. So the best `k` settings and the baseline are
trained again at full length on seeds that the search has not seen, and compared by the mean dev WER over their seeds.
The best of them may be trained again on parts of train, to see what more data would give.
In: the ledger's state and the settings. Out: which runs are due. Called by the agenda and by the sweep's end.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from hausa_asr.errors import UserError
from hausa_asr.settings.sweep import SweepConfig
from sweeps.record.state import State
from sweeps.record.trial import TrialRecord

GROWTH_SHARES = (0.25, 0.5)
"""The shares of train that the best setting is trained on again, for `finalists.data_growth`."""


def finalist_runs(config: SweepConfig, trials: int | None = None) -> int:
    """Count the finalists' runs that follow a search of `trials` trials, by default those of the settings.

    The best `k` and the baseline, on each seed, and the best on parts of train; with one trial there is nothing to
    compare.
    """
    trials = config.search.trials if trials is None else trials
    k = min(config.finalists.k, trials - 1)
    again = len(GROWTH_SHARES) if config.finalists.data_growth else 0
    return (k + 1 + again) * config.finalists.seeds if k > 0 else 0


def last_models(config: SweepConfig, trials: int | None = None) -> int:
    """Count the models that are scored at a sweep's end: the finalists, else the best trial and the baseline.

    Args:
        config, trials: as in `finalist_runs`.
    """
    return finalist_runs(config, trials) or min(2, config.search.trials if trials is None else trials)


@dataclass(frozen=True)
class FinalistRun:
    """One run on a fresh seed: its id, the trial that it repeats, its settings, and if it is on a part of train."""

    id: str
    of: str
    settings: dict[str, Any]
    on_part: bool = False


def chosen(state: State, config: SweepConfig) -> list[TrialRecord]:
    """Choose the trials to run again: the best `k` by dev WER, then the baseline; none if `k` is 0.

    With one trial only there is nothing to compare, so nothing is run again.
    """
    ranking = state.ranking()
    if not config.finalists.k or len(ranking) < 2:
        return []
    baseline = state.baseline()
    best = [trial for trial in ranking if trial is not baseline][: config.finalists.k]
    return best + ([baseline] if baseline is not None and baseline in ranking else [])


def planned(state: State, config: SweepConfig) -> list[FinalistRun]:
    """Every run of the finalists, first seeds first."""
    runs = []
    for number in range(1, config.finalists.seeds + 1):
        for trial in chosen(state, config):
            settings = {**trial.settings, "seed": config.finetune.seed + number}
            if config.finalists.length_s:
                settings["length_s"] = config.finalists.length_s
            runs.append(FinalistRun(f"{trial.id}-s{number}", trial.id, settings))
    return runs


def missing(state: State, config: SweepConfig) -> list[FinalistRun]:
    """The runs that were not started yet: the planned ones, then those on parts of train."""
    return [run for run in (*planned(state, config), *growth(state, config)) if run.id not in state.trials]


def complete(state: State, config: SweepConfig) -> list[TrialRecord]:
    """The planned runs that have come to their end."""
    runs = [state.trials.get(run.id) for run in planned(state, config)]
    return [trial for trial in runs if trial is not None and trial.state == "finished" and trial.best]


def growth(state: State, config: SweepConfig) -> list[FinalistRun]:
    """The runs of the best setting on parts of train, each beside a finalist's run; none before those have ended."""
    runs = planned(state, config) if config.finalists.data_growth else []
    if not runs or any(run.id not in state.trials or state.trials[run.id].is_open for run in runs):
        return []
    by_setting: dict[str, list[float]] = {}
    for trial in complete(state, config):
        by_setting.setdefault(trial.of, []).append(trial.best["wer"])  # type: ignore[index]
    if not by_setting:
        return []
    best = min(by_setting, key=lambda name: fmean(by_setting[name]))
    return [
        FinalistRun(
            f"{run.id}-d{100 * share:.0f}",
            best,
            {**run.settings, "train_share": share * config.recipe(run.settings).train_share},
            on_part=True,
        )
        for run in runs
        if run.of == best
        for share in GROWTH_SHARES
    ]


def refuse_mixed_lengths(state: State, config: SweepConfig) -> None:
    """Refuse settings that give the finalists' runs to come another length than those have that are there.

    Raises:
        UserError: `finalists.length_s` has changed since the first of them began.
    """
    for run in state.finalists:
        began_s = config.recipe(run.settings).length_s
        now_s = config.finalists.length_s or config.recipe(state.trials[run.of].settings).length_s
        if began_s != now_s:
            raise UserError(
                f"The finalists of this sweep have begun with {began_s:,.0f} s of audio each, so a "
                f"finalists.length_s of {now_s:,.0f} would compare runs of two lengths.",
                where=f"--resume {state.name}, {run.id}",
                fix=f"Resume it with finalists.length_s={began_s:g}, or start a new sweep.",
            )

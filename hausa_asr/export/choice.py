"""Choose the best of the trials that MLflow has: those of one sweep, or of several on the same dataset.

In: runs as MLflow has them. Out: the run whose model counts, and its error rates. Called by `best_model`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from statistics import fmean
from typing import TYPE_CHECKING

from hausa_asr.errors import UserError

if TYPE_CHECKING:
    from hausa_asr.tracking.tracker import SweepRun, TrialRun


@dataclass(frozen=True)
class Choice:
    """A run whose model may be exported.

    Attributes:
        run: the run.
        wer, cer, test_wer, test_cer: its error rates; of a finalist's setting the means over its seeds.
        seeds: on how many fresh seeds its setting was trained; 0 without finalists.
        is_winner: finalists named another setting otherwise, which goes before it.
    """

    run: TrialRun
    wer: float
    cer: float | None
    test_wer: float | None
    test_cer: float | None
    seeds: int
    is_winner: bool = True

    @property
    def _order(self) -> tuple[float, ...]:
        values = (self.wer, self.cer, self.run.loss)
        return (not self.is_winner, *(math.inf if value is None else value for value in values))


def choose(
    trials: Sequence[TrialRun],
    parents: Mapping[str, SweepRun],
    where: str,
    *,
    one_sweep: bool,
    dataset: str | None = None,
    rank: int = 1,
    without: Collection[str] = (),
) -> Choice:
    """Choose the best run.

    The winner of a sweep is what its finalists named, or the lowest dev WER where none ran. Between sweeps their
    winners' dev WER counts, and CER, then loss break ties, as in the sweep itself. WERs on different dev splits say
    nothing about each other, so sweeps on several datasets are not compared.

    Args:
        trials: of one sweep, or of all.
        parents: the sweeps' own runs, by run id.
        where: the place, for messages.
        one_sweep: they are of one sweep.
        dataset, rank: as in `best_model`.
        without: base checkpoints that are out of the question. Where the finalists have none but these, the lowest dev
            WER of the search counts.

    Raises:
        UserError: there is none, or they can't be compared.
    """
    if rank > 1 and not one_sweep:
        raise UserError("--rank is a place within one sweep.", where=where, fix="Name the sweep with --sweep.")
    if not one_sweep:
        trials = _of_one_dataset(trials, dataset, where)
    left = [trial for trial in trials if trial.tags.get("base", "") not in without]
    if one_sweep or not without:
        every = _ranked(left, parents, rank, without)
    else:  # each sweep's best first, since its winner need not be among them
        ids = dict.fromkeys(trial.parent for trial in left)
        of_each = [_ranked([trial for trial in left if trial.parent == one], parents, 1, without) for one in ids]
        every = sorted((some[0] for some in of_each if some), key=lambda one: (one.wer, one.run.trial))
    if not every:
        raise UserError(
            f"None of the {len(trials)} trials has a WER yet.",
            where=where,
            fix="Wait for the first evaluation, or name another sweep with --sweep.",
        )
    if rank > len(every):
        raise UserError(
            f"The sweep has no model of rank {rank}: it has {len(every)} to choose from.", where=where,
            fix="Give a lower --rank.",
        )  # fmt: skip
    return every[rank - 1]


def _ranked(
    trials: Sequence[TrialRun], parents: Mapping[str, SweepRun], rank: int, without: Collection[str]
) -> list[Choice]:
    """What there is to choose from, the best first; the trials of the search where all finalists are left out."""
    choices = list(_choices(trials, parents, all_finalists=rank > 1 or bool(without)))
    if without and not choices:
        choices = [_by_itself(one) for one in trials if one.wer is not None and "finalist_of" not in one.tags]
    return sorted(choices, key=lambda one: one._order)


def _of_one_dataset(trials: Sequence[TrialRun], dataset: str | None, where: str) -> list[TrialRun]:
    """The trials of the dataset that is named, or of the only one.

    Raises:
        UserError: it is not there, or there are several and none is named.
    """
    known: dict[str, list[TrialRun]] = {}
    for trial in trials:
        if trial.wer is not None:
            known.setdefault(trial.tags.get("fingerprint") or trial.tags.get("prepared", ""), []).append(trial)
    if dataset is not None:
        fits = {key: some for key, some in known.items() if dataset == _name(some) or (key and key.startswith(dataset))}
        if len(fits) == 1:
            return next(iter(fits.values()))
        what = "is not there" if not fits else "is the beginning of several"
        raise UserError(f"The dataset {dataset} {what}.", where=where, fix=f"Name one of: {_listed(known)}.")
    if len(known) > 1:
        raise UserError(
            "The sweeps are on different datasets, so their WERs can't be compared.",
            where=where,
            fix=f"Name a sweep with --sweep, or a dataset with --dataset: {_listed(known)}.",
        )
    return [trial for some in known.values() for trial in some]


def _name(trials: Sequence[TrialRun]) -> str:
    """The name of the prepared dataset's folder."""
    return PurePath(trials[-1].tags.get("prepared", "")).name or "unknown"


def _listed(known: Mapping[str, Sequence[TrialRun]]) -> str:
    parts = []
    for key, trials in known.items():
        sweeps = list(dict.fromkeys(trial.sweep for trial in trials))
        more = f" and {len(sweeps) - 3} more" if len(sweeps) > 3 else ""
        parts.append(f"{_name(trials)} ({key[:8] or 'no fingerprint'}; sweeps {', '.join(sweeps[-3:])}{more})")
    return "; ".join(parts)


def _choices(trials: Sequence[TrialRun], parents: Mapping[str, SweepRun], *, all_finalists: bool) -> Iterator[Choice]:
    """What there is to choose from: of a sweep with finalists only them, since the lowest of many is a lucky one."""
    for trial in trials:
        parent = parents.get(trial.parent)
        if trial.wer is None or _is_lost(trial):
            continue
        seeds = _seeds(parent)
        if not seeds:
            if "finalist_of" not in trial.tags:
                yield _by_itself(trial)
        elif parent is not None and trial.trial == parent.tags.get("winner_run"):
            means = parent.metrics
            wer, cer = means.get("best_wer", trial.wer), means.get("best_cer", trial.cer)
            yield Choice(trial, wer, cer, means.get("test_wer"), means.get("test_cer"), seeds)
        elif all_finalists and _is_next(trial, trials, parent):
            yield _mean(trial, trials)


def _is_lost(trial: TrialRun) -> bool:
    """Whether it failed before any checkpoint of it was on disk."""
    return trial.state == "failed" and "checkpoint_uri" not in trial.tags


def _by_itself(trial: TrialRun) -> Choice:
    """A trial of the search, by its one seed."""
    assert trial.wer is not None
    return Choice(trial, trial.wer, trial.cer, trial.metrics.get("test_wer"), trial.metrics.get("test_cer"), 0)


def _seeds(parent: SweepRun | None) -> int:
    """On how many fresh seeds a sweep's winner was trained; 0 where no finalists ran."""
    count = parent.tags.get("winner_seeds", "0") if parent is not None else "0"
    return int(count) if count.isdigit() else 0


def _is_next(trial: TrialRun, trials: Sequence[TrialRun], parent: SweepRun | None) -> bool:
    """Whether it is the best run of a finalist's setting other than the winner's."""
    of = trial.tags.get("finalist_of")
    if of is None or parent is None or of == parent.tags.get("winner"):
        return False
    return trial is min(_runs(of, trials), key=lambda one: (one.wer, one.trial), default=None)


def _mean(trial: TrialRun, trials: Sequence[TrialRun]) -> Choice:
    runs = _runs(trial.tags["finalist_of"], trials)

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return fmean(known) if len(known) == len(values) else None

    test_wer, test_cer = (mean([run.metrics.get(name) for run in runs]) for name in ("test_wer", "test_cer"))
    wer = mean([run.metrics.get("dev_wer", run.wer) for run in runs])  # on all of dev, where it was scored there
    assert wer is not None
    return Choice(trial, wer, mean([run.cer for run in runs]), test_wer, test_cer, len(runs), is_winner=False)


def _runs(setting: str, trials: Sequence[TrialRun]) -> list[TrialRun]:
    """The ended runs of a finalist's setting; not those on a part of train."""
    whole = next((_share(one) for one in trials if one.trial == setting), 1.0)
    mine = (one for one in trials if one.tags.get("finalist_of") == setting and _share(one) == whole)
    return [one for one in mine if one.state == "finished" and one.wer is not None]


def _share(trial: TrialRun) -> float:
    """The share of train that a run learned from."""
    try:
        return float(trial.params.get("train_share", 1.0))
    except ValueError:
        return 1.0

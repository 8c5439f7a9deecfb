"""Average the weights of a sweep's best runs, and say whether the average may replace the winner's own model.

Runs that share base and head can be averaged: those of the search share its seed, and the finalists share theirs by
number. In: a ledger whose trials have ended, the winner's run, and functions that average and score checkpoints. Out: a
`Soup`, also in the ledger. It is accepted only if it is clearly better on dev, and only then scored on test. Called by
`result`, if `finalists.soup` is on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hausa_asr.metrics import Gain, paired_gain
from hausa_asr.recipe import CHECKPOINT
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.storage import objects
from hausa_asr.storage.address import join, portable
from hausa_asr.storage.fetched import at_hand, discard, share
from sweeps.record.ledger import Ledger
from sweeps.record.names import SOUP_FOLDER
from sweeps.record.trial import TrialRecord
from sweeps.verdict.with_lm import Listener
from sweeps.wording import lower, many

MOST_TRIED = 16
"""Runs of one seed that are tried, the best first: each try is an evaluation of dev, and the worst rarely help."""

Scored = Mapping[str, Any]
"""A model on a split: `errors`, `words` and `speakers` by utterance, and `rates`."""


class Batch(NamedTuple):
    """Checkpoints to average, and the folder to write the average to."""

    checkpoints: list[Path]
    out: Path


class Averaged(NamedTuple):
    """What came of a batch: which of its checkpoints are in the average, the best first, and its scores on dev.

    With one member only no average was better than it, and nothing was written.
    """

    members: list[int]
    dev: Scored


Averager = Callable[[list[Batch]], list[Averaged]]


@dataclass(frozen=True)
class Soup:
    """An average of runs, against the winner's own model.

    Attributes:
        candidates: runs and steps that were tried, as `t003/120`.
        members: the runs in the average, the best first; none if no average was better than its best member.
        single: the run whose model is exported otherwise.
        dev: error rates of the average; {} without members.
        gain: dev WER of the average minus that of `single`; None without members.
        test: error rates of the average; None unless it is accepted and there is a test split.
        on_test: test WER of the average minus that of `single`.
    """

    candidates: list[str]
    members: list[str]
    single: str
    dev: dict[str, float]
    gain: Gain | None
    test: dict[str, float] | None = None
    on_test: Gain | None = None

    @property
    def accepted(self) -> bool:
        """Whether it is what the sweep exports: the whole interval of its gain is below 0."""
        return self.gain is not None and self.gain.is_clear

    def sentence(self) -> str:
        """What came of it, in a line."""
        if self.gain is None:
            return f"soup: no average of the {many(len(self.candidates), 'run')} tried is better on dev than its best"
        who = f"{', '.join(self.members[:-1])} and {self.members[-1]}"
        on_dev = (
            f"dev WER {self.dev['wer']:.3f}, {lower(self.gain.wer, self.gain.low, self.gain.high)} than {self.single}"
        )
        if not self.accepted:
            return f"soup of {who}: {on_dev}, which is not clear, so {self.single} is exported"
        text = f"exported is a soup, the average of {who}: {on_dev}"
        if self.test and self.on_test:
            text += f"; test WER {self.test['wer']:.3f}, {lower(self.on_test.wer, self.on_test.low, self.on_test.high)}"
        return text

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the ledger and `result.json`."""
        return asdict(self) | {"accepted": self.accepted, "sentence": self.sentence()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Soup:
        """The soup that `to_json` wrote."""
        values = {name: fields[name] for name in cls.__dataclass_fields__}
        for name in ("gain", "on_test"):
            values[name] = Gain(**fields[name]) if fields[name] else None
        return cls(**values)


class Models(NamedTuple):
    """What is done with checkpoints: average them, score them on splits (`result.Scorer`), and transcribe with them and
    a language model (`with_lm.Listener`)."""

    average: Averager
    score: Callable[[list[Path], list[str]], list[dict[str, Any]]]
    listen: Listener | None = None

    def scored(self, checkpoint: Path, split: str) -> Scored:
        """The scores of one checkpoint on one split."""
        scores: Scored = self.score([checkpoint], [split])[0][split]
        return scores


def folder_of(ledger: Ledger) -> Path:
    """Where an accepted average is, as a checkpoint."""
    return ledger.folder / SOUP_FOLDER / "average"


def make(
    config: SweepConfig, ledger: Ledger, winner: TrialRecord, models: Models, tested: Scored | None
) -> Soup | None:
    """Average the runs of each seed, take the best average, and accept it if it is clearly better than the winner.

    After a resume that changed nothing it is what the ledger says, and nothing is scored again.

    Args:
        config: the sweep's settings.
        ledger: its ledger; the soup is written to it.
        winner: the run whose model is exported otherwise.
        models: averages and scores checkpoints.
        tested: the winner's scores on test; None if there is no test split.

    Returns:
        None where no two runs share a seed.
    """
    groups = candidates(config, ledger)
    if not groups:
        return None
    names = [f"{run.id}/{int(run.best['step'])}" for group in groups for run in group if run.best]
    earlier = Soup.from_json(ledger.state.soup) if ledger.state.soup else None
    is_there = objects.entry(join(portable(folder_of(ledger)), CHECKPOINT)) is not None
    if earlier and (earlier.candidates, earlier.single, earlier.accepted) == (names, winner.id, is_there):
        return earlier
    discard(ledger.folder / SOUP_FOLDER)
    soup = _averaged(config, ledger, groups, Soup(names, [], winner.id, {}, None), models)
    if soup.accepted and tested is not None:
        scored = models.scored(folder_of(ledger), "test")
        soup = replace(soup, test=dict(scored["rates"]), on_test=_gain(config, scored, tested))
    ledger.append("souped", **soup.to_json())
    return soup


def candidates(config: SweepConfig, ledger: Ledger) -> list[list[TrialRecord]]:
    """Group the runs that came to their end and can be averaged, each group the best first; only groups of two or more.

    They share the base checkpoint, the seed, which draws the head, the adapters and the data. A run whose checkpoint is
    gone is left out.
    """
    groups: dict[tuple[Any, ...], list[TrialRecord]] = {}
    for run in ledger.state.trials.values():
        if run.state != "finished" or not ledger.has_best(run):
            continue
        if run.best and math.isfinite(run.best["loss"]):
            recipe = config.recipe(run.settings)
            groups.setdefault((recipe.base, recipe.seed, recipe.adapter_dim, recipe.train_share), []).append(run)
    ranked = [sorted(group, key=_order)[:MOST_TRIED] for group in groups.values()]
    return [group for group in ranked if len(group) > 1]


def _averaged(config: SweepConfig, ledger: Ledger, groups: list[list[TrialRecord]], none: Soup, models: Models) -> Soup:
    """Average each group, compare the best average with the winner, and keep its folder if it is accepted.

    Args:
        none: the soup if no average is better than its best member.
    """
    own = _checkpoint(ledger, ledger.state.trials[none.single])
    folder = ledger.folder / SOUP_FOLDER
    folder.mkdir()
    batches = [Batch([_checkpoint(ledger, run) for run in group], folder / f"of-{group[0].id}") for group in groups]
    made = [one for one in zip(groups, batches, models.average(batches), strict=True) if len(one[2].members) > 1]
    soup = none
    if made:
        group, batch, average = min(made, key=lambda one: float(one[2].dev["rates"]["wer"]))
        gain = _gain(config, average.dev, models.scored(own, "dev"))
        soup = replace(none, members=[group[n].id for n in average.members], dev=dict(average.dev["rates"]), gain=gain)
        if soup.accepted:
            at_hand(batch.out).rename(folder_of(ledger))
            share(folder_of(ledger))
    for batch in batches:
        discard(batch.out)
    return soup


def _checkpoint(ledger: Ledger, run: TrialRecord) -> Path:
    """The best checkpoint of a run that has one."""
    folder = ledger.best_checkpoint(run)
    assert folder is not None
    return folder


def _order(run: TrialRecord) -> tuple[float, float, float]:
    """The dev WER of a run, then CER and loss, which break ties."""
    assert run.best is not None
    return run.best["wer"], run.best["cer"], run.best["loss"]


def _gain(config: SweepConfig, average: Scored, single: Scored) -> Gain:
    """The average against the single model, on the same resampled splits."""
    errors = np.stack([np.array(one["errors"]) for one in (average, single)])
    return paired_gain(errors, np.array(average["words"]), average["speakers"], seed=config.search.seed)

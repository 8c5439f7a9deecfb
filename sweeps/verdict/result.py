"""The end of a sweep: name the winner, score it on test once, export it and write `result.json`.

In: the ledger of a sweep whose trials have all ended, its prepared dataset, and a function that scores checkpoints.
Out: a `Conclusion`. The winner is the one that the finalists name, or without finalists the trial with the lowest dev
WER. Called by `driver/closing`, which then publishes it (`publish`).
"""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hausa_asr.dataset.prepared import Prepared
from hausa_asr.decoding.weights import model_digest
from hausa_asr.errors import first_line
from hausa_asr.export.model_card import Card, ErrorRates
from hausa_asr.export.write import export_checkpoint
from hausa_asr.files import write_whole
from hausa_asr.recipe import without_base
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.storage.fetched import at_hand
from sweeps.planning.finalists import complete
from sweeps.record.ledger import Ledger
from sweeps.record.names import EXPORT_FOLDER, RESULT_FILE
from sweeps.record.state import State
from sweeps.record.trial import DIVERGED, TrialRecord
from sweeps.verdict import soup as soups
from sweeps.verdict.data_growth import DataGrowth, data_growth
from sweeps.verdict.extras import diagnosed_runs, heard_with_lm, in_words
from sweeps.verdict.outcome import Outcome
from sweeps.verdict.result_file import to_json
from sweeps.verdict.scores import WordErrors
from sweeps.verdict.soup import Averager, Soup
from sweeps.verdict.verdict import Verdict
from sweeps.verdict.with_lm import Listener, WithLanguageModel

log = logging.getLogger("sweeps")

RATES = ("wer", "cer", "wer_folded", "cer_folded")

Scorer = Callable[[list[Path], list[str]], list[dict[str, Any]]]
"""Scores checkpoints on splits. For each checkpoint, in order: by split `errors`, `words` and `speakers` by utterance,
and `rates`, which are those of `RATES`; of dev also `heard`, the transcripts of the part that trials are scored on."""


@dataclass(frozen=True)
class Conclusion:
    """What a sweep found.

    Attributes:
        best, baseline: how the winner and the baseline did.
        verdict: what the finalists showed; None where none ran.
        headline: the winner against the baseline in a sentence, on test if there is such a split; "" where neither
            finalists ran nor test was scored.
        tested: the test error rates of each run that was scored on test, its own and no means.
        soup: what came of averaging runs; None where that was not tried.
        growth: what more data would give; None where that was not tried.
        with_lm: how the scored runs do with a language model; None where that was not tried.
        diagnosed: the folder of each run's diagnosis, by the run's name.
        export: the folder of the winner's model, or of the average that was better; None where it could not be written.
        result: the content of `result.json`.
    """

    best: Outcome | None
    baseline: Outcome | None
    verdict: Verdict | None
    headline: str
    tested: list[tuple[TrialRecord, dict[str, float]]]
    soup: Soup | None
    growth: DataGrowth | None
    diagnosed: dict[str, Path]
    with_lm: WithLanguageModel | None
    export: Path | None
    result: dict[str, Any]


def conclude(
    config: SweepConfig,
    ledger: Ledger,
    prepared: Prepared,
    score: Scorer,
    average: Averager | None = None,
    chance_missed: float | None = None,
    listen: Listener | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Conclusion:
    """Name the winner, score it, export it and write the result. Done again after a resume, it gives the same.

    Args:
        config: the sweep's settings.
        ledger: its ledger, all trials ended.
        prepared: its prepared dataset.
        score: scores checkpoints.
        average: averages checkpoints, for `finalists.soup`.
        chance_missed: that one of the stopped trials would have ended better than the best of the search.
        listen: transcribes with a language model, for `finalists.language_model`. It comes last.
        say: is given lines for the console.
    """
    state, errors = ledger.state, WordErrors(ledger.folder)
    runs = complete(state, config)
    splits: list[str] = [split for split in ("dev", "test") if split in prepared.splits]
    _score_missing(errors, ledger, runs, splits, score)
    verdict = errors.compare(ledger, runs, config)
    headline = verdict.sentences()[0] if verdict else ""
    on_test = verdict.on_test if verdict else None
    if verdict is None:
        base = comparable_baseline(state)
        both = {trial.id: trial for trial in (state.best(), base) if trial is not None and trial.best}
        runs = list(both.values())  # one, where nothing beat the baseline
        _score_missing(errors, ledger, runs, splits, score)
        best, baseline = (_by_search(errors, trial) for trial in (state.best(), base))
        if best:
            on_test = errors.on_test(runs, best.trial.id, baseline.trial.id if baseline else None, config)
            headline = on_test.sentence("lowest dev WER") if on_test else ""
    else:
        best, baseline = (_by_finalists(errors, ledger, runs, verdict, n) for n in (verdict.winner, verdict.baseline))
        test = {outcome.trial.id: outcome.test for outcome in (best, baseline) if outcome}
        ledger.append("decided", **verdict.to_json(), test=test)
    tested = [(run, rates) for run in runs if (rates := errors.rates(run.id, "test"))]
    soup = None
    if config.finalists.soup and average is not None and best is not None:
        try:
            soup = soups.make(config, ledger, best.run, soups.Models(average, score), errors.scored(best.run, "test"))
        except Exception as error:  # an average is an extra, and must not cost a sweep its end
            log.exception("no runs were averaged: %s", error)
    diagnosed = diagnosed_runs(config, ledger, errors, runs, baseline, prepared)
    export = None
    if best:
        try:
            export = _export(config, ledger, errors, best, baseline, prepared, headline, soup)
        except Exception as error:  # of the disk, or of something strange in its folder; the result counts more
            log.exception("the winner's model was not exported: %s", error)
            say(
                f"The winner's model was not exported to {ledger.folder / EXPORT_FOLDER}: {first_line(error)} "
                "Mend that and go on with --resume, or export it elsewhere with `hausa-asr best-model`."
            )
    growth = data_growth(state, config, prepared.seconds["train"])
    result = to_json(config, ledger, errors, best, baseline, verdict, export)
    result |= {
        "on_test": on_test.to_json() if on_test else None,
        "headline": headline,
        "chance_missed": chance_missed,
        "data_growth": growth.to_json() if growth else None,
        "soup": soup.to_json() if soup else None,
        "language_model": None,
    }
    with_lm = None
    if listen is not None and config.finalists.language_model is not None and best is not None and export is not None:
        digest = f"that of {best.run.id}" if soup is not None and soup.accepted else model_digest(export)
        compared = baseline.trial.id if baseline else None
        with_lm = heard_with_lm(config, ledger, prepared, runs, best.run, compared, listen, digest, say)
        result["language_model"] = with_lm.to_json() if with_lm else None
    # Last, since it says that the sweep is over; an interrupt before it has a resume go on where scores are lacking.
    text = json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False)
    write_whole(ledger.folder / RESULT_FILE, text, durable=True)
    return Conclusion(best, baseline, verdict, headline, tested, soup, growth, diagnosed, with_lm, export, result)


def _score_missing(
    errors: WordErrors, ledger: Ledger, trials: list[TrialRecord], splits: list[str], score: Scorer
) -> None:
    """Score the best checkpoints of trials that were not scored before."""
    lacking = errors.lacking(trials)
    if not lacking or not splits:
        return
    checkpoints = [ledger.best_checkpoint(trial) for trial in lacking]
    for trial, scores in zip(lacking, score([path for path in checkpoints if path], splits), strict=True):
        errors.put(trial, scores)
    errors.write()


def comparable_baseline(state: State) -> TrialRecord | None:
    """The baseline, if it has come to its end or diverged: one that was stopped early says nothing of the recipe."""
    baseline = state.baseline()
    if baseline is None or not (baseline.state == "finished" or baseline.reason == DIVERGED):
        return None
    return baseline


def _by_search(errors: WordErrors, trial: TrialRecord | None) -> Outcome | None:
    """How a trial did by its one seed; None before its first report."""
    if trial is None or not trial.best:
        return None
    return Outcome(trial, trial, _dev(errors, trial), errors.rates(trial.id, "test"))


def _by_finalists(
    errors: WordErrors, ledger: Ledger, runs: list[TrialRecord], verdict: Verdict, name: str | None
) -> Outcome | None:
    """How a setting did by its runs on fresh seeds; None if it has none."""
    mine = [run for run in runs if run.of == name]
    if not mine or name is None:
        return None
    standing = verdict.of(name)
    best = min(mine, key=lambda run: standing.seeds[int(run.settings["seed"])])

    def mean(split: str) -> dict[str, float] | None:
        rates = [one for run in mine if (one := errors.rates(run.id, split))]
        return {key: statistics.mean(one[key] for one in rates) for key in rates[0]} if rates else None

    interval = (standing.low, standing.high)
    return Outcome(
        ledger.state.trials[name], best, mean("dev") or _dev(errors, best), mean("test"), interval, len(mine)
    )


def _dev(errors: WordErrors, trial: TrialRecord) -> dict[str, float]:
    """The error rates of a trial's best checkpoint on dev: on all of it if that was scored, else as it reported."""
    metrics = errors.rates(trial.id, "dev") or trial.at_best.metrics
    return {name: metrics[name] for name in RATES if name in metrics}


def _export(
    config: SweepConfig,
    ledger: Ledger,
    errors: WordErrors,
    best: Outcome,
    baseline: Outcome | None,
    prepared: Prepared,
    headline: str,
    soup: Soup | None,
) -> Path:
    """Export the winner's model, or the average that is accepted.

    Its card has the rates of that very model, and the headline for the winner's setting.
    """
    checkpoint = ledger.best_checkpoint(best.run)
    assert checkpoint is not None

    def test(outcome: Outcome) -> ErrorRates | None:
        rates = errors.rates(outcome.run.id, "test")
        return ErrorRates(**rates) if rates else None

    card = Card(
        sweep=ledger.state.name,
        trial=best.run.id,
        base=config.recipe(best.run.settings).base,
        recipe=without_base(config.recipe(best.run.settings)),
        data=prepared.report,
        dev=ErrorRates(**_dev(errors, best.run)),
        test=test(best),
        baseline_trial=baseline.run.id if baseline else None,
        baseline_dev=ErrorRates(**_dev(errors, baseline.run)) if baseline else None,
        baseline_test=test(baseline) if baseline else None,
        headline=headline,
        base_license=config.model.license if config.recipe(best.run.settings).base == config.model.base else "",
        data_license=config.data.license,
        **in_words(config, ledger, best.run),
    )
    if soup is not None and soup.accepted:
        checkpoint = soups.folder_of(ledger)
        first = ledger.state.trials[soup.members[0]]
        card = replace(
            card,
            members=tuple(soup.members),
            mistakes=(),
            learning=(),
            recipe=without_base(config.recipe(first.settings)),
            dev=ErrorRates(**soup.dev),
            test=ErrorRates(**soup.test) if soup.test else None,
        )
    return export_checkpoint(at_hand(checkpoint), ledger.folder / EXPORT_FOLDER, card, overwrite=True)

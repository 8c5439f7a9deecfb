"""What a sweep's end adds if it can be had: diagnoses, words for the card, scores with a language model.

In: scored runs. Out: what is known of them, or nothing and a line in the log: none of it may cost a sweep its end.
Called by `result`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from hausa_asr.dataset.prepared import Prepared
from hausa_asr.diagnosis.heard import joined_corpora
from hausa_asr.diagnosis.page import sentences
from hausa_asr.errors import first_line
from hausa_asr.settings.sweep import SweepConfig
from sweeps.record.ledger import Ledger
from sweeps.record.trial import TrialRecord
from sweeps.verdict.diagnosis import diagnosis_of, write_diagnoses
from sweeps.verdict.learning import learned
from sweeps.verdict.outcome import Outcome
from sweeps.verdict.scores import WordErrors
from sweeps.verdict.with_lm import Listener, WithLanguageModel, with_language_model

log = logging.getLogger("sweeps")


def diagnosed_runs(
    config: SweepConfig,
    ledger: Ledger,
    errors: WordErrors,
    runs: list[TrialRecord],
    baseline: Outcome | None,
    prepared: Prepared,
) -> dict[str, Path]:
    """Write what each scored run gets wrong; {} if that can't be."""
    try:
        base, part_s = baseline.run.id if baseline else None, config.recipe().dev_part_s
        joined = joined_corpora(prepared.report)
        return write_diagnoses(ledger.folder, prepared.splits["dev"], part_s, errors, runs, base, joined)
    except Exception as error:
        log.exception("no run was diagnosed: %s", error)
        return {}


def in_words(config: SweepConfig, ledger: Ledger, run: TrialRecord) -> dict[str, tuple[str, ...]]:
    """What a run gets wrong and how it learned, for the card; {} if that can't be said."""
    try:
        found = diagnosis_of(ledger.folder, run.id)
        return {"mistakes": tuple(sentences(found)) if found else (), "learning": tuple(learned(config, run))}
    except Exception as error:
        log.exception("the card lacks what the model gets wrong: %s", error)
        return {}


def heard_with_lm(
    config: SweepConfig,
    ledger: Ledger,
    prepared: Prepared,
    runs: list[TrialRecord],
    winner: TrialRecord,
    baseline: str | None,
    listen: Listener,
    digest: str,
    say: Callable[[str], None],
) -> WithLanguageModel | None:
    """Score the runs with a language model; None if that can't be. Arguments as in `with_language_model`."""
    try:
        return with_language_model(config, ledger, prepared, runs, winner, baseline, listen, digest, say)
    except Exception as error:
        log.exception("no run was scored with a language model: %s", error)
        say(f"no run was scored with a language model: {first_line(error)}")
        return None

"""How a setting did in the end, for the summary, `result.json` and the export. Made by `result`."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.record.trial import TrialRecord


@dataclass(frozen=True)
class Outcome:
    """How one setting did in the end: the trial that found it, the model of it that counts, and its error rates.

    Attributes:
        trial: the trial of the search.
        run: the one whose model counts: the same, or its finalist run with the lowest dev WER.
        dev, test: error rates; means over its seeds if it was a finalist. None if there is no test split.
        interval: of the dev WER over its finalist runs, low and high; None without them.
        seeds: how many finalist runs it has.
    """

    trial: TrialRecord
    run: TrialRecord
    dev: dict[str, float]
    test: dict[str, float] | None
    interval: tuple[float, float] | None = None
    seeds: int = 0

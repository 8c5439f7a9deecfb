"""How finalists do with a language model, which took no part in the search: that selects on greedy WER.

In: the runs that were scored, a language model or the word `train`, and a function that listens with it. Out: the
winner against the baseline on test with it, and figures for each run. The weights are tuned on dev, for each run its
own. Called by `result`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hausa_asr.dataset.prepared import Prepared
from hausa_asr.decoding.beam import usable_words
from hausa_asr.decoding.flashlight import flashlight
from hausa_asr.decoding.weights import LM_FILE, Weights, store_weights
from hausa_asr.files import write_whole
from hausa_asr.language_model.train import train
from hausa_asr.settings.sweep import SweepConfig
from sweeps.record.ledger import Ledger
from sweeps.record.state import TrialRecord
from sweeps.verdict.compare import RunScores
from sweeps.verdict.margin import Margin, margin

OF_TRAIN = "train"
"""The setting that asks for an n-gram of the transcripts of train, made at the sweep's end."""
_ORDER = 4
_SCORES = "language_model.json"

Listener = Callable[[list[Path], Path], list[dict[str, Any]]]
"""Listens to dev and test with checkpoints and a language model. For each checkpoint, in order: `weights` as tuned on
dev, `dev_wer` and `greedy_dev_wer` on the part of dev that they were tuned on, and of `test` `wer`, `cer` and by
utterance `errors`, `words` and `speakers`; no `test` where there is no such split."""


@dataclass(frozen=True)
class WithLanguageModel:
    """What a language model does for the finalists.

    Attributes:
        file: the language model in the sweep's folder, with the weights of the winner beside it.
        margin: the winner against the baseline on test, both with it; None without a test split.
        dev, test: WER with it by run.
    """

    file: Path
    margin: Margin | None
    dev: Mapping[str, float]
    test: Mapping[str, float]

    def sentence(self) -> str:
        """The winner against the baseline with it, or its WER on dev, which the weights were tuned on."""
        if self.margin is not None:
            return self.margin.sentence("with a language model, winner")
        best, wer = min(self.dev.items(), key=lambda one: one[1])
        return f"with a language model, {best}  dev WER {wer:.3f}, on which its weights were tuned"

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "file": str(self.file), "dev_wer": dict(self.dev), "test_wer": dict(self.test),
            "margin": asdict(self.margin) if self.margin else None, "sentence": self.sentence(),
        }  # fmt: skip


def check_language_model(named: str) -> None:
    """Refuse, before a sweep begins, a language model that its end could not use.

    Args:
        named: `finalists.language_model`.

    Raises:
        UserError: it can't be used, or flashlight-text is missing.
    """
    flashlight()
    if named != OF_TRAIN:
        usable_words(Path(named))


def with_language_model(
    config: SweepConfig,
    ledger: Ledger,
    prepared: Prepared,
    runs: Sequence[TrialRecord],
    winner: TrialRecord,
    baseline: str | None,
    listen: Listener,
) -> WithLanguageModel:
    """Score runs with a language model.

    Args:
        config: the sweep's settings; `finalists.language_model` is set.
        ledger: its ledger, in whose folder the language model goes.
        prepared: its prepared dataset.
        runs: whose best checkpoints are scored.
        winner: the one whose model is exported; its weights are kept beside the language model.
        baseline: the baseline's setting; None if there is none to compare with.
        listen: does it.

    Raises:
        UserError: the language model can't be had or used.
    """
    file = ledger.folder / LM_FILE
    named = config.finalists.language_model
    if named == OF_TRAIN:
        train([], file, prepared, n=_ORDER)
    else:
        assert named is not None
        shutil.copyfile(named, file)
    heard = _heard(ledger, list(runs), file, listen)
    own = heard[winner.id]
    store_weights(
        file, Weights(**own["weights"]), dev_wer=own["dev_wer"], greedy_dev_wer=own["greedy_dev_wer"], model=winner.id
    )
    tested = [run for run in runs if "test" in heard[run.id]]
    models = [
        RunScores(
            setting=run.of or run.id,
            trial=run.id,
            seed=int(run.settings.get("seed", 0)),
            errors=np.array(heard[run.id]["test"]["errors"]),
            words=np.array(heard[run.id]["test"]["words"]),
        )
        for run in tested
    ]
    found = None
    if models:
        speakers = heard[tested[0].id]["test"]["speakers"]
        found = margin(models, winner.of or winner.id, baseline, speakers=speakers, seed=config.search.seed)
    return WithLanguageModel(
        file,
        found,
        {run.id: heard[run.id]["dev_wer"] for run in runs},
        {run.id: heard[run.id]["test"]["wer"] for run in tested},
    )


def _heard(ledger: Ledger, runs: list[TrialRecord], lm: Path, listen: Listener) -> dict[str, dict[str, Any]]:
    """What was heard by run; what an earlier end of the sweep heard with the same language model is not heard again."""
    file = ledger.folder / _SCORES
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    size = lm.stat().st_size
    if known.get("size") != size:
        known = {"size": size, "runs": {}}
    steps = {run.id: run.best["step"] for run in runs if run.best}
    lacking = [run for run in runs if known["runs"].get(run.id, {}).get("step") != steps[run.id]]
    checkpoints = [path for run in lacking if (path := ledger.best_checkpoint(run)) is not None]
    if lacking:
        for run, one in zip(lacking, listen(checkpoints, lm), strict=True):
            known["runs"][run.id] = {"step": steps[run.id], **one}
        write_whole(file, json.dumps(known), durable=True)
    return known["runs"]

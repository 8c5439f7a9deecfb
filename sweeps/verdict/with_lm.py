"""How finalists do with a language model, which took no part in the search: that selects on greedy WER.

In: the runs that were scored, a language model or the word `train`, and a function that transcribes with it. Out: the
winner against the baseline on test with it, and figures for each run. The weights are tuned on dev, for each run its
own. Called by `result`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hausa_asr.dataset.prepared import Prepared
from hausa_asr.decoding.beam import usable_words
from hausa_asr.decoding.flashlight import flashlight
from hausa_asr.decoding.weights import LM_FILE, Weights, store_weights, weights_file
from hausa_asr.files import write_whole
from hausa_asr.language_model.train import train
from hausa_asr.settings.sweep import SweepConfig
from sweeps.record.ledger import Ledger
from sweeps.record.trial import TrialRecord
from sweeps.verdict.compare import ONE_SEED, RunScores
from sweeps.verdict.margin import Margin, margin
from sweeps.wording import many

OF_TRAIN = "train"
"""The setting that asks for an n-gram of the transcripts of train, made at the sweep's end."""
_ORDER = 4
_SCORES = "language_model.json"

Listener = Callable[[list[Path], Path], Iterator[tuple[int, dict[str, Any]]]]
"""Transcribes dev and test with checkpoints and a language model. As each checkpoint is done, its number and what came
of it: `weights` as tuned on dev, `dev_wer` and `greedy_dev_wer` on the part of dev that they were tuned on, and of
`test` `wer`, `cer` and by utterance `errors`, `words` and `speakers`; without a test split there is no `test`."""


@dataclass(frozen=True)
class WithLanguageModel:
    """What a language model does for the finalists.

    Attributes:
        file: the language model in the sweep's folder, with the weights of the winner beside it.
        winner: the run whose weights these are.
        margin: the winner against the baseline on test, both with it; None without a test split.
        dev, test: WER with it by run.
    """

    file: Path
    winner: str
    margin: Margin | None
    dev: Mapping[str, float]
    test: Mapping[str, float]

    def sentence(self) -> str:
        """The winner against the baseline with it, or its WER on dev, which the weights were tuned on."""
        if self.margin is None:
            wer = self.dev[self.winner]
            return f"with a language model, {self.winner}  dev WER {wer:.3f}, on which its weights were tuned"
        winner, base, difference = self.margin.winner, self.margin.baseline, self.margin.difference
        text = f"with a language model, {winner.setting}  test WER {winner} over {many(winner.seeds, 'seed')}"
        if base is not None and difference is not None:
            text += f"; baseline {base}: {difference}" + (f"; {ONE_SEED}" if difference.is_clear is None else "")
        return text

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "file": str(self.file), "dev_wer": dict(self.dev), "test_wer": dict(self.test),
            "margin": asdict(self.margin) if self.margin else None, "sentence": self.sentence(),
        }  # fmt: skip


def check_language_model(named: str, folder: Path) -> None:
    """Refuse, before a sweep begins, a language model that its end could not use.

    Args:
        named: `finalists.language_model`.
        folder: the sweep's, which has a copy of it if it was used there before.

    Raises:
        UserError: it can't be used, or flashlight-text is missing.
    """
    flashlight()
    if named == OF_TRAIN:
        return
    kept = folder / LM_FILE
    usable_words(kept if kept.is_file() and not Path(named).is_file() else Path(named))


def _put_in_folder(named: str, file: Path, prepared: Prepared) -> None:
    """Make the language model, or copy it; of one that has gone the copy stays."""
    if named == OF_TRAIN:
        train([], file, prepared, n=_ORDER)
    elif Path(named).is_file() and not (file.is_file() and Path(named).samefile(file)):
        shutil.copyfile(named, file)
        weights_file(file).unlink(missing_ok=True)  # they were tuned for another


def with_language_model(
    config: SweepConfig,
    ledger: Ledger,
    prepared: Prepared,
    runs: Sequence[TrialRecord],
    winner: TrialRecord,
    baseline: str | None,
    listen: Listener,
    digest: str,
    say: Callable[[str], None] = lambda line: None,
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
        digest: of the winner's own weights as they are exported; anything else if another model is exported.
        say: is given a line for each run.

    Raises:
        UserError: the language model can't be had or used.
    """
    file = ledger.folder / LM_FILE
    assert config.finalists.language_model is not None
    _put_in_folder(config.finalists.language_model, file, prepared)
    heard = _heard(ledger, list(runs), file, listen, say)
    own = heard[winner.id]
    about = {"dev_wer": own["dev_wer"], "greedy_dev_wer": own["greedy_dev_wer"], "model": winner.id}
    store_weights(file, Weights(**own["weights"]), **about, model_digest=digest)
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
        winner.id,
        found,
        {run.id: heard[run.id]["dev_wer"] for run in runs},
        {run.id: heard[run.id]["test"]["wer"] for run in tested},
    )


def _heard(
    ledger: Ledger, runs: list[TrialRecord], lm: Path, listen: Listener, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """What was heard by run; what an earlier end of the sweep heard with the same language model is not heard again."""
    file = ledger.folder / _SCORES
    known = _known(file)
    with lm.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if known.get("digest") != digest:
        known = {"digest": digest, "runs": {}}
    steps = {run.id: run.best["step"] for run in runs if run.best}
    lacking = [run for run in runs if known["runs"].get(run.id, {}).get("step") != steps[run.id]]
    checkpoints = [path for run in lacking if (path := ledger.best_checkpoint(run)) is not None]
    for number, one in listen(checkpoints, lm) if lacking else ():
        run = lacking[number]
        known["runs"][run.id] = {"step": steps[run.id], **one}
        write_whole(file, json.dumps(known), durable=True)  # each may have taken minutes
        say(
            f"{run.id}  WER on a part of dev {one['dev_wer']:.3f}, without a language model {one['greedy_dev_wer']:.3f}"
        )
    return known["runs"]


def _known(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}

"""A language model beside the finalists: refused early, heard once for each checkpoint, compared with the baseline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hausa_asr.decoding.ngram import estimate
from hausa_asr.errors import UserError
from hausa_asr.settings.load import load, make_absolute
from hausa_asr.settings.sweep import SweepConfig
from helpers.events import report
from sweeps.record.ledger import Ledger
from sweeps.verdict.with_lm import check_language_model, with_language_model

WORDS = [4] * 30
WRONG = {"t000": 2, "t001": 1, "t002": 3}
"""Words of each utterance that a trial gets wrong with the language model."""


class Ears:
    """Counts what it listens to, and hears as many words wrong as `WRONG` says."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __call__(self, checkpoints: list[Path], lm: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        assert lm.is_file()
        for number, path in reversed([*enumerate(checkpoints)]):  # whichever is done first
            name = path.parent.name
            self.heard.append(name)
            errors = [WRONG[name]] * len(WORDS)
            test = {"wer": WRONG[name] / 4, "cer": 0.1, "errors": errors, "words": WORDS, "speakers": [""] * 30}
            weights = {"lm": 1.5, "word": -1.0, "beam": 50}
            yield number, {"weights": weights, "dev_wer": 0.2, "greedy_dev_wer": 0.4, "test": test}


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    file = tmp_path / "mine.arpa"
    estimate([["ina", "da", "ruwa"], ["ba", "na", "so"]], 2, 1).write(file)
    return file


def a_sweep(folder: Path, lm: Path) -> tuple[SweepConfig, Ledger]:
    (folder / "s").mkdir()
    ledger = Ledger(folder / "s")
    ledger.append("sweep", name="s", rungs=[])
    for name, wer in (("t000", 0.5), ("t001", 0.3), ("t002", 0.4)):
        ledger.append("proposed", trial=name, settings={}, source="baseline" if name == "t000" else "search")
        ledger.append("reported", trial=name, **report(40, wer))
        ledger.append("ended", trial=name, state="finished", reason="")
        (ledger.trial_folder(name) / "step-000040").mkdir(parents=True)
    return load(None, [f"finalists={{language_model: {lm}}}"], environment={}), ledger


def test_the_winner_is_compared_with_the_baseline_and_nothing_is_heard_twice(tmp_path: Path, lm: Path) -> None:
    config, ledger = a_sweep(tmp_path, lm)
    state, ears = ledger.state, Ears()
    runs = [state.trials[name] for name in ("t001", "t000")]
    prepared: Any = SimpleNamespace(splits={})
    found = with_language_model(config, ledger, prepared, runs, runs[0], "t000", ears, "digest")
    assert found.sentence().startswith(
        "with a language model, t001  test WER 0.250 [0.250, 0.250] over 1 seed; baseline 0.500 [0.500, 0.500]: "
        "0.250 lower"
    )
    assert found.file == ledger.folder / "lm.arpa" and found.file.read_bytes() == lm.read_bytes()
    weights = json.loads((ledger.folder / "lm.arpa.weights.json").read_text())
    assert (weights["lm"], weights["model"], weights["model_digest"]) == (1.5, "t001", "digest")
    assert not lm.with_name("mine.arpa.weights.json").exists(), "the user's own is left alone"
    again = with_language_model(
        config, ledger, prepared, [*runs, state.trials["t002"]], runs[0], "t000", ears, "digest"
    )
    assert ears.heard == ["t000", "t001", "t002"] and again.margin == found.margin
    assert again.test == {"t001": 0.25, "t000": 0.5, "t002": 0.75}
    own = load(None, [f"finalists={{language_model: {found.file}}}"], environment={})
    with_language_model(own, ledger, prepared, runs, runs[0], "t000", ears, "digest")
    assert len(ears.heard) == 3, "the sweep's own copy, named by hand"
    estimate([["mun", "gode"]], 2, 1).write(lm)  # another language model
    with_language_model(config, ledger, prepared, runs, runs[0], "t000", ears, "digest")
    assert ears.heard[3:] == ["t000", "t001"]


def test_one_that_the_end_could_not_use_is_refused_at_once(tmp_path: Path, lm: Path) -> None:
    check_language_model(str(lm), tmp_path)
    check_language_model("train", tmp_path)
    with pytest.raises(UserError, match="no such language model"):
        check_language_model(str(tmp_path / "none.arpa"), tmp_path)
    (tmp_path / "text.arpa").write_text("ina da ruwa")
    with pytest.raises(UserError, match="can't be used"):
        check_language_model(str(tmp_path / "text.arpa"), tmp_path)
    lm.rename(tmp_path / "lm.arpa")
    check_language_model(str(lm), tmp_path)  # gone since, and the sweep has its copy
    with pytest.raises(UserError, match="language_model"):
        make_absolute(load(None, ["finalists={language_model: lm.arpa}", f"storage={tmp_path}"]), in_job=True)
    config = make_absolute(load(None, ["finalists={language_model: lm.arpa}"], environment={}), in_job=False)
    assert config.finalists.language_model == str(Path.cwd() / "lm.arpa")
    config = make_absolute(load(None, ["finalists={language_model: train}"], environment={}), in_job=False)
    assert config.finalists.language_model == "train"

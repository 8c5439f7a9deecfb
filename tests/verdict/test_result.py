"""The end of a sweep: each run keeps its own test score, the winner's is the mean over its seeds, and all say it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hausa_asr.decoding.ngram import estimate
from hausa_asr.settings.load import load
from hausa_asr.tracking.tracker import Tracker
from helpers.events import report
from helpers.fine_tunes import save_checkpoint
from helpers.speech import ToneSplit
from sweeps.record.ledger import Ledger
from sweeps.verdict.publish import publish
from sweeps.verdict.result import conclude

WORDS = np.full(50, 10)
RATES = {"t000": 0.5, "t001": 0.3, "t000-s1": 0.5, "t000-s2": 0.4, "t001-s1": 0.2, "t001-s2": 0.3}


def score(checkpoints: list[Path], splits: list[str]) -> list[dict[str, Any]]:
    """Each model has its rate of words wrong on dev, and a twentieth more on test."""
    scores = []
    for checkpoint in checkpoints:
        by_split = {}
        for split in splits:
            wer = RATES[checkpoint.parent.name] + 0.05 * (split == "test")
            errors = np.random.default_rng(list(checkpoint.parent.name.encode())).permutation(
                np.repeat([0, 10], [50 - round(50 * wer), round(50 * wer)])
            )
            rate = float(errors.sum() / WORDS.sum())
            rates = {"wer": rate, "cer": rate / 2, "wer_folded": rate, "cer_folded": rate / 2}
            by_split[split] = {
                "errors": errors.tolist(), "words": WORDS.tolist(), "speakers": [""] * 50, "rates": rates,
            }  # fmt: skip
        scores.append(by_split)
    return scores


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, layer_norm_base: Path) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("a trial"), layer_norm_base)


@pytest.mark.parametrize("finalists", [True, False])
def test_each_run_keeps_its_own_test_score_and_the_winners_is_the_mean(
    tmp_path: Path, checkpoint: Path, finalists: bool
) -> None:
    k = f"finalists={{k: {int(finalists)}, seeds: 2}}"
    config = load(None, [k, f"storage={tmp_path}", f"mlflow.uri=sqlite:///{tmp_path}/m.db"], environment={})
    (tmp_path / "s").mkdir()
    ledger, tracker = Ledger(tmp_path / "s"), Tracker(config.mlflow.uri, "x")
    ledger.append("sweep", name="s", rungs=[])
    parent = tracker.start_sweep("s", {}, {})
    ledger.append("mirrored", run_id=parent)
    for name in RATES if finalists else ("t000", "t001"):
        of = name[:4] if "-" in name else ""
        settings = {"seed": int(name[-1])} if of else {}
        source = "finalist" if of else "baseline" if name == "t000" else "search"
        ledger.append("proposed", trial=name, settings=settings, source=source, of=of)
        tags = {"source": source, **({"finalist_of": of} if of else {})}
        ledger.append("tracked", trial=name, run_id=tracker.start_trial(parent, "s", name, settings, tags))
        ledger.append("reported", trial=name, **report(40, RATES[name]))
        ledger.append("ended", trial=name, state="finished", reason="")
        ledger.trial_folder(name).mkdir(parents=True)
        (ledger.trial_folder(name) / checkpoint.name).symlink_to(checkpoint)
    prepared: Any = SimpleNamespace(splits={"dev": ToneSplit(7, 1), "test": None}, report={}, seconds={"train": 60.0})
    conclusion = conclude(config, ledger, prepared, score)
    assert publish(tracker, ledger, conclusion) == ""

    own = {name: round(50 * (wer + 0.05)) / 50 for name, wer in RATES.items()}
    result = json.loads((ledger.folder / "result.json").read_text())
    scored = [name for name in RATES if ("-" in name) == finalists]
    every = {trial["id"]: trial for trial in [*result["trials"], *result["finalists"]]}
    assert {name: every[name]["test_wer"] for name in scored} == pytest.approx({name: own[name] for name in scored})
    runs = {run.trial: run.metrics.get("test_wer") for run in tracker.trials("s")}
    assert {name: runs[name] for name in scored} == pytest.approx({name: own[name] for name in scored})
    mean = np.mean([own[name] for name in scored if name.startswith("t001")])
    base = np.mean([own[name] for name in scored if name.startswith("t000")])
    [sweep] = tracker.sweeps()
    assert sweep.metrics["test_wer"] == pytest.approx(mean) == result["best"]["test_wer"]
    assert sweep.metrics["baseline_test_wer"] == pytest.approx(base)

    headline = sweep.tags["verdict"]
    assert headline == conclusion.headline == result["headline"]
    assert headline.startswith(("winner" if finalists else "lowest dev WER") + f" t001  test WER {mean:.3f} [")
    assert f"baseline {base:.3f} [" in headline and f": {base - mean:.3f} lower [" in headline
    assert headline.endswith("one seed cannot tell which is better") == (not finalists)
    assert result["on_test"]["difference"]["wer"] == pytest.approx(mean - base)
    card = (ledger.folder / "export/README.md").read_text(encoding="utf-8")
    assert headline in card
    assert f"| WER | {RATES['t001-s1' if finalists else 't001']:.4f} |" in card, "the model's own, and no mean"


@pytest.mark.parametrize("part_s", [0, 5])
def test_without_finalists_the_winner_is_scored_on_all_of_dev_where_trials_saw_a_part(
    tmp_path: Path, checkpoint: Path, part_s: int
) -> None:
    changes = ["finalists={k: 0}", f"storage={tmp_path}", f"finetune.dev_part_s={part_s}"]
    (tmp_path / "s").mkdir()
    ledger = Ledger(tmp_path / "s")
    ledger.append("sweep", name="s", rungs=[])
    for name, reported in (("t000", 0.45), ("t001", 0.25)):
        ledger.append("proposed", trial=name, settings={}, source="search" if name == "t001" else "baseline")
        ledger.append("reported", trial=name, **report(40, reported))
        ledger.append("ended", trial=name, state="finished", reason="")
        ledger.trial_folder(name).mkdir(parents=True)
        (ledger.trial_folder(name) / checkpoint.name).symlink_to(checkpoint)
    prepared: Any = SimpleNamespace(splits={"dev": ToneSplit(7, 1), "test": None}, report={}, seconds={"train": 60.0})
    conclusion = conclude(load(None, changes, environment={}), ledger, prepared, score)
    assert conclusion.best is not None and conclusion.baseline is not None
    rates = conclusion.best.dev["wer"], conclusion.baseline.dev["wer"]
    assert rates == pytest.approx((0.3, 0.5)), "as scored at the end, and not as reported"
    card = (ledger.folder / "export/README.md").read_text(encoding="utf-8")
    assert f"| WER | {rates[0]:.4f} |" in card


def with_a_baseline_alone(folder: Path, checkpoint: Path) -> tuple[Ledger, Any]:
    """A sweep whose one trial, the baseline, has ended, and its dataset."""
    ledger = Ledger(folder)
    ledger.append("sweep", name="s", rungs=[])
    ledger.append("proposed", trial="t000", settings={}, source="baseline")
    ledger.append("reported", trial="t000", **report(40, 0.3))
    ledger.append("ended", trial="t000", state="finished", reason="")
    ledger.trial_folder("t000").mkdir(parents=True)
    (ledger.trial_folder("t000") / checkpoint.name).symlink_to(checkpoint)
    return ledger, SimpleNamespace(splits={"dev": ToneSplit(7, 1), "test": None}, report={}, seconds={"train": 60.0})


def test_a_baseline_that_nothing_beat_is_one_run_and_not_two(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "s").mkdir()
    ledger, prepared = with_a_baseline_alone(tmp_path / "s", checkpoint)
    conclusion = conclude(load(None, ["finalists={k: 0}"], environment={}), ledger, prepared, score)
    assert [run.id for run, _ in conclusion.tested] == ["t000"]
    assert "over 1 seed" in conclusion.headline or not conclusion.headline


def test_a_model_that_cannot_be_exported_costs_no_result(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "s/export").mkdir(parents=True)
    (tmp_path / "s/export/.DS_Store").touch()
    ledger, prepared = with_a_baseline_alone(tmp_path / "s", checkpoint)
    config, said = load(None, ["finalists={k: 0}"], environment={}), []  # type: ignore[var-annotated]
    conclusion = conclude(config, ledger, prepared, score, say=said.append)
    assert conclusion.export is None and conclusion.best is not None
    result = json.loads((ledger.folder / "result.json").read_text())
    assert result["best"]["id"] == "t000" and result["export"] is None
    [line] = said
    assert "was not exported" in line and "also holds .DS_Store" in line and "--resume" in line
    (tmp_path / "s/export/.DS_Store").unlink()
    assert conclude(config, ledger, prepared, score).export == ledger.folder / "export"


def test_there_is_no_result_while_a_language_model_is_still_asked(tmp_path: Path, checkpoint: Path) -> None:
    """Whoever watches the sweep, or interrupts it in these hours, must not take it for one that is over."""
    (tmp_path / "s").mkdir()
    ledger, prepared = with_a_baseline_alone(tmp_path / "s", checkpoint)
    lm = tmp_path / "mine.arpa"
    estimate([["ina", "da", "ruwa"], ["ba", "na", "so"]], 2, 1).write(lm)
    config, calls = load(None, [f"finalists={{k: 0, language_model: {lm}}}"], environment={}), []  # type: ignore[var-annotated]

    def listen(checkpoints: list[Path], _: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        calls.append(len(checkpoints))
        if len(calls) == 1:
            raise KeyboardInterrupt
        weights = {"lm": 1.5, "word": -1.0, "beam": 50}
        yield 0, {"weights": weights, "dev_wer": 0.2, "greedy_dev_wer": 0.4}

    with pytest.raises(KeyboardInterrupt):
        conclude(config, ledger, prepared, score, listen=listen)
    assert not (ledger.folder / "result.json").exists()
    conclusion = conclude(config, ledger, prepared, score, listen=listen)
    assert conclusion.with_lm is not None and calls == [1, 1]
    assert json.loads((ledger.folder / "result.json").read_text())["language_model"]["dev_wer"] == {"t000": 0.2}

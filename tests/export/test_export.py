"""Exports of real checkpoints, loaded back with transformers, and winners found in a real MLflow database."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Processor, pipeline

from hausa_asr.cli import main
from hausa_asr.errors import UserError
from hausa_asr.export.best_model import Exported, best_model
from hausa_asr.export.folder import NEEDED
from hausa_asr.export.model_card import Card, ErrorRates
from hausa_asr.export.write import export_checkpoint
from hausa_asr.model.wav2vec2 import load_model
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.tracking.tracker import MetricsRow, Tracker
from hausa_asr.training import checkpoint as checkpoints
from helpers.fine_tunes import save_checkpoint

RECIPE = asdict(FinetuneConfig(lr_peak=3e-4, schedule="linear"))
REPORT = {
    "origin": {"corpus": "folder", "path": "/home/someone/my_speech"},
    "utterances": {"in": 1200, "kept": 1100, "refused": 100},
    "splits": {
        "train": {"utterances": 1000, "hours": 1.5, "words": 9000, "speakers": 12},
        "dev": {"utterances": 100, "hours": 0.15, "words": 900, "speakers": 3},
    },
    "refused": {"silent": {"utterances": 100, "hours": 0.1, "example": {"id": "a", "detail": ""}}},
    "warnings": ["the corpus has no test split"],
}
CARD = Card(
    sweep="first",
    trial="t003",
    base="facebook/wav2vec2-xls-r-300m",
    recipe=RECIPE,
    data=REPORT,
    dev=ErrorRates(0.1234, 0.0456, 0.1111, 0.0444),
    test=ErrorRates(0.2222, 0.0777),
    baseline_trial="t000",
    baseline_dev=ErrorRates(0.5, 0.25),
    baseline_test=ErrorRates(0.6, 0.3),
)


@pytest.fixture(scope="module")
def layer_norm(tmp_path_factory: pytest.TempPathFactory, layer_norm_base: Path) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("a trial"), layer_norm_base)


@pytest.fixture(scope="module")
def group_norm(tmp_path_factory: pytest.TempPathFactory, group_norm_base: Path) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("another"), group_norm_base)


def sound(seconds: float, rate: int, seed: int) -> np.ndarray:
    """Noise bursts and tones that come and go."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(round(seconds * 8)):
        time = np.arange(rate // 8) / rate
        parts.append(rng.uniform(0, 0.4) * np.sin(2 * np.pi * rng.uniform(80, 3000) * time))
    samples = np.concatenate(parts)
    return (samples + rng.normal(0, 0.02, len(samples))).astype(np.float32)


def transcribed(model: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(["transcribe", "--model", str(model), str(clip)])
    assert end.value.code == 0
    return capsys.readouterr().out.removesuffix("\n")


def front_matter(folder: Path) -> dict:
    text = (folder / "README.md").read_text(encoding="utf-8")
    start, header, _ = re.split(r"^---$", text, maxsplit=2, flags=re.MULTILINE)
    assert start == ""
    return yaml.safe_load(header)


# -- the folder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["layer_norm", "group_norm"])
@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_pipeline_gives_the_text_of_transcribe(
    norm: str, rate: int, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = export_checkpoint(request.getfixturevalue(norm), tmp_path / "model", CARD)
    samples = sound(4.0, rate, seed=1)
    soundfile.write(tmp_path / "clip.wav", samples, rate, subtype="FLOAT")

    ours = transcribed(out, tmp_path / "clip.wav", capsys)
    recognise = pipeline("automatic-speech-recognition", model=str(out))
    theirs: str = recognise({"raw": samples, "sampling_rate": rate})["text"]  # type: ignore[call-overload]

    assert len(ours) > 10
    # transformers leaves two spaces where a blank parts two word ends
    assert " ".join(theirs.split()) == ours


def test_the_snippet_of_the_card_runs(layer_norm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = export_checkpoint(layer_norm, tmp_path / "model", CARD)
    soundfile.write(out / "clip.wav", sound(2.0, 16_000, seed=2), 16_000)
    ours = transcribed(out, out / "clip.wav", capsys)
    snippet = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert snippet
    before = Path.cwd()
    os.chdir(out)
    try:
        exec(snippet[1], {})
    finally:
        os.chdir(before)
    assert capsys.readouterr().out.strip() == ours


def test_the_folder_holds_the_model_and_nothing_of_the_training(layer_norm: Path, tmp_path: Path) -> None:
    assert (layer_norm / "training.pt").is_file()
    out = export_checkpoint(layer_norm, tmp_path / "made" / "model", CARD)
    assert {file.name for file in out.iterdir()} == NEEDED
    assert (out / "model.safetensors").stat().st_mode == (out / "config.json").stat().st_mode
    assert FinetuneConfig(**json.loads((out / "settings.json").read_text())) == FinetuneConfig(**RECIPE)
    assert [path.name for path in out.parent.iterdir()] == ["model"]

    before, _ = checkpoints.load(layer_norm)
    after, _ = load_model(out)
    assert all(torch.equal(p, q) for p, q in zip(before.parameters(), after.parameters(), strict=True))


def test_the_processor_is_stored_so_that_older_transformers_load_it_too(
    layer_norm: Path, group_norm: Path, tmp_path: Path
) -> None:
    for checkpoint, masked in ((layer_norm, True), (group_norm, False)):
        out = export_checkpoint(checkpoint, tmp_path / str(masked), CARD)
        assert Wav2Vec2Processor.from_pretrained(out).feature_extractor.return_attention_mask is masked
        # 4.46 takes each entry for an argument, and fails with one that it gives itself
        assert json.loads((out / "processor_config.json").read_text()) == {"processor_class": "Wav2Vec2Processor"}
        assert Wav2Vec2FeatureExtractor.from_pretrained(out).return_attention_mask is masked


def test_card_says_what_it_is(layer_norm: Path, tmp_path: Path) -> None:
    out = export_checkpoint(layer_norm, tmp_path / "model", CARD)
    header = front_matter(out)
    assert header["language"] == ["ha"]
    assert header["metrics"] == ["wer", "cer"]
    assert header["base_model"] == "facebook/wav2vec2-xls-r-300m"
    results = {r["dataset"]["split"]: r for r in header["model-index"][0]["results"]}
    assert results["dev"]["dataset"]["name"] == "my_speech"
    assert results["dev"]["metrics"][0] == {"type": "wer", "name": "WER", "value": 0.1234}
    assert [m["value"] for m in results["test"]["metrics"]] == [0.2222, 0.0777]

    text = (out / "README.md").read_text(encoding="utf-8")
    assert "| WER | 0.1234 | 0.2222 | 0.5000 | 0.6000 |" in text
    assert "| WER, hooks folded | 0.1111 | – | – | – |" in text
    assert "| train | 1.50 | 1,000 | 9,000 | 12 |" in text
    assert "| `lr_peak` | 0.0003 |" in text
    assert "silent (100)" in text
    assert "synthetic" not in text
    assert "/home/someone" not in text
    assert f"transformers {__import__('transformers').__version__}" in text


def test_card_of_the_demo_says_that_it_is_synthetic(layer_norm: Path, tmp_path: Path) -> None:
    data = {**REPORT, "origin": {"corpus": "demo", "seed": 0}}
    bare = Card("", "mine", "/home/someone/base", RECIPE, data, dev=ErrorRates(0.1, 0.2))
    out = export_checkpoint(layer_norm, tmp_path / "model", bare)
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "heard no human being" in text
    assert "Its WER says nothing about people" in text
    assert "/home/someone" not in text
    assert "base_model" not in front_matter(out)
    assert len(front_matter(out)["model-index"][0]["results"]) == 1


def test_only_an_export_is_overwritten_and_only_on_demand(layer_norm: Path, group_norm: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    export_checkpoint(layer_norm, out, CARD)  # an empty folder is as good as none
    with pytest.raises(UserError, match="already") as error:
        export_checkpoint(group_norm, out, CARD)
    assert "--overwrite" in str(error.value)

    export_checkpoint(group_norm, out, CARD, overwrite=True)
    assert json.loads((out / "config.json").read_text())["feat_extract_norm"] == "group"

    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        export_checkpoint(layer_norm, out, CARD, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"

    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="not a model"):
        export_checkpoint(layer_norm, tmp_path / "file", CARD, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model"]


def test_a_failed_export_leaves_what_was_there(layer_norm: Path, tmp_path: Path) -> None:
    out = export_checkpoint(layer_norm, tmp_path / "model", CARD)
    broken = tmp_path / "broken"
    shutil.copytree(layer_norm, broken)
    (broken / "weights.safetensors").unlink()
    with pytest.raises(UserError):
        export_checkpoint(broken, out, CARD, overwrite=True)
    load_model(out)
    with pytest.raises(UserError):
        export_checkpoint(broken, tmp_path / "new", CARD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "model"]


# -- the best of MLflow -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def tracker(uri: str, request: pytest.FixtureRequest) -> Iterator[Tracker]:
    yield Tracker(uri, request.node.name)


def record_trial(tracker: Tracker, parent: str, sweep: str, trial: str, figures: dict, tags: dict) -> str:
    """A finished trial, as a sweep records one."""
    all_tags = {"base": "demo", "source": "search", **tags}
    run = tracker.start_trial(parent, sweep, trial, RECIPE, all_tags)
    tracker.log(run, [MetricsRow(40, 1_700_000_000_000, {"wer": 1.0, "cer": 1.0, "loss": 3.0})])
    tracker.end_trial(run, "finished", "", figures)
    return run


def record_sweep(tracker: Tracker, sweep: str, trials: dict[str, tuple[float, Path | None]]) -> tuple[str, dict]:
    """A sweep with a baseline `t000`; each trial with its WER and its checkpoint."""
    parent = tracker.start_sweep(sweep, {}, {})
    runs = {}
    for trial, (wer, folder) in trials.items():
        tags = {"source": "baseline"} if trial == "t000" else {}
        if folder:
            tags["checkpoint_uri"] = folder.as_uri()
        runs[trial] = record_trial(tracker, parent, sweep, trial, scores(wer), tags)
    return parent, runs


def scores(wer: float) -> dict[str, float]:
    best = {"best_wer": wer, "best_cer": wer / 2, "best_loss": wer * 2}
    return {**best, "test_wer": wer + 0.01, "test_cer": wer / 2 + 0.01}


def test_winner_comes_from_the_sweeps_artifact(tracker: Tracker, layer_norm: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    parent, runs = record_sweep(tracker, "one", {"t000": (0.5, gone), "t001": (0.2, gone), "t002": (0.3, gone)})
    made = export_checkpoint(layer_norm, tmp_path / "made", CARD)
    tracker.log_folder(parent, made, "best_model")
    tracker.end_sweep(parent, "finished", {"winner": "t001"}, {})

    exported = best_model(tracker.uri, tracker.experiment, sweep="one", out=tmp_path / "out")
    assert (exported.sweep, exported.trial, exported.source, exported.run_id) == (
        "one",
        "t001",
        "artifact",
        runs["t001"],
    )
    assert (exported.wer, exported.cer, exported.test_wer) == (0.2, 0.1, pytest.approx(0.21))
    assert exported.out == tmp_path / "out"
    assert {f.name: f.read_bytes() for f in made.iterdir()} == {f.name: f.read_bytes() for f in exported.out.iterdir()}
    with pytest.raises(UserError, match="already"):
        best_model(tracker.uri, tracker.experiment, sweep=None, out=tmp_path / "out")
    best_model(tracker.uri, tracker.experiment, sweep=None, out=tmp_path / "out", overwrite=True)


def test_the_card_shows_how_it_learned_and_what_that_cost(tracker: Tracker, layer_norm: Path, tmp_path: Path) -> None:
    parent, runs = record_sweep(tracker, "one", {"t000": (0.5, layer_norm), "t001": (0.2, layer_norm)})
    for run, wer in zip(runs.values(), (0.5, 0.2), strict=True):
        rows = [
            MetricsRow(step, 1_700_000_000_000, {"wer": wer + 1 / step, "loss": 1 / step, "seen_s": step * 36.0,
                                                 "system/gpu_energy_kwh": 0.25})
            for step in (10, 20, 30)
        ]  # fmt: skip
        tracker.log(run, [*rows, MetricsRow(31, 1_700_000_000_001, {"spent_s": 5400.0})])
    tracker.end_sweep(parent, "finished", {}, {"spent_s": 10_800.0})
    out = best_model(tracker.uri, tracker.experiment, sweep="one", out=tmp_path / "out").out
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "![WER and loss on dev](learning.png)" in card and "of `t001`, beside the baseline `t000`." in card
    assert (out / "learning.png").read_bytes()[:4] == b"\x89PNG"
    assert (
        "Training `t001` took 1.5 hours and 0.75 kWh by the GPUs' meters; its sweep of 2 runs 3.0 hours and 1.5 kWh"
        in card
    )
    best_model(tracker.uri, tracker.experiment, sweep="one", out=tmp_path / "out", overwrite=True)


def test_the_best_that_is_fast_enough(
    tracker: Tracker, layer_norm: Path, group_norm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tracker.start_sweep("one", {}, {})
    for trial, wer, base, folder in (("t001", 0.2, "large", layer_norm), ("t002", 0.3, "large", layer_norm),
                                     ("t003", 0.4, "small", group_norm)):  # fmt: skip
        record_trial(tracker, parent, "one", trial, scores(wer), {"base": base, "checkpoint_uri": folder.as_uri()})

    def export(max_rtf: float) -> Exported:
        return best_model(
            tracker.uri, tracker.experiment, sweep="one", out=tmp_path / "out", overwrite=True, max_rtf=max_rtf
        )

    quick = export(100.0)
    assert quick.trial == "t001" and quick.rtf is not None and 0 < quick.rtf < 10
    with pytest.raises(UserError, match=r"as fast as 1e-09 s .*: large takes [\d.e-]+, small takes [\d.e-]+"):
        export(1e-9)
    assert (tmp_path / "out/model.safetensors").is_file(), "what was there before"
    monkeypatch.setattr(
        "hausa_asr.export.best_model.real_time_factor",
        lambda folder, dev: 0.5 if json.loads((folder / "config.json").read_text())["do_stable_layer_norm"] else 0.1,
    )
    chosen = export(0.2)
    assert (chosen.trial, chosen.rtf) == ("t003", 0.1)
    assert "`t003`" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_what_finalists_named_goes_before_a_lower_wer_of_one_lucky_seed(
    tracker: Tracker, layer_norm: Path, tmp_path: Path
) -> None:
    parent, _ = record_sweep(tracker, "one", {"t000": (0.5, None), "t001": (0.1, None), "t002": (0.2, None)})
    for run, of, wer in (("t002-s1", "t002", 0.18), ("t002-s2", "t002", 0.22), ("t001-s1", "t001", 0.15)):
        record_trial(tracker, parent, "one", run, scores(wer), {"source": "finalist", "finalist_of": of,
                                                                "checkpoint_uri": layer_norm.as_uri()})  # fmt: skip
    tags = {"winner": "t002", "winner_run": "t002-s1", "winner_seeds": "2"}
    tracker.end_sweep(parent, "finished", tags, {"best_wer": 0.2, "best_cer": 0.09, "test_wer": 0.24, "test_cer": 0.1})
    exported = best_model(tracker.uri, tracker.experiment, sweep="one", out=tmp_path / "out")
    assert (exported.trial, exported.chosen, exported.seeds) == ("t002-s1", "finalists", 2)
    assert (exported.wer, exported.cer, exported.test_wer) == (0.2, 0.09, 0.24), "means over the seeds"

    # A sweep still under way, whose finalist runs are no trials of its own, has the lowest WER of its search.
    other, _ = record_sweep(tracker, "two", {"t000": (0.19, layer_norm)})
    record_trial(tracker, other, "two", "t000-s1", scores(0.01), {"source": "finalist", "finalist_of": "t000"})
    exported = best_model(tracker.uri, tracker.experiment, sweep=None, out=tmp_path / "other")
    assert (exported.sweep, exported.trial, exported.chosen, exported.seeds) == ("two", "t000", "lowest dev WER", 0)


def test_else_from_the_trials_checkpoint(tracker: Tracker, layer_norm: Path, tmp_path: Path) -> None:
    parent, _ = record_sweep(tracker, "one", {"t000": (0.5, None), "t001": (0.2, layer_norm)})
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    (tmp_path / "data").mkdir()
    shutil.move(tmp_path / "report.json", tmp_path / "data")
    tracker.log_folder(parent, tmp_path / "data", "data")
    record_sweep(tracker, "two", {"t000": (0.4, None)})

    exported = best_model(tracker.uri, tracker.experiment, sweep=None, out=tmp_path / "out")
    assert (exported.sweep, exported.trial, exported.source) == ("one", "t001", "checkpoint")
    assert {file.name for file in exported.out.iterdir()} == NEEDED
    settings = FinetuneConfig(**json.loads((exported.out / "settings.json").read_text()))
    assert settings == FinetuneConfig(**{**RECIPE, "base": "demo"})
    text = (exported.out / "README.md").read_text(encoding="utf-8")
    assert "| WER | 0.2000 | 0.2100 | 0.5000 | 0.5100 |" in text
    assert "| WER, hooks folded | 0.7000 | – | – | – |" in text  # from the checkpoint's progress.json
    assert "Corpus: `my_speech`" in text


def test_a_checkpoint_of_the_demo_is_not_passed_off_as_speech(
    tracker: Tracker, layer_norm: Path, tmp_path: Path
) -> None:
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    (prepared / "report.json").write_text(json.dumps({**REPORT, "origin": {"corpus": "demo"}}))
    parent = tracker.start_sweep("one", {}, {})
    tags = {"checkpoint_uri": layer_norm.as_uri(), "prepared": str(prepared)}
    record_trial(tracker, parent, "one", "t000", scores(0.3), tags)
    exported = best_model(tracker.uri, tracker.experiment, sweep="one", out=tmp_path / "out")
    assert "heard no human being" in (exported.out / "README.md").read_text(encoding="utf-8")


def test_a_damaged_artifact_is_not_exported(tracker: Tracker, layer_norm: Path, tmp_path: Path) -> None:
    made = export_checkpoint(layer_norm, tmp_path / "made", CARD)
    weights = made / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    parent, _ = record_sweep(tracker, "one", {"t001": (0.2, None)})
    tracker.log_folder(parent, made, "best_model")
    tracker.end_sweep(parent, "finished", {"winner": "t001"}, {})
    with pytest.raises(UserError, match="damaged"):
        best_model(tracker.uri, tracker.experiment, sweep="one", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(tracker: Tracker, tmp_path: Path) -> None:
    gone = tmp_path / "storage" / "step-000040"
    parent, runs = record_sweep(tracker, "one", {"t000": (0.5, gone), "t001": (0.2, gone)})
    with pytest.raises(UserError) as error:
        best_model(tracker.uri, tracker.experiment, sweep="one", out=tmp_path / "out")
    assert f"artifact best_model of run {parent} is made when the sweep ends" in str(error.value)
    assert str(gone) in str(error.value)
    assert "--resume one" in str(error.value)

    tracker.end_sweep(parent, "finished", {"winner": "t001"}, {})
    tracker.set_tags(runs["t001"], {"checkpoint_uri": "s3://bucket/step-000040"})
    with pytest.raises(UserError) as error:
        best_model(tracker.uri, tracker.experiment, sweep="one", out=tmp_path / "out")
    assert f"artifact best_model of run {parent} (it is not there)" in str(error.value)
    assert "s3://bucket/step-000040" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_no_such_sweep_and_no_wer(tracker: Tracker, tmp_path: Path) -> None:
    parent, _ = record_sweep(tracker, "one", {})
    with pytest.raises(UserError, match="no sweep 'onne'") as error:
        best_model(tracker.uri, tracker.experiment, sweep="onne", out=tmp_path / "out")
    assert "one" in str(error.value.fix)
    tracker.start_trial(parent, "one", "t000", RECIPE, {})
    with pytest.raises(UserError, match="None of the 1 trials has a WER"):
        best_model(tracker.uri, tracker.experiment, sweep="one", out=tmp_path / "out")
    with pytest.raises(UserError, match="no MLflow database"):
        best_model(f"sqlite:///{tmp_path}/none.db", "x", sweep=None, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_cer_and_loss_break_ties(tracker: Tracker, layer_norm: Path, tmp_path: Path) -> None:
    parent = tracker.start_sweep("one", {}, {})
    for trial, cer, loss in (("t000", 0.3, 1.0), ("t001", 0.2, 2.0), ("t002", 0.2, 1.0)):
        figures = {"best_wer": 0.5, "best_cer": cer, "best_loss": loss}
        record_trial(tracker, parent, "one", trial, figures, {"checkpoint_uri": str(layer_norm)})
    assert best_model(tracker.uri, tracker.experiment, sweep="one", out=tmp_path / "out").trial == "t002"


def test_export_needs_no_mlflow() -> None:
    code = "import sys; sys.modules['mlflow'] = None; import hausa_asr.export.best_model, hausa_asr.cli; print('ok')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "ok\n"

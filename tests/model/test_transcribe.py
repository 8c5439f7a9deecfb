"""`transcribe` takes files and samples, one or several, and says what it can't read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hausa_asr.audio.load import AudioRefused
from hausa_asr.decoding.confidence import GREEDY, WITH_LM, Calibration, write_calibrations
from hausa_asr.decoding.ngram import estimate
from hausa_asr.decoding.weights import LM_FILE, Weights, store_weights
from hausa_asr.errors import UserError
from hausa_asr.model import recognizer
from hausa_asr.model import transcribe as module
from hausa_asr.model.evaluate import transcribe_samples
from hausa_asr.model.recognizer import Recognizer, Transcript
from hausa_asr.model.transcribe import transcribe
from hausa_asr.model.wav2vec2 import load_model, new_model
from hausa_asr.recipe import FinetuneConfig
from helpers.speech import ToneSplit

SAMPLES = [ToneSplit(5, 0)[index].samples for index in range(5)]


@pytest.fixture(scope="module")
def model(layer_norm_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    for part in new_model(str(layer_norm_base), FinetuneConfig()):
        part.save_pretrained(folder)
    return folder


def test_one_gives_a_text_and_several_a_list_in_their_order(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{number}.wav" for number in range(5)]
    for file, samples in zip(files, SAMPLES, strict=True):
        soundfile.write(file, samples, 16_000, subtype="FLOAT")
    expected = transcribe_samples(*load_model(model), SAMPLES)
    assert len(set(expected)) > 1
    assert transcribe(files[0], model) == transcribe(str(files[0]), str(model)) == expected[0]
    assert transcribe(SAMPLES[0], model, device="cpu") == expected[0]
    monkeypatch.setattr(recognizer, "AT_ONCE", 2)
    assert transcribe(files, model) == transcribe([*SAMPLES[:2], *map(str, files[2:])], model) == expected
    assert transcribe(SAMPLES[0].astype(np.float64), model) == expected[0]
    assert transcribe([], model) == []
    assert transcribe((files[1],), model) == [expected[1]]


def test_a_file_that_cannot_be_read_is_named(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "notes.mp3"
    file.write_text("not audio")
    for bad in (file, tmp_path / "none.wav"):
        with pytest.raises(AudioRefused) as refused:
            transcribe([SAMPLES[0], bad], model)
        assert str(bad) in str(refused.value)
    assert refused.value.reason == "missing"


def test_files_come_in_their_order_and_a_bad_one_does_not_end_the_others(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{number}.wav" for number in range(4)]
    for file, samples in zip(files, SAMPLES, strict=False):
        soundfile.write(file, samples, 16_000, subtype="FLOAT")
    files[2].write_text("not audio")
    monkeypatch.setattr(recognizer, "AT_ONCE", 3)
    transcripts = list(Recognizer(model).files(files))
    assert [one.file for one in transcripts] == [str(file) for file in files]
    assert [one.text for one in transcripts if one.error is None] == transcribe([files[0], files[1], files[3]], model)
    assert transcripts[2] == Transcript(str(files[2]), error=transcripts[2].error) and transcripts[2].error
    assert transcripts[0].duration_s == round(len(SAMPLES[0]) / 16_000, 3)


@pytest.mark.parametrize(
    ("size", "value", "reason"),
    [(0, 0.0, "too short"), (399, 0.0, "too short"), (1600, np.nan, "nan"), (16_000 * 301, 0.0, "too long")],
)
def test_samples_that_no_model_can_read_are_refused(
    size: int, value: float, reason: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RECORDING_S", 300.0)
    with pytest.raises(AudioRefused) as refused:
        transcribe(np.full(size, value, np.float32), model)
    assert refused.value.reason == reason


@pytest.mark.parametrize(("shape", "kind"), [((2, 1600), "float32"), ((1600,), "int16")])
def test_samples_of_another_form_are_an_error_of_the_caller(shape: tuple[int, ...], kind: str, model: Path) -> None:
    with pytest.raises(ValueError, match="floats"):
        transcribe(np.zeros(shape, kind), model)


@pytest.mark.parametrize("name", ["best-model", "./none/here", "a/b/c"])
def test_a_missing_model_is_refused_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such model folder") as refused:
        transcribe(SAMPLES[0], name)
    assert refused.value.where == name


def test_a_base_checkpoint_is_not_a_model(layer_norm_base: Path) -> None:
    with pytest.raises(UserError):
        transcribe(SAMPLES[0], layer_norm_base)


def test_a_model_of_the_hub_brings_its_language_model_and_its_calibration(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the hub's cache on this machine, since there is no hub here."""
    pytest.importorskip("flashlight")
    whole = tmp_path / "hub/models--me--ha/snapshots/0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(model, whole)
    (tmp_path / "hub/models--me--ha/refs").mkdir()
    (tmp_path / "hub/models--me--ha/refs/main").write_text(whole.name)
    estimate([["ina", "so"], ["ya", "zo"]], 2).write(whole / LM_FILE)
    store_weights(whole / LM_FILE, Weights(0.7, 1.5, 20))
    known = {name: Calibration(2.0, number, 100, 0.1, 0.2) for number, name in enumerate((GREEDY, WITH_LM))}
    write_calibrations(whole, known)
    code = (
        "from hausa_asr.model.recognizer import Recognizer\n"
        "for lm in (None, False):\n    hear = Recognizer('me/ha', lm=lm)\n"
        "    print(hear.calibration, getattr(hear._paths, '__self__', None) and hear._paths.__self__.weights)"
    )
    env = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.splitlines() == [f"{known[WITH_LM]} {Weights(0.7, 1.5, 20)}", f"{known[GREEDY]} None"], (
        done.stderr
    )

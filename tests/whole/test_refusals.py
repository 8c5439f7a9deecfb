"""What cannot run is refused before it starts, and what is bad in the data costs only itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.whole_sweeps import (
    environment,
    finish,
    start,
)

pytestmark = pytest.mark.timeout(600)  # longer than what its own waits add up to


def test_a_plan_starts_nothing_and_says_what_would_run(settings: Path) -> None:
    told = finish(start("--config", settings, "--plan", "--set", "name=planned"))
    assert "2 trials side by side" in told and "CPU-hours" in told
    refused = finish(start("--config", settings, "--plan", "--set", "resources.gpus_per_worker=1"), code=2)
    assert "There is no GPU" in refused and "Traceback" not in refused
    assert not (settings.parent / "runs/planned").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["search.trial=3", "finetune.lr_peak=-1", "space.mask_time_prob={low: 0, high: 3}"],
         ["3 settings", "trials?", "lr_peak", "mask_time_prob"]),
        (["resources.workers_per_trial=3"], ["workers_per_trial to 2"]),
        (["mlflow.uri=http://127.0.0.1:9"], ["127.0.0.1:9"]),
        (["data.text_column=transcript"], ["transcript", "text"]),
        (["cluster.address=127.0.0.1:9"], ["does not answer", "127.0.0.1:9"]),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_in_one_message_and_leaves_nothing(
    settings: Path, changes: list[str], words: list[str]
) -> None:
    arguments = [argument for change in changes for argument in ("--set", change)]
    output = finish(start("--config", settings, "--set", "name=refused", *arguments), code=2)
    assert all(word in output for word in words), output
    assert "Traceback" not in output
    assert not (settings.parent / "runs/refused").exists()


def test_a_long_sweep_is_measured_first_and_refused_if_its_budget_is_too_small(settings: Path) -> None:
    long = ("--set", "finetune.length_s=200000", "--set", "search.trials=90", "--set", "pruning.rule=none")
    budget = ("--set", "budget.wall_s=90", "--set", "name=long")
    guessed = finish(start("--config", settings, "--plan", *long, *budget))
    assert "a guess" in guessed and "is expected to end the search" in guessed, "a guess refuses nothing"
    output = finish(start("--config", settings, *long, *budget), code=2)
    assert "measuring a trial's speed" in output and "Traceback" not in output
    assert "but budget.wall_s allows 1:30 of wall clock" in output
    assert not (settings.parent / "runs/long").exists()


def test_another_kind_of_model_is_refused(settings: Path, tmp_path: Path) -> None:
    from transformers import BertConfig

    BertConfig().save_pretrained(tmp_path / "bert")
    output = finish(start("--config", settings, "--set", f"model.base={tmp_path / 'bert'}"), code=2)
    assert "'bert'" in output
    assert "wav2vec 2.0" in output


def test_audio_that_cannot_be_used_costs_only_itself(settings: Path, audio: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in audio.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "train-1.wav").write_bytes(b"this is no audio")
    (broken / "train-2.wav").write_bytes(b"")
    soundfile.write(broken / "train-3.wav", np.zeros(16_000), 16_000)
    (broken / "train-4.wav").unlink()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hausa-asr")), "prepare", "--corpus", "folder", "--path", str(broken),
         "--allow-overlap", "sentence", "--out", str(tmp_path / "prepared"), "--json"],
        capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused = [json.loads(line) for line in (tmp_path / "prepared/refused.jsonl").read_text().splitlines()]
    assert {Path(r["audio"]).name: r["reason"] for r in refused} == {
        "train-1.wav": "unreadable", "train-2.wav": "empty", "train-3.wav": "silent", "train-4.wav": "missing",
    }  # fmt: skip

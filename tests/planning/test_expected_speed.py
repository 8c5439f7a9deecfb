"""How fast a trial is expected to be: by the settings, by earlier sweeps, else by a guess from model and GPU."""

from __future__ import annotations

from pathlib import Path

import pynvml
import pytest

from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import ClusterSettings, SweepConfig
from helpers.plans import CONFIGS, an_earlier_sweep, planned
from sweeps.planning.admission import refusals
from sweeps.planning.estimate import Prediction
from sweeps.planning.slots import gpu_kinds, local_nodes
from sweeps.planning.speed import measured, speed_of


def test_speed_is_the_settings_then_the_measured_then_a_guess(tmp_path: Path) -> None:
    config = load(CONFIGS / "demo.yaml", [], environment={})
    guess = speed_of(config, tmp_path)
    assert guess and guess.guessed and "guess" in guess.source
    assert 70 < guess.audio_s_per_s < 130  # the demo trains at about 100 (docs/log.md)
    an_earlier_sweep(tmp_path, "other-base", 3.0, "model.base=/else/where")
    an_earlier_sweep(tmp_path, "other-workers", 5.0, "resources.workers_per_trial=2")
    damaged = an_earlier_sweep(tmp_path, "damaged", 7.0)
    damaged.path.write_text("no JSON\n" + damaged.path.read_text())
    again = speed_of(config, tmp_path)
    assert again == guess
    an_earlier_sweep(tmp_path, "like-this", 120.0)
    measured = speed_of(config, tmp_path)
    assert measured and not measured.guessed
    assert measured.audio_s_per_s == pytest.approx(120)
    assert "3 trials of like-this" in measured.source
    set_ = load(CONFIGS / "demo.yaml", ["resources.audio_s_per_s=77"], environment={})
    said = speed_of(set_, tmp_path)
    assert said and said.audio_s_per_s == 77


def test_a_sweep_on_other_cards_or_with_other_work_is_no_measurement(tmp_path: Path) -> None:
    """With an old T4's pace eight H100s were refused that would have taken a twentieth of it."""

    def plan(*changes: str) -> tuple[SweepConfig, Prediction]:
        nodes = "cluster.nodes=[{CPU: 32, GPU: 8, 'accelerator_type:H100': 1}]"
        return planned("xlsr_300m", tmp_path, nodes, "budget.hours=10", *changes)[:2]

    guess = plan()[1].speed
    assert guess and guess.guessed
    an_earlier_sweep(tmp_path, "old-card", 30.0, preset="xlsr_300m", gpus="T4")
    an_earlier_sweep(tmp_path, "unknown-card", 30.0, preset="xlsr_300m")
    both = an_earlier_sweep(tmp_path, "moved", 30.0, preset="xlsr_300m", gpus="T4")
    both.append("opened", slots=8, gpus=["H100"])  # which of its trials had which is not known
    for number, change in enumerate(("adapter_dim=16", "dev_part_s=0", "batch_s=16")):
        an_earlier_sweep(tmp_path, f"other-{number}", 30.0, f"finetune.{change}", preset="xlsr_300m", gpus="H100")
    config, prediction = plan()
    assert prediction.speed == guess and not refusals(config, prediction)

    an_earlier_sweep(tmp_path, "this-card", 30.0, preset="xlsr_300m", gpus="H100")
    config, prediction = plan()
    assert prediction.speed and "3 trials of this-card" in prediction.speed.source and not prediction.speed.guessed
    assert "budget.hours allows 10" in refusals(config, prediction)[0].reason
    unknown = speed_of(config, tmp_path)
    assert unknown and unknown.guessed, "which cards there will be"


def test_the_guess_for_a_gpu_is_the_published_figure(tmp_path: Path) -> None:
    """About 190 hours of audio per GPU-hour: SpeechBrain on an A100, a model of XLS-R 300M's size."""
    config = load(CONFIGS / "xlsr_300m.yaml", ["finetune.dev_part_s=0"], environment={})
    speed = speed_of(config, tmp_path)
    assert speed and 150 < speed.audio_s_per_s < 200
    long_dev = speed_of(config, tmp_path, {"dev": 120 * 100 * 3.0})  # scoring it takes as long as training between
    assert long_dev and long_dev.audio_s_per_s == pytest.approx(speed.audio_s_per_s * 1.1 / 2)


@pytest.mark.parametrize(
    ("gpu", "at_least", "at_most"),
    [("H200", 1300, 1700), ("NVIDIA H100 80GB HBM3", 1300, 1700), ("A100-80G", 300, 700), ("T4", 20, 60)],
)
def test_the_guess_knows_the_gpu(tmp_path: Path, gpu: str, at_least: float, at_most: float) -> None:
    """1,629 audio-seconds a second were measured on an H200."""
    node = f"cluster.nodes=[{{CPU: 32, GPU: 8, 'accelerator_type:{gpu}': 1}}]"
    _, prediction, text = planned("xlsr_300m", tmp_path, node, "finetune.dev_part_s=0", seconds={"dev": 1.0})
    assert prediction.speed and at_least < prediction.speed.audio_s_per_s < at_most
    assert f"({gpu})" in text


def test_of_several_gpus_the_slowest_is_planned_for(tmp_path: Path) -> None:
    nodes = "cluster.nodes=[{CPU: 8, GPU: 1, 'accelerator_type:H100': 1}, {CPU: 8, GPU: 1, 'accelerator_type:L4': 1}]"
    assert "(L4)" in planned("xlsr_300m", tmp_path, nodes)[2]


def test_the_gpus_of_this_machine_are_read_from_the_driver(tmp_path: Path) -> None:
    for number in ("0000:07:00.0", "0000:0f:00.0"):
        (tmp_path / number).mkdir()
        (tmp_path / number / "information").write_text("Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ:   \t\t 16\n")
    assert gpu_kinds(tmp_path) == {"NVIDIA A100-SXM4-40GB"}


def test_where_the_drivers_files_are_hidden_nvml_has_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under gVisor and WSL2. Ray, which asks NVML, would have counted them, and the plan refused the sweep."""
    monkeypatch.setattr("sweeps.planning.slots._DRIVER", tmp_path / "none")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    names = ["NVIDIA H100 80GB HBM3"] * 8
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(names))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda number: number)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda handle: names[handle])
    [node] = local_nodes(ClusterSettings())
    assert node["GPU"] == 8 and node["accelerator_type:NVIDIA H100 80GB HBM3"] == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert local_nodes(ClusterSettings())[0]["GPU"] == 2
    for fault in (pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED), OSError("no such library")):

        def fails(error: Exception = fault) -> None:
            raise error

        monkeypatch.setattr(pynvml, "nvmlInit", fails)
        assert local_nodes(ClusterSettings())[0]["GPU"] == 0


def test_a_measured_speed_counts_the_evaluations_and_the_workers() -> None:
    config = load(CONFIGS / "xlsr_300m.yaml", ["finetune.dev_part_s=3600"], environment={})
    between_s = 120 * 100  # of batches of 70, 140 and 280 s as many, so evaluations are as with 120
    seconds = {"dev": 7200.0, "test": 3600.0}
    alone = measured(config, training=100.0, scoring=1000.0, seconds=seconds)
    assert between_s / alone.audio_s_per_s == pytest.approx(between_s / 100 + 3.6), "an hour of dev is scored"
    assert not alone.guessed and "measured" in alone.source
    assert alone.scoring_s == pytest.approx(10.8), "the last models are scored on all of dev and test"
    two = load(
        CONFIGS / "xlsr_300m.yaml", ["finetune.dev_part_s=3600", "resources.workers_per_trial=2"], environment={}
    )
    assert 1.6 < measured(two, 100.0, 1000.0, seconds).audio_s_per_s / alone.audio_s_per_s < 1.8


def test_a_speed_that_is_known_says_how_long_scoring_takes_by_the_share_of_the_forward_pass(tmp_path: Path) -> None:
    seconds = {"train": 1e6, "dev": 7200.0, "test": 3600.0}
    for workers, times in ((1, 1.0), (2, 1.7)):  # a model is scored by one worker
        changes = ["resources.audio_s_per_s=300", f"resources.workers_per_trial={workers}"]
        speed = speed_of(load(CONFIGS / "xlsr_300m.yaml", changes, environment={}), tmp_path, seconds)
        assert speed and speed.scoring_s == pytest.approx(10_800 / (300 / times * 3))
    guess = speed_of(load(CONFIGS / "xlsr_300m.yaml", ["finetune.eval_every_steps=1000000"], {}), tmp_path, seconds)
    assert guess and guess.scoring_s == pytest.approx(10_800 / (guess.audio_s_per_s * 3), rel=0.01)
    assert speed_of(load(CONFIGS / "xlsr_300m.yaml", [], environment={}), tmp_path).scoring_s == 0.0  # type: ignore[union-attr]


def test_of_a_range_the_trials_count_that_had_as_many_workers(tmp_path: Path) -> None:
    config = load(CONFIGS / "demo.yaml", ["resources.workers_per_trial={min: 1, max: 4}"], environment={})
    an_earlier_sweep(tmp_path, "two", 50.0, "resources.workers_per_trial=2")
    an_earlier_sweep(tmp_path, "three", 70.0, "resources.workers_per_trial={min: 1, max: 8}", workers=3)
    guess, two, three = (speed_of(config, tmp_path, workers=number) for number in (4, 2, 3))
    assert guess and guess.guessed and guess.workers == 4, "nothing is known of four"
    assert two and two.audio_s_per_s == pytest.approx(50) and two.workers == 2
    assert three and three.audio_s_per_s == pytest.approx(70)

"""Speech of some size, lengths only: what its plan says, against the updates and evaluations that a trial would make.

`pytest -n0 -s tests/planning/test_large_corpus.py` prints the plan whose figures are in docs/results.md.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hausa_asr.ctc import frames
from hausa_asr.dataset.parts import dev_part
from hausa_asr.settings.load import load
from hausa_asr.training.updates import UpdatePlan, evaluations
from hausa_asr.utterance import SAMPLE_RATE, Example
from helpers.plans import CONFIGS, HOURS_500, planned
from sweeps.planning.epochs import evaluation_interval_s
from sweeps.planning.speed import values
from sweeps.pruning.rungs import rungs_s

H100S = "cluster.nodes=[{CPU: 32, GPU: 8, memory: 1.0e12, 'accelerator_type:H100': 1}]"
MOST = {"mms_1b": 0.12}
"""Of a slot's time may go into scoring, with the smallest batch of the space; 0.15 with the other presets."""


class Lengths:
    """A split without any audio: clips of 2 to 15 s of 200 speakers."""

    def __init__(self, hours: float, seed: int) -> None:
        drawn = np.random.default_rng(seed).uniform(2, 15, int(hours * 3600 / 8.5))
        self.n_samples = np.round(drawn / drawn.sum() * hours * 3600 * SAMPLE_RATE).astype(np.int64)

    def __len__(self) -> int:
        return len(self.n_samples)

    def __getitem__(self, index: int) -> Example:
        raise AssertionError("there is no audio")

    def without_samples(self, index: int) -> Example:
        return Example(str(index), np.zeros(0, np.float32), np.zeros(0, np.int64), "", f"speaker {index % 200}")


@cache
def splits_of(hours: float) -> dict[str, Lengths]:
    return {"train": Lengths(0.9 * hours, 0), "dev": Lengths(0.1 * hours, 1)}


def share_of_scoring(preset: str, hours: float, storage: Path, *changes: str) -> float:
    """Check a plan against a trial's updates and evaluations, by one size of batch; the time that scoring takes."""
    splits = splits_of(hours)
    seconds = {name: float(split.n_samples.sum()) / SAMPLE_RATE for name, split in splits.items()}
    config = load(CONFIGS / f"{preset}.yaml", [*changes], environment={})
    recipe, part = config.recipe(), dev_part(splits["dev"], config.recipe().dev_part_s)
    plan = UpdatePlan(splits["train"].n_samples, recipe.batch_s, recipe.length_s, recipe.seed)
    due = evaluations(plan, recipe.eval_every_steps, rungs_s(config))
    per_trained_s = len(due) * float(part.n_samples.sum()) / SAMPLE_RATE / plan.seen_s[-1]

    _, prediction, _ = planned(preset, storage, H100S, *changes, seconds=seconds)
    _, without, _ = planned(preset, storage, H100S, *changes, seconds={**seconds, "dev": 0.0})
    assert prediction.speed and without.speed
    # Scoring is the forward pass: of an update's work a third, and where adapters alone learn a half.
    forward = 1 / 2 if recipe.adapter_dim else 1 / 3
    predicted = (without.speed.audio_s_per_s / prediction.speed.audio_s_per_s - 1) / forward
    assert per_trained_s == pytest.approx(predicted, rel=0.12)

    cached = np.concatenate([splits["train"].n_samples, part.n_samples])
    channels = 512
    assert prediction.features == pytest.approx(sum(map(frames, cached.tolist())) * channels * 2, rel=0.01)
    return per_trained_s * forward / (1 + per_trained_s * forward)


@pytest.mark.parametrize(("part_s", "share"), [(0.0, 0.81), (3600.0, 0.08)])
def test_a_trial_scores_and_caches_as_much_as_its_plan_says(tmp_path: Path, part_s: float, share: float) -> None:
    scored, of_140_s = f"finetune.dev_part_s={part_s}", "space.batch_s={choices: [140]}"
    assert share_of_scoring("xlsr_300m", 500, tmp_path, scored, of_140_s) == pytest.approx(share, abs=0.01)
    print("", planned("xlsr_300m", tmp_path, H100S, scored, seconds=HOURS_500)[2], sep="\n")


@pytest.mark.parametrize("hours", [5, 50, 500])
@pytest.mark.parametrize("preset", sorted(file.stem for file in CONFIGS.glob("*.yaml") if file.stem != "demo"))
def test_scoring_takes_a_small_share_of_a_presets_trials(preset: str, hours: float, tmp_path: Path) -> None:
    """The demo is left out: its own corpus has some six minutes of dev."""
    smallest = min(values(load(CONFIGS / f"{preset}.yaml", [], environment={}), "batch_s"))
    changes = f"finetune.batch_s={smallest}", f"space.batch_s={{choices: [{smallest}]}}"
    assert share_of_scoring(preset, hours, tmp_path, *changes) < MOST.get(preset, 0.15)


@pytest.mark.parametrize(
    ("space", "interval_s"),
    [
        ("{choices: [70, 140, 280]}", 12_000.0),
        ("{choices: [140]}", 14_000.0),
        ("{low: 70, high: 280}", 15_148.0),
        ("{low: 70, high: 280, log: true}", 12_939.0),
    ],
)
def test_evaluations_are_counted_at_the_mean_of_the_spaces_batches(space: str, interval_s: float) -> None:
    config = load(CONFIGS / "xlsr_300m.yaml", [f"space.batch_s={space}"], environment={})
    assert evaluation_interval_s(config) == pytest.approx(interval_s, rel=1e-4)
    if "low" in space:
        places = np.random.default_rng(0).random(200_000)
        drawn = 70 * 4**places if "log" in space else 70 + 210 * places
        assert 100 / float(np.mean(1 / drawn)) == pytest.approx(interval_s, rel=0.01)


def test_without_a_search_for_the_batch_evaluations_are_counted_at_the_fixed_one() -> None:
    assert evaluation_interval_s(load(CONFIGS / "demo.yaml", [], environment={})) == 140 * 16

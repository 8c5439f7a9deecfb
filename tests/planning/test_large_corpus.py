"""500 hours of speech, lengths only: what its plan says, against the updates and evaluations that a trial would make.

`pytest -n0 -s tests/planning/test_large_corpus.py` prints the plan, whose figures are in docs/results.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hausa_asr.ctc import frames
from hausa_asr.dataset.parts import dev_part
from hausa_asr.settings.load import load
from hausa_asr.training.finetune import evaluations
from hausa_asr.training.updates import UpdatePlan
from hausa_asr.utterance import SAMPLE_RATE, Example
from helpers.plans import CONFIGS, planned
from sweeps.pruning.rungs import rungs_s

H100S = "cluster.nodes=[{CPU: 32, GPU: 8, memory: 1.0e12, 'accelerator_type:H100': 1}]"


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


@pytest.fixture(scope="module")
def splits() -> dict[str, Lengths]:
    return {"train": Lengths(450, 0), "dev": Lengths(50, 1)}


@pytest.mark.parametrize(("part_s", "share"), [(0.0, 0.81), (3600.0, 0.08)])
def test_a_trial_scores_and_caches_as_much_as_its_plan_says(
    splits: dict[str, Lengths], tmp_path: Path, part_s: float, share: float
) -> None:
    seconds = {name: float(split.n_samples.sum()) / SAMPLE_RATE for name, split in splits.items()}
    change = f"finetune.dev_part_s={part_s}"
    config = load(CONFIGS / "xlsr_300m.yaml", [change], environment={})
    recipe, part = config.recipe(), dev_part(splits["dev"], part_s)
    plan = UpdatePlan(splits["train"].n_samples, recipe.batch_s, recipe.length_s, recipe.seed)
    due = evaluations(plan, recipe.eval_every_steps, rungs_s(config))
    per_trained_s = len(due) * float(part.n_samples.sum()) / SAMPLE_RATE / plan.seen_s[-1]

    _, prediction, text = planned("xlsr_300m", tmp_path, H100S, change, seconds=seconds)
    _, without, _ = planned("xlsr_300m", tmp_path, H100S, change, seconds={**seconds, "dev": 0.0})
    assert prediction.speed and without.speed
    # Scoring is the forward pass, a third of an update's work.
    predicted = 3 * (without.speed.audio_s_per_s / prediction.speed.audio_s_per_s - 1)
    assert per_trained_s == pytest.approx(predicted, rel=0.1)
    assert (per_trained_s / 3) / (1 + per_trained_s / 3) == pytest.approx(share, abs=0.01)

    cached = np.concatenate([splits["train"].n_samples, part.n_samples])
    assert prediction.features == pytest.approx(sum(map(frames, cached.tolist())) * 512 * 2, rel=0.01)
    print(f"\n{text}")

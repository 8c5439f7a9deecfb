"""Simulated sweeps: a model that is true to its table, and contestants that are compared on the same seed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

MODEL = """
import numpy as np
from modelled_world import ModelledWorld
from scipy.stats import spearmanr
from simulated_sweeps import DEMO
from sweeps.replay.curves import read
curves = Path("benchmarks/curves/few.jsonl")
found = {}
for kind in ("trees", "process"):
    world = ModelledWorld(curves, DEMO, kind)
    recorded = [seeds[0] for seeds in read(curves)]
    ends = [world.curve(one.settings)[1, -1] for one in recorded]
    again = [world.curve(recorded[0].settings, np.random.default_rng(seed))[1, -1] for seed in range(20)]
    known = [min(point.wer for point in one.points) for one in recorded]
    found[kind] = [spearmanr(ends, known).statistic, float(np.std(again)), float(min(ends)), float(max(ends))]
print(json.dumps(found))
"""


def run(code: str) -> Any:
    lines = f"import sys, json\nsys.path.insert(0, {str(BENCHMARKS)!r})\nfrom pathlib import Path\nimport bench\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, timeout=240, cwd=BENCHMARKS.parent
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_ranks_the_settings_of_its_table_as_they_were_recorded_and_has_noise() -> None:
    for correlation, noise, low, high in run(MODEL).values():
        assert correlation > 0.8
        assert 0 < noise < 0.5 * (high - low), "runs of one setting differ, but less than settings do"


def test_contestants_are_compared_with_stock_on_the_same_seed_and_come_out_the_same_again(tmp_path: Path) -> None:
    found = []
    for name in ("a.json", "b.json"):
        command = [sys.executable, BENCHMARKS / "simulated_sweeps.py", "--table", "few", "--seeds", "2"]
        more = ["--ours", "pruning.first_rung=0.9", "--json", tmp_path / name]
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        found.append(json.loads((tmp_path / name).read_text()))
    assert found[0] == found[1]
    stock, ours, late = (found[0][name] for name in ("stock", "ours", "ours:pruning.first_rung=0.9"))
    assert stock["time"] == 1.0 and stock["end"] == 0.0 and stock["over_time"] == 0.0
    assert ours["begun"] > late["begun"] > 20, (
        "two workers train 26 lengths; what is stopped early leaves room for more"
    )

"""The check of a GPU runs whole with tiny models on a CPU: no GPU is needed to find that it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"


def test_all_of_it_runs_small_but_the_compiler(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), "--small", "--without", "compile", "--json", str(figures)]
    done = subprocess.run(
        [*command, "--seconds", "500"], capture_output=True, text=True, timeout=520,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text(encoding="utf-8"))
    steps = {f"step: {name}" for name in ("Trainer", "ours", "ours, without the feature cache")}
    assert set(found) == {"rate", "bases", *steps, "small models", "resume", "precision"}
    assert not [(name, one["fault"]) for name, one in found.items() if "fault" in one]
    assert all(found[name]["audio_s_per_s"] > 0 for name in steps)
    assert found["small models"]["workers"] == {"asked": 2, "ready": 2}
    assert found["small models"]["cpu, 2 at once"]["answered"] == 2
    assert found["resume"]["same_report"] is True
    assert (found["resume"]["to the pause"]["end"], found["resume"]["resumed"]["end"]) == ("paused", "finished")
    assert "same_report: True" in done.stdout  # the table
    assert not list(tmp_path.glob("gpu-check-*"))

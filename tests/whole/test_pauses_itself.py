"""A sweep in which every trial crashes pauses itself, and `watch` says why and how to resume."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.whole_sweeps import ONE_SLOT, environment, finish, ledger_of, start, wait_for
from sweeps.record.ledger import read_state
from sweeps.watch_command import EXIT_LEFT

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]


def test_a_sweep_that_pauses_itself_says_so_to_those_who_watch(
    settings: Path, tmp_path: Path, layer_norm_base: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(layer_norm_base, base)
    driver = start("--config", settings, *ONE_SLOT, "--set", f"model.base={base}", "--set", "name=broken",
                   "--set", "cluster.crashes_in_a_row=3", "--set", "finetune.length_s=1200")  # fmt: skip
    sweep = tmp_path / "runs/broken"
    wait_for(lambda: any(event["event"] == "reported" for event in ledger_of(sweep)), driver)
    (base / "model.safetensors").unlink()  # the next trials can't be begun
    watching = subprocess.Popen(
        [sys.executable, "-m", "hausa_asr.cli", "watch", str(sweep)], stdout=subprocess.PIPE, text=True,
        env=environment(),
    )  # fmt: skip
    try:
        output = finish(driver, code=1)
        assert "The sweep has paused itself: trials broke 3 times in a row" in output
        left = read_state(sweep).left
        assert left is not None and left.how == "paused itself" and "cannot be loaded" in left.why
        assert watching.stdout is not None
        said = next(line for line in watching.stdout if "has paused itself" in line)
        assert "cannot be loaded" in said and said.endswith(f"python sweeps/run.py --resume {sweep}\n")
        assert watching.wait(timeout=60) == EXIT_LEFT
    finally:
        watching.kill()
    shutil.copy(layer_norm_base / "model.safetensors", base)
    finish(start("--resume", sweep, *ONE_SLOT))
    assert read_state(sweep).left is None

"""The end of SkyPilot's `setup`: a machine whose GPUs torch can't use is not paid for. The installation is left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).parents[2]
SETUP = yaml.safe_load((ROOT / "cluster/skypilot/sweep.yaml").read_text(encoding="utf-8"))["setup"]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A home with what `setup` calls: uv and pip install nothing, Python is ours, the driver is an old one."""
    programs = {
        "bin/uv": "exit 0", "venv/bin/pip": "exit 0", "bin/nvidia-smi": "echo 535.216.01",
        "venv/bin/python": f'exec "{sys.executable}" "$@"',
    }  # fmt: skip
    for name, text in programs.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run(machine: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", SETUP], capture_output=True, text=True, timeout=120, cwd=ROOT,
        env={"HOME": str(machine), "PATH": f"{machine}/bin:/usr/bin:/bin", **more},
    )  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine on which torch sees no GPU")
def test_gpus_that_torch_does_not_see_end_the_setup(machine: Path) -> None:
    done = run(machine, SKYPILOT_SETUP_NUM_GPUS_PER_NODE="4")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("torch sees no GPU") and "535.216.01" in line


def test_a_machine_without_gpus_is_not_asked_for_any(machine: Path) -> None:
    for more in ({"SKYPILOT_SETUP_NUM_GPUS_PER_NODE": "0"}, {}):
        assert not run(machine, **more).returncode


def test_gpus_that_torch_sees_pass(machine: Path) -> None:
    (machine / "torch.py").write_text("class cuda:\n    is_available = staticmethod(lambda: True)\n")
    done = run(machine, SKYPILOT_SETUP_NUM_GPUS_PER_NODE="4", PYTHONPATH=str(machine))
    assert not done.returncode, done.stderr

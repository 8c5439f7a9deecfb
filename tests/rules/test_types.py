"""Types are right wherever mypy looks: here, as it takes a minute where nothing is cached, and so has company."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers.whole_sweeps import ROOT


@pytest.mark.slow
def test_mypy_finds_nothing() -> None:
    found = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr

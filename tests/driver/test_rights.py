"""A storage where this user may not write is refused with one message, before anything is waited for."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.plans import CONFIGS
from helpers.whole_sweeps import ROOT

_AS_NOBODY = """
import os, sys
from pathlib import Path
from hausa_asr.errors import UserError
from sweeps.driver.sweep_folder import only_driver
from sweeps.run import app

if os.geteuid() == 0:
    os.setuid(65534)
try:
    only_driver(Path(sys.argv[2]) / "theirs")
except UserError as fault:
    print(fault.what)
app(["--config", sys.argv[1], "--set", f"storage={sys.argv[2]}"])
"""


@pytest.fixture
def closed() -> Iterator[Path]:
    """A storage that all may read, with a sweep of somebody else's."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    (folder / "theirs").mkdir()
    for one in (folder / "theirs", folder):
        one.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_storage_without_rights_is_refused_at_once(closed: Path) -> None:
    asked = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, str(CONFIGS / "demo.yaml"), str(closed)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert asked.returncode == 2, asked.stderr
    assert "The sweep's folder can't be written: Permission denied." in asked.stdout
    assert "you may not write there" in asked.stderr and str(closed) in asked.stderr
    assert "Traceback" not in asked.stderr and "Ray" not in asked.stdout

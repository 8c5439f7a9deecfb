"""A storage where this user may not write is refused with one message, before anything is waited for."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.whole_sweeps import ROOT

_AS_NOBODY = """
import os, sys
from pathlib import Path
from hausa_asr.errors import UserError
from sweeps.driver.sweep_folder import only_driver, refuse_closed

if os.geteuid() == 0:
    os.setuid(65534)
for refuse in (refuse_closed, only_driver):
    try:
        refuse(Path(sys.argv[1]) / ("new" if refuse is refuse_closed else "theirs"))
    except UserError as fault:
        print(fault)
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
        [sys.executable, "-c", _AS_NOBODY, str(closed)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert asked.returncode == 0, asked.stderr
    assert "you may not write there" in asked.stdout and f"where: {closed}\n" in asked.stdout
    assert "The sweep's folder can't be written: Permission denied." in asked.stdout

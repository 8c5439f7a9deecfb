"""The folder of a local Ray: what a dead driver left goes, and what one in another container holds stays."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sweeps.on_ray.local_ray import temp_folder


def test_a_folder_goes_with_its_driver_unless_one_holds_it_that_is_not_seen_from_here() -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = Path(tempfile.mkdtemp(prefix=f"hausa-asr-ray-{ended.stdout.strip()}-", dir="/tmp"))
    made: list[Path] = []
    try:
        with (left / ".driver").open("w") as held:  # as a driver in another container, which shares /tmp
            fcntl.flock(held, fcntl.LOCK_SH)
            made.append(temp_folder())
            assert left.is_dir(), "another container's Ray was taken for a dead one's"
        made.append(temp_folder())
        assert not left.exists()
        assert all(folder.is_dir() and f"-{os.getpid()}-" in folder.name for folder in made)
    finally:
        for folder in (left, *made):
            shutil.rmtree(folder, ignore_errors=True)

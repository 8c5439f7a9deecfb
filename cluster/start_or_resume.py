"""Start a sweep, or resume it if its folder is there: what a machine that may vanish runs each time it comes back.

    HAUSA_ASR_STORAGE=/shared/runs python cluster/start_or_resume.py NAME --config my_sweep.yaml

In: the sweep's name, its settings and further options of `sweeps/run.py`; the storage, a path or an address such as
s3://bucket/runs, from the environment. `--wait-for-config-s 180` waits for settings that arrive later, as a changed
ConfigMap does. Out: nothing; this process becomes `sweeps/run.py`, so signals reach that. Called by the Slurm,
SkyPilot and Kubernetes templates.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

RUN = Path(__file__).resolve().parent.parent / "sweeps" / "run.py"
STORAGE = "HAUSA_ASR_STORAGE"
USAGE = f"{STORAGE}=/shared/runs python cluster/start_or_resume.py NAME --config my_sweep.yaml"


def command(arguments: list[str], storage: str) -> list[str]:
    """The call of `sweeps/run.py` that starts the sweep or resumes it.

    Args:
        arguments: the sweep's name, `--config FILE`, and what else goes to `sweeps/run.py`.
        storage: the folder of all sweeps, a path or an address.
    """
    parser = argparse.ArgumentParser(usage=USAGE, allow_abbrev=False)
    parser.add_argument("name")
    parser.add_argument("--config", required=True)
    parser.add_argument("--wait-for-config-s", type=float, default=0.0)
    given, rest = parser.parse_known_args(arguments)
    if not storage:
        parser.error(f"{STORAGE} is not set")
    import fsspec

    files, folder = fsspec.core.url_to_fs(storage)
    if files.exists(f"{folder.rstrip('/')}/{given.name}/sweep.yaml"):
        return [str(RUN), "--resume", given.name, *rest]  # it has its settings; given again, they would be refused
    deadline = time.monotonic() + given.wait_for_config_s
    if time.monotonic() < deadline and not Path(given.config).exists():
        print(f"Waiting up to {given.wait_for_config_s:.0f} s for {given.config}.", flush=True)
    while time.monotonic() < deadline and not Path(given.config).exists():
        time.sleep(1)
    return [str(RUN), "--config", given.config, *rest, "--set", f"name={given.name}"]


def main() -> None:
    call = command(sys.argv[1:], os.environ.get(STORAGE, ""))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored by what a shell runs in the background
    os.execv(sys.executable, [sys.executable, *call])


if __name__ == "__main__":
    main()

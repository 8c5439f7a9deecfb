"""Start a sweep, or resume it if its folder is there: what a machine that may vanish runs each time it comes back.

    HAUSA_ASR_STORAGE=/shared/runs python cluster/start_or_resume.py NAME --config my_sweep.yaml

In: the sweep's name, its settings and further options of `sweeps/run.py`; the storage, a path or an address such as
s3://bucket/runs, from the environment. Out: nothing; this process becomes `sweeps/run.py`, so signals reach that.
Called by the Slurm, SkyPilot and Kubernetes templates.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

RUN = Path(__file__).resolve().parent.parent / "sweeps" / "run.py"
STORAGE = "HAUSA_ASR_STORAGE"
USAGE = f"usage: {STORAGE}=/shared/runs python cluster/start_or_resume.py NAME --config my_sweep.yaml"


def command(arguments: list[str], storage: str) -> list[str]:
    """The call of `sweeps/run.py` that starts the sweep or resumes it.

    Args:
        arguments: the sweep's name, `--config FILE`, and what else goes to `sweeps/run.py`.
        storage: the folder of all sweeps, a path or an address.
    """
    import fsspec

    name, *rest = arguments
    files, folder = fsspec.core.url_to_fs(storage)
    if not files.exists(f"{folder.rstrip('/')}/{name}/sweep.yaml"):
        return [str(RUN), *rest, "--set", f"name={name}"]
    at = rest.index("--config")  # a sweep has its settings; given again, they would be refused
    return [str(RUN), "--resume", name, *rest[:at], *rest[at + 2 :]]


def main() -> None:
    arguments, storage = sys.argv[1:], os.environ.get(STORAGE, "")
    if not storage or len(arguments) < 3 or arguments[0].startswith("-") or "--config" not in arguments[:-1]:
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored by what a shell runs in the background
    os.execv(sys.executable, [sys.executable, *command(arguments, storage)])


if __name__ == "__main__":
    main()

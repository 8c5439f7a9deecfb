"""The folder of a local Ray, and who clears away what a driver leaves there, however it ended.

In: nothing but this machine. Out: a folder for Ray's files, its logs kept, and a shell that watches over both. Called
by `cluster`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO

log = logging.getLogger("sweeps")

_TEMP_PREFIX = "hausa-asr-ray-"
_HELD = ".driver"
_holding: list[IO[str]] = []  # open until this process ends, and with it the locks
_WARDEN = """
read -r _                            # returns when the driver is gone, however it went
for pid in $1; do
    grep -qs Agent "/proc/$pid/cmdline" && kill -9 "$pid"
done
for command in /proc/[0-9]*/cmdline; do  # what is just starting would write to the folder again
    pid=${command#/proc/}
    grep -qsF -- "=$2/" "$command" && kill -9 "${pid%/cmdline}"
done
rm -rf "$2"
"""


def temp_folder() -> Path:
    """A folder for a local Ray, named after this process; those of dead drivers are removed.

    Short and in /tmp, since Ray keeps sockets in it, whose paths may have 107 bytes.
    """
    root = Path("/tmp")
    for old in root.glob(f"{_TEMP_PREFIX}*"):
        pid = old.name.removeprefix(_TEMP_PREFIX).partition("-")[0]
        dead = pid.isdigit() and Path("/proc/self").exists() and not Path(f"/proc/{pid}").exists()
        if dead and not _is_held(old):
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_TEMP_PREFIX}{os.getpid()}-", dir=root))
    held = (folder / _HELD).open("w")
    fcntl.flock(held, fcntl.LOCK_SH)
    _holding.append(held)
    return folder


def _is_held(folder: Path) -> bool:
    """Whether its driver lives, though not among the processes that are seen from here, as in another container."""
    try:
        with (folder / _HELD).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def keep_logs(temp: Path, logs: Path) -> None:
    """Keep a local Ray's own logs beside the sweep's; none where the sweep was refused before it began."""
    if not logs.parent.is_dir():
        return
    for session in temp.glob("session_2*"):
        if session.is_symlink():
            continue
        try:
            shutil.copytree(session / "logs", logs / session.name, dirs_exist_ok=True, ignore_dangling_symlinks=True)
        except (OSError, shutil.Error) as error:
            log.warning("Ray's logs could not be kept: %s", error)


def warden_of(temp: Path) -> subprocess.Popen[bytes]:
    """A shell that outlives the driver and clears away what a killed one leaves of its Ray.

    The kernel ends Ray's servers with the driver that started them, but not the helpers of the node's manager, which
    look for the head for two minutes before they give up; and nothing removes the folder.
    """
    raylets = {entry for entry in _processes() if "raylet" in entry[2] and str(temp) in entry[2]}
    helpers = [str(pid) for pid, parent, _ in _processes() if parent in {pid for pid, _, _ in raylets}]
    return subprocess.Popen(
        ["/bin/sh", "-c", _WARDEN, "warden", " ".join(helpers), str(temp)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # an interrupt at the terminal is not for it
    )


def _processes() -> list[tuple[int, int, str]]:
    """Every process of this machine: its id, its parent's, and its command line. Empty without /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            found.append((int(entry.name), parent, (entry / "cmdline").read_text().replace("\0", " ")))
        except (OSError, ValueError):  # it has ended meanwhile
            continue
    return found

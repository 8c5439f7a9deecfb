"""The folder of a sweep, wherever its storage is: which sweeps there are, and a copy of one on this node.

In: a storage, a path or an address, and a sweep's name. Out: a folder to read. On a disk it is the sweep's own; of an
object store it is the twin of the sweep's address, brought up to date, without the checkpoints.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path

from hausa_asr.files import write_whole
from hausa_asr.storage import objects
from hausa_asr.storage.address import here, is_remote, join
from hausa_asr.storage.folders import MANIFEST, fetch_file
from hausa_asr.storage.lease import is_held
from sweeps.record.ledger_parts import PARTS_FOLDER, refresh
from sweeps.record.names import (
    EXPORT_FOLDER,
    LEDGER_FILE,
    LOCK_FILE,
    RESULT_FILE,
    SETTINGS_FILE,
    SOUP_FOLDER,
    TRIALS_FOLDER,
)

LEASE_FILE = "lease.json"
OF_OTHERS = (PARTS_FOLDER, TRIALS_FOLDER, SOUP_FOLDER, "ray", LEDGER_FILE, LEASE_FILE)
"""What in a sweep's folder is no plain file of the driver's: it is put in another way, or needed by nobody."""
_COPIED = ".copied.json"
AT_THE_END = ("logs",)
"""What is put when the driver ends, and needed by no other driver."""


def bring(storage: str, sweep: str) -> Path:
    """Bring this node's copy of a sweep's folder up to date, checkpoints left out; on a disk the folder itself.

    While a driver of this node works in it, the copy is what the store will have, and nothing is asked or changed.

    Args:
        storage: of all sweeps.
        sweep: the sweep's name; there need not be such a sweep.
    """
    place = join(storage, sweep)
    folder = here(place)
    if not is_remote(place) or is_driven(folder):
        return folder
    there = objects.listing(place, without=(*OF_OTHERS, *AT_THE_END, EXPORT_FOLDER))
    if not refresh(folder / LEDGER_FILE, place) and SETTINGS_FILE not in there:
        return folder
    copied = _copied(folder)
    for named, about in there.items():
        if named in OF_OTHERS or named.endswith(MANIFEST):
            continue
        file = folder / named
        mine = objects.entry(str(file))
        if copied.get(named) == _seen(about, mine):
            continue
        if named.endswith((".json", ".yaml")) or mine is None or mine.size != about.size:
            with suppress(FileNotFoundError):
                aside = file.with_name(f"{file.name}.{os.getpid()}.partial")
                fetch_file(join(place, named), aside)
                aside.replace(file)
                copied[named] = _seen(about, objects.entry(str(file)))
    result = folder / RESULT_FILE
    if RESULT_FILE not in there and copied.get(RESULT_FILE, [""])[1:] == _seen(None, objects.entry(str(result)))[1:]:
        result.unlink(missing_ok=True)  # the sweep had ended, and goes on with more trials
    write_whole(folder / _COPIED, json.dumps(copied))
    return folder


def _copied(folder: Path) -> dict[str, list[str]]:
    """What was copied from the store, by name: how the store listed it then, and how this disk does."""
    with suppress(OSError, ValueError):
        return dict(json.loads((folder / _COPIED).read_text(encoding="utf-8")))
    return {}


def _seen(there: objects.Entry | None, here: objects.Entry | None) -> list[str]:
    return [f"{one.size} {one.tag}" if one else "" for one in (there, here)]


def has_driver(storage: str, sweep: str) -> bool:
    """Whether a driver holds a sweep, as far as can be seen from this machine."""
    place = join(storage, sweep)
    return is_driven(here(place)) or (is_remote(place) and is_held(join(place, LEASE_FILE)))


def is_driven(folder: Path) -> bool:
    """Whether a driver of this machine is at work on a sweep."""
    try:
        with (folder / LOCK_FILE).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock was ever made, or this file system has none
        return False
    return False


def is_there(storage: str, sweep: str) -> bool:
    """Whether a storage has something under a sweep's name."""
    place = join(storage, sweep)
    if not is_remote(place):
        return here(place).exists()
    return objects.entry(join(place, SETTINGS_FILE)) is not None or bool(objects.listing(join(place, PARTS_FOLDER)))


def sweeps_in(storage: str) -> list[str]:
    """The names of the sweeps in a storage, those changed last at the end."""
    if is_remote(storage):
        found = [entry for entry in objects.listing(storage).items() if entry[0].endswith(f"/{SETTINGS_FILE}")]
        return [named.split("/")[0] for named, _ in found if named.count("/") == 1]
    files = [file for kind in (SETTINGS_FILE, LEDGER_FILE) for file in here(storage).glob(f"*/{kind}")]
    files.sort(key=lambda path: path.stat().st_mtime)
    return list(dict.fromkeys(file.parent.name for file in reversed(files)))[::-1]

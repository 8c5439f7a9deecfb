"""The folder of a sweep, wherever its storage is: which sweeps there are, and a copy of one on this node.

In: a storage, a path or an address, and a sweep's name. Out: a folder to read. On a disk it is the sweep's own; of an
object store it is the twin of the sweep's address, brought up to date, without the checkpoints.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hausa_asr.storage import objects
from hausa_asr.storage.address import here, is_remote, join
from hausa_asr.storage.folders import MANIFEST, fetch_file
from sweeps.record.ledger_parts import PARTS_FOLDER, refresh
from sweeps.record.names import EXPORT_FOLDER, LEDGER_FILE, SETTINGS_FILE, SOUP_FOLDER, TRIALS_FOLDER

LEASE_FILE = "lease.json"
OF_OTHERS = (PARTS_FOLDER, TRIALS_FOLDER, SOUP_FOLDER, "ray", LEDGER_FILE, LEASE_FILE)
"""What in a sweep's folder is no plain file of the driver's: it is put in another way, or needed by nobody."""
AT_THE_END = ("logs",)
"""What is put when the driver ends, and needed by no other driver."""


def bring(storage: str, sweep: str) -> Path:
    """Bring this node's copy of a sweep's folder up to date, checkpoints left out; on a disk the folder itself.

    Args:
        storage: of all sweeps.
        sweep: the sweep's name; there need not be such a sweep.
    """
    place = join(storage, sweep)
    folder = here(place)
    if not is_remote(place) or not objects.listing(join(place, PARTS_FOLDER)):
        return folder
    refresh(folder / LEDGER_FILE, place)
    for named, about in objects.listing(place).items():
        top = named.split("/")[0]
        if top in (*OF_OTHERS, *AT_THE_END, EXPORT_FOLDER) or named.endswith(MANIFEST):
            continue
        file = folder / named
        mine = objects.entry(str(file))
        if named.endswith((".json", ".yaml")) or mine is None or mine.size != about.size:
            with suppress(FileNotFoundError):
                fetch_file(join(place, named), file)
    return folder


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

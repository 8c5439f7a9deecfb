"""Decide where cached features are, how much room they leave to checkpoints, and which are there already.

The cache itself and the plan of a sweep ask here, so that they agree. Without torch: a plan needs none.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hausa_asr.recipe import CACHE_VARIABLE

DONE = "features.json"
"""What a cache is of, in its folder; written last."""
SPARE_BYTES = 2 * 2**30
"""Left free on a disk in any case."""
_SAME_SHARE, _SAME_S = 0.02, 30.0
"""Parts of dev that are as long up to this are the same: a part ends with a whole clip."""


class Kept(NamedTuple):
    """The features of a split that are on the disk.

    Attributes:
        base: the base checkpoint whose convolutions made them.
        fingerprint: of the prepared dataset.
        split: `train` or `dev`.
        seconds: of the speech; of dev it may be a part.
    """

    base: str
    fingerprint: str
    split: str
    seconds: float

    def has(self, wanted: Kept) -> bool:
        """Whether these are the wanted ones."""
        is_as_long = math.isclose(self.seconds, wanted.seconds, rel_tol=_SAME_SHARE, abs_tol=_SAME_S)
        return self[:3] == wanted[:3] and is_as_long


def features_folder(default: Path) -> Path:
    """The folder of all caches: the default, unless `HAUSA_ASR_CACHE` names another."""
    return Path(os.environ.get(CACHE_VARIABLE) or default)


def share_a_disk(one: Path, other: Path) -> bool:
    """Whether two folders, which need not be there yet, are on the same disk."""
    return _there(one).stat().st_dev == _there(other).stat().st_dev


def kept_free(folder: Path, checkpoints: Path, wanted: float) -> float:
    """Bytes that the cache leaves free on its disk.

    Args:
        folder: of all caches.
        checkpoints: the folder that checkpoints are written to.
        wanted: for the checkpoints, if they are written to the same disk.
    """
    return max(wanted if share_a_disk(folder, checkpoints) else 0.0, SPARE_BYTES)


def free_at(folder: Path) -> float:
    """Bytes free on the disk of a folder, which need not be there yet."""
    return float(shutil.disk_usage(_there(folder)).free)


def kept_in(folder: Path) -> Iterator[Kept]:
    """List what a folder of caches has; caches of older versions and unfinished ones are left out."""
    for file in folder.glob(f"*/{DONE}"):
        try:
            about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            yield Kept(about["base"], about["fingerprint"], about["split"], float(about["seconds"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _there(folder: Path) -> Path:
    return next(at for at in (folder.absolute(), *folder.absolute().parents) if at.is_dir())

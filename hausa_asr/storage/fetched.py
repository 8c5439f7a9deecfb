"""Fetch a folder from a store once for all processes of a node, and make room by what was not used for longest.

In: an address. Out: its twin, filled and verified. A lock file keeps the slots of a node from fetching the same thing
twice; whoever uses a folder holds its lock shared until the process ends, so it is not cleared away meanwhile. On a
disk nothing is done at all.

Below the scratch folder: `.fetched/KEY.json`, what was fetched and when it was used last; `.turn` and `.lock` beside
it, held by whoever fetches and by all who use it; and `.fetched/log.jsonl`, a line for each download with its bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from hausa_asr.errors import UserError
from hausa_asr.files import write_whole
from hausa_asr.storage import objects
from hausa_asr.storage.address import absolute, here, is_remote, portable, scratch
from hausa_asr.storage.folders import MANIFEST, Manifest, fetch, manifest, put

log = logging.getLogger("sweeps")

LIMIT_VARIABLE = "HAUSA_ASR_SCRATCH_GB"
_LIMIT_GB, _LIMIT_SHARE = 200.0, 0.7
"""What fetched folders may take of a node's disk, the less of both, unless the environment says otherwise."""
_held: dict[str, IO[str]] = {}
"""The locks of this process, by the folder's key."""


def at_hand(place: str | os.PathLike[str], *, foreign: bool = True) -> Path:
    """The path of a folder on this node: of a disk the path itself; what is in a store is fetched if it isn't here.

    Args:
        place: a path, or an address. A path that is an address's twin counts as the address.
        foreign: a folder without a manifest will do, since somebody else may have put it there.

    Raises:
        FileNotFoundError: the store has no such folder.
        UserError: what was fetched is damaged.
        StorageAway: the store does not answer.
    """
    address = absolute(portable(place))
    if not is_remote(address):
        return Path(address)
    folder = here(address)
    with _locked(address):
        found = manifest(address, foreign=foreign)
        if found is None:
            raise FileNotFoundError(f"there is no folder {address}")
        known = _record(address)
        if known.get("digest") != found.digest or not folder.is_dir():
            _download(address, found, folder)
        _note(address, found)
    return folder


def share(folder: Path) -> None:
    """Put an address's twin into the store, whole, so that other nodes find it; on a disk they do anyway."""
    address = portable(folder)
    if is_remote(address):
        kept(address, put(folder, address))


def discard(folder: Path) -> None:
    """Delete a folder here and, of an address's twin, in the store."""
    address = portable(folder)
    if is_remote(address):
        objects.delete_all(address, last=MANIFEST)
        forget(address)
    shutil.rmtree(folder, ignore_errors=True)


def kept(address: str, found: Manifest) -> None:
    """Note that an address's twin holds what was just put there, so that this node never fetches it."""
    with _locked(address):
        _note(address, found)


def release(address: str) -> None:
    """Let a folder be cleared away again, though this process goes on."""
    lock = _held.pop(_key(address), None)
    if lock is not None:
        lock.close()


def forget(address: str) -> None:
    """Delete an address's twin from this node, unless another process uses it."""
    release(address)
    _clear(_file(address, "json"))


def _download(address: str, found: Manifest, folder: Path) -> None:
    _make_room(found.size)
    began_s = time.monotonic()
    aside = folder.with_name(f".{folder.name}.fetching")
    aside.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_dir() and not aside.exists():
        os.replace(folder, aside)  # most of it may fit: a checkpoint that has lost its optimizer state, say
    aside.mkdir(exist_ok=True)
    try:
        read = fetch(address, found, aside)
    except UserError as fault:
        if not isinstance(fault, OSError):  # damaged; after an outage what is there is used by the next try
            shutil.rmtree(aside, ignore_errors=True)
        raise
    for path in [path for path in aside.rglob("*") if path.is_file()]:
        if str(path.relative_to(aside)) not in found.files:
            path.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)
    took_s = time.monotonic() - began_s
    log.info("fetched %s: %.1f MB in %.1f s", address, read / 1e6, took_s)
    line = json.dumps({"address": address, "bytes": read, "seconds": round(took_s, 3), "time": time.time()})
    with (_registry() / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _make_room(needed: int) -> None:
    """Clear away what was not used for longest, until what is to come fits below the limit."""
    limit = limit_bytes()
    records = []
    for file in _registry().glob("*.json"):
        with suppress(OSError, ValueError):
            records.append((file.stat().st_mtime, int(json.loads(file.read_text())["bytes"]), file))
    total = sum(size for _, size, _ in records) + needed
    for _, size, file in sorted(records):
        if total <= limit:
            return
        if _clear(file):
            total -= size


def limit_bytes() -> float:
    """What fetched folders may take of this node's disk."""
    if given := os.environ.get(LIMIT_VARIABLE):
        try:
            return float(given) * 1e9
        except ValueError:
            raise UserError(
                f"The variable {LIMIT_VARIABLE} is no number of GB: {given!r}.", fix="Set it to 200, say."
            ) from None
    return min(_LIMIT_GB * 1e9, _LIMIT_SHARE * shutil.disk_usage(_registry()).total)


def _clear(record: Path) -> bool:
    """Delete what a record names, unless a process uses it."""
    with record.with_suffix(".turn").open("w") as turn, record.with_suffix(".lock").open("w") as use:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        with suppress(OSError, ValueError, KeyError):
            folder = here(json.loads(record.read_text())["address"])
            shutil.rmtree(folder, ignore_errors=True)
        record.unlink(missing_ok=True)
    return True


@contextmanager
def _locked(address: str) -> Iterator[None]:
    """Look after a folder alone for the block; then hold it in use until this process ends."""
    key = _key(address)
    with _file(address, "turn").open("w") as turn:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(
                f"The file system of the scratch folder has no locks: {error.strerror}.",
                where=scratch(),
                fix="Set HAUSA_ASR_SCRATCH to a folder on a local disk.",
            ) from None
        yield
        if key not in _held:
            use = _file(address, "lock").open("w")
            fcntl.flock(use, fcntl.LOCK_SH)
            _held[key] = use


def _note(address: str, found: Manifest) -> None:
    write_whole(_file(address, "json"), json.dumps({"address": address, "digest": found.digest, "bytes": found.size}))


def _record(address: str) -> dict[str, Any]:
    try:
        return dict(json.loads(_file(address, "json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _key(address: str) -> str:
    return hashlib.blake2b(address.encode(), digest_size=10).hexdigest()


def _file(address: str, kind: str) -> Path:
    return _registry() / f"{_key(address)}.{kind}"


def _registry() -> Path:
    folder = scratch() / ".fetched"
    folder.mkdir(parents=True, exist_ok=True)
    return folder

"""Read, write, list and delete single files, on a disk or in an object store; a reader never sees half of one.

How a write is whole:

    disk            written beside its place, then renamed: the old file or the new one, also after a crash
    s3, gs, az      one PUT, or an upload in parts that is completed at its end: the old object or the new one
    memory          one assignment (for tests, within one process)
    other stores    as their fsspec driver writes; those that write in place may show half a file for a moment

`create` and `replace` write only if nobody else has: S3 by `If-None-Match` and `If-Match`, gs and memory for `create`
only. Where a store lacks them (`replace` then says so), see `lease`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from hausa_asr.files import written_whole
from hausa_asr.storage.address import filesystem, is_remote
from hausa_asr.storage.retry import code, is_conflict, patiently

_TAGS = ("ETag", "etag", "generation", "md5Hash", "content_md5", "crc32c", "LastModified", "created")
"""What stores call the thing that changes with an object's content, the surest first."""
_WITH_IF_MATCH = ("s3", "s3a")


class Entry(NamedTuple):
    """A file or an object: its size in bytes, and what changes with its content."""

    size: int
    tag: str


def read(place: str, span: tuple[int, int] | None = None) -> bytes:
    """Read a file.

    Args:
        place: of the file.
        span: the first byte that is wanted and the one after the last; by default all, which asks for the size first.

    Raises:
        FileNotFoundError: there is none.
        StorageAway: the store does not answer.
    """
    start, end = span or (None, None)
    if not is_remote(place):
        return Path(place).read_bytes()[start:end]
    system, path = filesystem(place)
    return patiently(lambda: bytes(system.cat_file(path, start=start, end=end)), place)


def write(place: str, content: bytes) -> None:
    """Write a whole file, over an older one; folders that it needs are made."""
    if not is_remote(place):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        with written_whole(Path(place), "wb") as file:
            file.write(content)
        return
    system, path = filesystem(place)
    patiently(lambda: system.pipe_file(path, content), place)


def create(place: str, content: bytes) -> bool:
    """Write a file that must not be there yet; False if it is."""
    if not is_remote(place):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(place, "xb") as file:
                file.write(content)
        except FileExistsError:
            return False
        return True
    system, path = filesystem(place)
    try:
        patiently(lambda: system.pipe_file(path, content, mode="create"), place)
    except Exception as error:
        if not is_conflict(error):
            raise
        # An answer may have been lost, and the call made again: then it is ours that is there.
        return read(place) == content
    return True


def replace(place: str, content: bytes, tag: str) -> bool | None:
    """Write a file if it still is what `entry` found; False if it is not, None if this store can't do that.

    Args:
        place: an address.
        content: the new content.
        tag: the entry's.
    """
    system, path = filesystem(place)
    if place.split("://", 1)[0].lower() not in _WITH_IF_MATCH:
        return None
    try:
        patiently(lambda: system.pipe_file(path, content, IfMatch=tag), place)
    except FileNotFoundError:
        return False
    except Exception as error:
        if code(error) == "NotImplemented":
            return None
        if not is_conflict(error):
            raise
        return read(place) == content
    return True


def entry(place: str) -> Entry | None:
    """What is at a place; None if there is no file."""
    if not is_remote(place):
        with suppress(OSError):
            status = os.stat(place)
            return Entry(status.st_size, str(status.st_mtime_ns))
        return None
    system, path = filesystem(place)

    def ask() -> Entry:
        system.invalidate_cache()
        return _entry(system.info(path))

    try:
        return patiently(ask, place)
    except FileNotFoundError:
        return None


def listing(place: str, without: Collection[str] = ()) -> dict[str, Entry]:
    """All files below a folder, by their names from there, sorted; empty if there is none.

    Args:
        place: the folder.
        without: names of folders in it that are left out, and not looked into.
    """
    if not is_remote(place):
        found = {}
        for folder, below, names in os.walk(place):
            if folder == place:
                below[:] = [name for name in below if name not in without]
            for name in names:
                file = os.path.join(folder, name)
                if (one := entry(file)) is not None:
                    found[os.path.relpath(file, place)] = one
        return dict(sorted(found.items()))
    system, path = filesystem(place)

    def ask() -> dict[str, Entry]:
        system.invalidate_cache()
        root = path.strip("/")
        if without:
            every = {}
            for about in system.ls(path, detail=True):
                if about["type"] != "directory":
                    every[about["name"]] = about
                elif str(about["name"]).strip("/") not in (root, *(f"{root}/{name}" for name in without)):
                    every |= system.find(about["name"], detail=True)
        else:
            every = system.find(path, detail=True)
        return {str(name).strip("/")[len(root) + 1 :]: _entry(about) for name, about in sorted(every.items())}

    try:
        return {name: one for name, one in patiently(ask, place).items() if name}
    except FileNotFoundError:
        return {}


def delete(places: Sequence[str]) -> None:
    """Delete files; those that are gone are no trouble."""
    remote = [place for place in places if is_remote(place)]
    for place in places:
        if not is_remote(place):
            with suppress(FileNotFoundError):
                os.unlink(place)
    for place in remote:
        system, path = filesystem(place)
        with suppress(FileNotFoundError):
            patiently(lambda system=system, path=path: system.rm_file(path), place)  # type: ignore[misc]


def delete_all(place: str, last: str = "") -> None:
    """Delete a folder and all below it; the file called `last` goes first, as it says that the rest is whole."""
    if not is_remote(place):
        shutil.rmtree(place, ignore_errors=True)
        return
    names = listing(place)
    delete([f"{place}/{name}" for name in sorted(names, key=lambda name: name.rpartition("/")[2] != last)])


def _entry(about: dict[str, object]) -> Entry:
    tag = next((str(about[key]) for key in _TAGS if about.get(key) is not None), "")
    return Entry(int(str(about.get("size") or 0)), tag)

"""Unpack an archive (tar, tar.gz, zip) into a folder: once, and complete or not there at all.

Called by the corpora that come as archives. Archives come from strangers: nothing is written outside the folder, links
and devices are left out, and an archive that would swell beyond reason is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from hausa_asr.audio import sources
from hausa_asr.errors import UserError
from hausa_asr.files import folder_written_whole

UnpackCallback = Callable[[int, int], None]
"""Called with the bytes of the archive that are done, and its size."""

_log = logging.getLogger(__name__)
_BLOCK = 1 << 20
_MAX_SWELL = 50
"""Bytes out for each byte in. Speech does not compress and tables shrink to a fifth; what does more is a bomb."""
_FREE_BYTES = 64 << 20
"""Not counted: a small archive of silence is no bomb."""
_ENDINGS = re.compile(r"\.(tar\.gz|tgz|tar|zip)$", re.IGNORECASE)


class _Hostile(Exception):
    """An archive that could do harm; the message says what it tries."""


def is_archive(place: str) -> bool:
    """Whether a path or URL has the ending of an archive."""
    return bool(_ENDINGS.search(place))


def unpacked(archive: str, cache: Path, progress: UnpackCallback | None = None) -> Path:
    """Unpack an archive below `cache`, unless that has been done before; gives the folder with its files.

    Args:
        archive: a path or URL.
        cache: the folder to write to.
        progress: called with the bytes done and all of them.

    Raises:
        UserError: there is no such archive, it is cut short or damaged or hostile, or it can't be written.
    """
    if not is_archive(archive):
        raise UserError("The file is no archive.", where=archive, fix="Give a .tar.gz, .tar or .zip file, or a folder.")
    with sources.open_file(archive):  # before the stamp, since it says why one can't be read
        identity = [archive if sources.is_url(archive) else os.path.abspath(archive), *sources.stamp(archive)]
    stem = _ENDINGS.sub("", archive.rstrip("/").rpartition("/")[2])[:80]
    folder = cache / f"{stem}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]}"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
    except OSError as error:
        raise _unwritable(cache, error) from None
    with _faults_as_user_errors(archive, folder), folder_written_whole(folder) as partial:
        _unpack(archive, partial, progress)
    return folder


@contextmanager
def _faults_as_user_errors(archive: str, folder: Path) -> Iterator[None]:
    """Turn whatever an archive or the disk raises into a `UserError`."""
    try:
        yield
    except _Hostile as error:
        fix = "Do not use it; download it again from where it is published."
        raise UserError(f"The archive is not safe: {error}.", where=archive, fix=fix) from None
    except (EOFError, tarfile.ReadError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error) as error:
        fix = "Download it again, and compare its size with the one that is published."
        raise UserError(f"The archive is cut short or damaged: {error}.", where=archive, fix=fix) from None
    except (RuntimeError, NotImplementedError, ValueError) as error:  # zip: a password, an unknown method, a bad name
        raise UserError(f"The archive can't be unpacked: {error}.", where=archive, fix="Pack it anew.") from None
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> UserError:
    fix = "Free some disk, or set storage to a folder that can be written to."
    return UserError(f"The archive can't be unpacked here: {error}.", where=folder, fix=fix)


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed unpackings left; one that is alive has touched its folder within the hour."""
    for left in folder.parent.glob(f"{folder.name}.partial-*"):
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - 3600:
                shutil.rmtree(left)


def _unpack(archive: str, folder: Path, progress: UnpackCallback | None) -> None:
    with ExitStack() as stack:
        file = stack.enter_context(sources.open_file(archive))
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        start = file.read(512)
        file.seek(0)
        limit = _FREE_BYTES + _MAX_SWELL * size

        def report(done: int) -> None:
            os.utime(folder)
            if progress is not None:
                progress(min(done, size), size)

        if start[:2] == b"PK":
            members = _zip_members(stack.enter_context(zipfile.ZipFile(file)), limit)
        elif start[:2] == b"\x1f\x8b":
            members = _tar_members(_Bounded(cast(IO[bytes], gzip.GzipFile(fileobj=file)), limit))
        elif not start:
            raise EOFError("0 bytes")
        else:
            members = _tar_members(_Bounded(file, limit))
        written = blocks = 0
        for name, content in members:
            target = folder / _safe(name)
            # No link is ever made here, so none can be written through.
            with _new(target, name) as out:
                while block := content.read(_BLOCK):
                    written += len(block)
                    if written > limit:
                        raise _Hostile(f"{size:,} bytes swell to more than {limit:,}")
                    out.write(block)
            if written // _BLOCK >= blocks:
                blocks = written // _BLOCK + 1
                report(file.tell())
        report(size)


def _new(file: Path, name: str) -> IO[bytes]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return open(file, "xb")
    except (FileExistsError, NotADirectoryError):
        raise tarfile.ReadError(f"its member {name!r} comes twice") from None


class _Bounded:
    """A stream that refuses to give more than `limit` bytes, tables of contents included."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._limit, self._given = stream, limit, 0
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size if size >= 0 else self._limit)
        self._given += len(block)
        if self._given > self._limit:
            raise _Hostile(f"it swells to more than {self._limit:,} bytes")
        self.tail = block[-512:] if len(block) >= 512 else (self.tail + block)[-512:]
        return block


def _tar_members(stream: _Bounded) -> Iterator[tuple[str, IO[bytes]]]:
    left_out = 0
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as tar:
        while (member := tar.next()) is not None:
            cast(Any, tar).members = []  # else it remembers each of a million clips
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member.name, cast(IO[bytes], content)
            elif not member.isdir():
                left_out += 1
    while rest := stream.read(_BLOCK):  # to the end, where the checksum is
        if rest.strip(b"\0"):
            raise tarfile.ReadError("a member in its middle can't be read")
    if stream.tail.strip(b"\0"):
        raise EOFError("the end mark of the tar is missing")
    if left_out:
        _log.warning("%d links and devices of the archive were left out", left_out)


def _zip_members(archive: zipfile.ZipFile, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    if sum(info.file_size for info in archive.infolist()) > limit:
        raise _Hostile(f"it swells to more than {limit:,} bytes")
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.is_dir() or kind not in (0, stat.S_IFREG):
            continue
        with archive.open(info) as content:
            yield info.filename, content


def _safe(name: str) -> PurePosixPath:
    """Make a member's name a path within the folder, or refuse it."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or re.match("[A-Za-z]:", name) or "\0" in name:
        raise _Hostile(f"its member {name!r} leads out of its folder")
    return path

"""Fetch a clip from a disk, a store or a table: `Utterance.audio` in, a path or the bytes of an audio file out.

`Utterance.audio` is one of

    /data/clips/a.mp3                        a local path
    s3://bucket/clips/a.mp3                  a URL that fsspec knows: s3, gs, memory, file, https, ...
    arrow:///data/a.arrow#audio/17           row 17 of the column "audio" of an Arrow file, as `datasets` writes it

Called by `prepare` for every clip, and by the corpora, which make the locators and read their tables through it.
Nothing is imported before a URL or a table asks for it.
"""

from __future__ import annotations

import functools
import os
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from hausa_asr.errors import UserError
from hausa_asr.storage.address import filesystem, is_url

if TYPE_CHECKING:
    import pyarrow as pa

_ARROW = "arrow://"
_IDENTITIES = ("ETag", "etag", "checksum", "md5Hash", "content_md5", "crc32c", "mtime", "LastModified", "created")
"""What stores call the thing that changes with a file's content, the surest first."""
_PAUSES_S = (0.5, 2.0)
"""Between the tries to read a clip from a store."""
_LISTABLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "hf", "r2", "oci", "oss"})


def fetch(audio: str) -> str | bytes:
    """Fetch a clip: the path of a local file, or else the bytes of the file. Thread-safe.

    Args:
        audio: as `Utterance.audio` has it.

    Raises:
        FileNotFoundError: the URL, the table or its row leads nowhere; a local path is not looked at here.
        OSError: it can't be read; a store that fails is asked three times.
        UserError: the driver for the URL is not installed.
    """
    if audio.startswith(_ARROW):
        return _cell(audio)
    if not is_url(audio):
        return audio
    system, path = filesystem(audio)
    if _is_local(system):
        return path
    for pause_s in (*_PAUSES_S, None):
        try:
            return bytes(system.cat_file(path))
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except Exception as error:  # each driver has errors of its own for a network that fails
            if pause_s is None:
                raise OSError(f"{type(error).__name__}: {error}") from error
            time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def stamp(audio: str) -> tuple[int | str, ...]:
    """Stamp a clip, so that a change is noticed without reading it: a few numbers and texts that JSON can hold.

    Local: size in bytes and time of change in ns. Remote: size, and what the store says of the content (ETag,
    checksum or time). A row of a table: the table's stamp and the row. () if there is nothing, or nothing that can
    be asked. A folder of an object store is listed once for all the clips in it, so what is changed there is seen by
    the next process.

    Raises:
        UserError: the driver for the URL is not installed.
    """
    try:
        if audio.startswith(_ARROW):
            file, column, row = parse_locator(audio)
            of_table = stamp(file)
            return (*of_table, column, row) if of_table else ()
        if not is_url(audio):
            status = os.stat(audio)
            return (status.st_size, status.st_mtime_ns)
        system, path = filesystem(audio)
        if _is_local(system):
            return stamp(path)
        if audio.split("://", 1)[0].lower() in _LISTABLE:
            _listed(audio.rpartition("/")[0])
        about = system.info(path)
        identity = next((about[key] for key in _IDENTITIES if about.get(key) is not None), "")
        return (int(about.get("size") or 0), str(identity))
    except UserError:
        raise
    except Exception:  # each driver has errors of its own; reading the clip will say what is wrong
        return ()


def locator(file: str | os.PathLike[str], column: str, row: int) -> str:
    """Name a clip in an Arrow file, for `Utterance.audio`: `arrow:///abs/file.arrow#column/row`, names percent-encoded.

    Args:
        file: the Arrow file.
        column: of bytes, of paths, or of {bytes, path} as `datasets` stores audio.
        row: in the file, from 0.
    """
    return f"{_ARROW}{quote(os.path.abspath(file))}#{quote(column, safe='')}/{row}"


class Cell(NamedTuple):
    """A clip in a table: its Arrow file, its column and its row, from 0."""

    file: str
    column: str
    row: int


def parse_locator(audio: str) -> Cell:
    """Read which cell of which Arrow file a locator names.

    Raises:
        ValueError: this is no locator.
    """
    place, mark, cell = audio.removeprefix(_ARROW).partition("#")
    column, slash, row = cell.rpartition("/")
    if not audio.startswith(_ARROW) or not mark or not slash or not row.isascii() or not row.isdecimal():
        raise ValueError(f"{audio!r} is not {_ARROW}/FILE#COLUMN/ROW")
    return Cell(unquote(place), unquote(column), int(row))


def join(folder: str, name: str) -> str:
    """Join a folder, local or a URL, and a name in it; an absolute name or a URL comes back as it is."""
    if is_url(name) or os.path.isabs(name):
        return name
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(folder, name)


def kind(place: str) -> str:
    """Look up what is at a place, local or remote: "file", "folder", or "" for nothing.

    Raises:
        UserError: the store can't be read.
    """
    if not is_url(place):
        return "file" if os.path.isfile(place) else "folder" if os.path.isdir(place) else ""
    system, path = filesystem(place)
    try:
        return {"file": "file", "directory": "folder"}.get(system.info(path)["type"], "")
    except FileNotFoundError:
        return ""
    except Exception as error:
        raise unreadable(place, error) from error


def files_in(folder: str) -> list[str]:
    """List the files in a folder, local or remote, by name and sorted; its folders are not searched.

    Raises:
        UserError: it can't be listed.
    """
    try:
        if not is_url(folder):
            return sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
        system, path = filesystem(folder)
        entries = system.ls(path, detail=True)
    except UserError:
        raise
    except Exception as error:
        raise unreadable(folder, error) from error
    return sorted(str(about["name"]).rpartition("/")[2] for about in entries if about["type"] == "file")


def table(path: str) -> pa.Table:
    """Map an Arrow file; the last 256 stay open.

    Raises:
        OSError: there is no such file, or it is not an Arrow file.
    """
    status = os.stat(path)
    try:
        return _table(path, (status.st_size, status.st_mtime_ns))
    except ValueError as error:  # pa.ArrowInvalid is one
        raise OSError(f"{path} is not an Arrow file: {error}") from error


def open_file(place: str) -> IO[bytes]:
    """Open a local file or a URL for reading bytes.

    Raises:
        UserError: there is no such file, or it can't be read.
    """
    try:
        if not is_url(place):
            return open(place, "rb")
        system, path = filesystem(place)
        return system.open(path, "rb")
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError("There is no such file.", where=place, fix="Check the path.") from None
    except Exception as error:  # each store has errors of its own for a refused key or an unknown bucket
        raise unreadable(place, error) from error


def unreadable(place: str, error: Exception) -> UserError:
    """Make the error of a file or folder that can't be read from a store or a disk."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    mend_store = "Check the address and your keys (AWS_PROFILE and the like)."
    fix = mend_store if is_url(place) else "Check that you may read it."
    return UserError(f"The file or folder can't be read: {reason}.", where=place, fix=fix)


def _is_local(system: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(system, LocalFileSystem)


@functools.lru_cache(maxsize=1024)
def _listed(folder: str) -> None:
    """Have the driver list a folder and remember it: one request for a thousand clips, rather than a thousand."""
    with suppress(Exception):  # `info` then asks for each, and says what is wrong
        system, path = filesystem(folder)
        system.ls(path, detail=True)


@functools.lru_cache(maxsize=256)
def _table(path: str, _stamp: tuple[int, int]) -> pa.Table:
    """Map an Arrow file; with its stamp, so that a new file at the same path is mapped anew."""
    import pyarrow as pa

    mapped = pa.memory_map(path)
    try:
        return pa.ipc.open_stream(mapped).read_all()  # what `datasets` writes
    except pa.ArrowInvalid:
        return pa.ipc.open_file(mapped).read_all()


def _cell(audio: str) -> str | bytes:
    try:
        path, column, row = parse_locator(audio)
    except ValueError as error:
        raise FileNotFoundError(str(error)) from None
    rows = table(path)
    if column not in rows.column_names:
        raise FileNotFoundError(f"{path} has no column {column!r}")
    if row >= len(rows):
        raise FileNotFoundError(f"{path} has {len(rows)} rows, none is {row}")
    content = rows.column(column)[row].as_py()
    if isinstance(content, dict):  # as `datasets` stores audio: the bytes, or where they are
        content = content.get("bytes") or content.get("path")
    if isinstance(content, str) and content and not content.startswith(_ARROW):
        return fetch(content)
    if not isinstance(content, bytes):
        raise FileNotFoundError(f"{path} has no audio in row {row}")
    return content

"""Put folders into an object store and fetch them, whole or not at all.

A store has no folders that could be renamed. So a folder's files are put first and its manifest last, with the size and
the digest of each; whoever reads goes by the manifest, and takes a folder without one for absent. Where somebody else
has put the files, a base checkpoint say, what the store lists stands for the manifest: sizes are compared then, and no
digests.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from hausa_asr.errors import UserError
from hausa_asr.storage import objects
from hausa_asr.storage.address import filesystem
from hausa_asr.storage.retry import patiently

MANIFEST = ".manifest.json"
_BLOCK = 1 << 20
_AT_ONCE = 8
"""Small files on their way at the same time; a large one is cut into parts by the driver itself."""


@dataclass(frozen=True)
class Manifest:
    """What a folder in a store holds.

    Attributes:
        files: each file's size in bytes and its digest, or what the store calls its content; by name.
        is_ours: it was put by `put`, so that digests can be compared.
    """

    files: Mapping[str, tuple[int, str]]
    is_ours: bool = True

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(size for size, _ in self.files.values())

    @property
    def digest(self) -> str:
        """Changes with anything in the folder."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=16).hexdigest()

    def to_json(self) -> str:
        """As the manifest's file has it."""
        return json.dumps({"files": {name: list(one) for name, one in sorted(self.files.items())}})


@dataclass
class Digests:
    """Digests of files by path, size and time of change, so that what is put again is not read again."""

    known: dict[tuple[str, int, int], str] = field(default_factory=dict)

    def of(self, file: Path) -> tuple[int, str]:
        """A file's size and digest."""
        status = file.stat()
        key = (str(file), status.st_size, status.st_mtime_ns)
        if key not in self.known:
            self.known[key] = digest(file)
        return status.st_size, self.known[key]


def digest(file: Path) -> str:
    """The digest of a file's content."""
    hashed = hashlib.blake2b(digest_size=16)
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            hashed.update(block)
    return hashed.hexdigest()


def manifest(address: str, *, foreign: bool = False) -> Manifest | None:
    """What a folder in a store holds; None if there is none, or not all of it yet.

    Args:
        address: the folder.
        foreign: somebody else may have put it, so do without a manifest.
    """
    try:
        about = json.loads(objects.read(f"{address}/{MANIFEST}"))
        return Manifest({name: (int(size), str(digest)) for name, (size, digest) in about["files"].items()})
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError) as fault:
        raise UserError(
            f"The manifest of the folder is damaged: {fault}.", where=address, fix="Delete it, and put it there again."
        ) from None
    listed = objects.listing(address) if foreign else {}
    return Manifest({name: (one.size, one.tag) for name, one in listed.items()}, is_ours=False) if listed else None


def put(folder: Path, address: str, digests: Digests | None = None) -> Manifest:
    """Put a folder into a store, with its manifest last; files that are there already are not sent again.

    Args:
        folder: must not change meanwhile.
        address: where it is to be.
        digests: those known from earlier calls; more are added.

    Raises:
        OSError: a file can't be read.
        StorageAway: the store does not answer.
    """
    digests = digests or Digests()
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    new = Manifest({name: digests.of(folder / name) for name in names if name != MANIFEST})
    old = manifest(address)
    if old is not None and old.files == new.files:
        return new
    before: Mapping[str, tuple[int, str]] = old.files if old is not None else {}
    if any(before.get(name, one) != one for name, one in new.files.items()):
        objects.delete([f"{address}/{MANIFEST}"])  # nobody may take a mixture for whole; more files make none
    sending = [name for name, one in new.files.items() if before.get(name) != one]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: put_file(folder / name, f"{address}/{name}"), sending))
    objects.write(f"{address}/{MANIFEST}", new.to_json().encode())
    objects.delete([f"{address}/{name}" for name in before if name not in new.files])
    return new


def put_file(file: Path, address: str) -> None:
    """Put one file into a store, whole or not at all."""
    system, path = filesystem(address)
    patiently(lambda: system.put_file(str(file), path), address)


def fetch(address: str, found: Manifest, folder: Path) -> int:
    """Fetch a folder from a store, and say how many bytes were read for that.

    Args:
        address: the folder.
        found: its manifest.
        folder: where its files go; those that are there already, from a try that was cut short, are kept if they fit.

    Raises:
        UserError: a file is not what the manifest says.
        StorageAway: the store does not answer.
    """
    for name in found.files:
        if os.path.isabs(name) or ".." in name.split("/"):
            raise UserError("A name in the folder leads out of it.", where=f"{address}/{name}", fix="Don't use it.")
    lacking = [name for name, about in found.files.items() if not _fits(folder / name, about, found.is_ours)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: fetch_file(f"{address}/{name}", folder / name), lacking))
    for name in lacking:
        if not _fits(folder / name, found.files[name], found.is_ours):
            raise UserError(
                "A file that was fetched is not the one that was put.",
                where=f"{address}/{name}",
                fix="Try again; if it stays so, put the folder there once more.",
            )
    return sum(found.files[name][0] for name in lacking)


def fetch_file(address: str, file: Path) -> None:
    """Fetch one file from a store."""
    file.parent.mkdir(parents=True, exist_ok=True)
    system, path = filesystem(address)
    patiently(lambda: system.get_file(path, str(file)), address)


def drop_file(address: str, name: str) -> None:
    """Delete one file of a folder in a store, which stays whole without it."""
    found = manifest(address)
    if found is None or name not in found.files:
        return
    left = Manifest({other: one for other, one in found.files.items() if other != name})
    objects.write(f"{address}/{MANIFEST}", left.to_json().encode())
    objects.delete([f"{address}/{name}"])


def _fits(file: Path, about: tuple[int, str], by_digest: bool) -> bool:
    try:
        return file.stat().st_size == about[0] and (not by_digest or digest(file) == about[1])
    except OSError:
        return False

"""The ledger in an object store: whole, numbered parts, `ledger/FENCE-NUMBER.jsonl`, each a closed run of lines.

FENCE is the number of the driver's lease. A driver's first part has all that came before it, and so has each that is
called `FENCE-NUMBER-all.jsonl`. The ledger is the last of these of the highest fence, and what follows it. So what a
driver still writes whose lease was taken over is passed over, and a driver may delete what its last such part replaces.

A copy on a node's disk has a note of the last part that it has, so that only those after that are read. Once that part
was replaced all is read again.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hausa_asr.files import write_whole
from hausa_asr.storage import objects
from hausa_asr.storage.address import join

PARTS_FOLDER = "ledger"
_PART = re.compile(r"(\d{6})-(\d{8})(-all)?\.jsonl")
_NOTE = ".ledger.json"
_AT_ONCE = 16
"""Parts that are read or deleted at the same time."""
_TRIES = 5
"""How often parts are listed again, since the driver has just replaced some of those that were to be read."""


def part(place: str, fence: int, number: int, *, has_all: bool = False) -> str:
    """The address of a part of a sweep's ledger."""
    return join(place, PARTS_FOLDER, f"{fence:06d}-{number:08d}{'-all' if has_all else ''}.jsonl")


@dataclass(frozen=True)
class Part:
    """A part as the store lists it: the bytes of the ledger from `start` on, up to `end`; `tag` is its content's."""

    place: str
    tag: str
    fence: int
    number: int
    start: int
    end: int


@dataclass(frozen=True)
class Copied:
    """How far a copy goes: up to a part, with its bytes; and the file's own size and time, which show a change.

    A part is known by its tag too: a sweep that was deleted may have begun again under its name.
    """

    tag: str
    fence: int
    number: int
    end: int
    size: int
    changed_ns: int


def read_parts(place: str) -> bytes:
    """Read a sweep's ledger from its address; empty if there is none."""
    return _read(place, None)[2]


def drop_older(place: str, fence: int, number: int) -> None:
    """Delete the parts before one that has all of them, of this driver and of earlier ones."""
    folder = join(place, PARTS_FOLDER)
    found = {name: _PART.fullmatch(name) for name in objects.listing(folder)}
    old = [name for name, one in found.items() if one and (int(one[1]), int(one[2])) < (fence, number)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: objects.delete([join(folder, name)]), old))


def refresh(file: Path, place: str) -> bool:
    """Bring this node's copy of a ledger up to date with the store; False if that has none.

    A copy that has all of the store's, and more, stays: it is a driver's of this node, which has written ahead.
    """
    known = _noted(file)
    parts, start, new = _read(place, known)
    if not parts:
        return False
    if known is not None and not new:
        return True
    mine = file.read_bytes() if file.is_file() else b""
    if len(mine) < start or not mine[start:].startswith(new):
        objects.write(str(file), mine[:start] + new)
    status, last = file.stat(), parts[-1]
    note = Copied(last.tag, last.fence, last.number, last.end, status.st_size, status.st_mtime_ns)
    write_whole(file.with_name(_NOTE), json.dumps(asdict(note)))
    return True


def forget(file: Path) -> None:
    """Put this node's copy of a ledger aside: it is of a sweep of the same name that was deleted in the store."""
    with suppress(FileNotFoundError):
        file.replace(file.with_name(f".ledger.old-{time.time_ns()}.jsonl"))
    file.with_name(_NOTE).unlink(missing_ok=True)


def _noted(file: Path) -> Copied | None:
    """What a copy's note says; None if there is none, or the copy has changed since."""
    with suppress(OSError, ValueError, TypeError):
        note = Copied(**json.loads(file.with_name(_NOTE).read_text(encoding="utf-8")))
        status = file.stat()
        if (status.st_size, status.st_mtime_ns) == (note.size, note.changed_ns):
            return note
    return None


def _read(place: str, known: Copied | None) -> tuple[Sequence[Part], int, bytes]:
    """The parts that are the ledger, where what a copy lacks begins, and that."""
    for left in reversed(range(_TRIES)):
        parts = _listed(place)
        start = 0
        if known is not None and _follow(known, parts):
            start = known.end
        lacking = [one for one in parts if one.end > start]
        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                return parts, start, b"".join(pool.map(_bytes_of, lacking))
        except FileNotFoundError:
            if not left:
                raise
    raise AssertionError


def _follow(known: Copied, parts: Sequence[Part]) -> bool:
    """Whether parts go on from what a copy has."""
    last = (known.fence, known.number, known.end, known.tag)
    return any((one.fence, one.number, one.end, one.tag) == last for one in parts)


def _bytes_of(one: Part) -> bytes:
    return objects.read(one.place, (0, one.end - one.start))


def _listed(place: str) -> list[Part]:
    """The parts that are the ledger, in order; a number that is missing ends it."""
    fences: dict[int, dict[int, tuple[str, objects.Entry]]] = {}
    starts: dict[int, int] = {}
    for name, about in objects.listing(join(place, PARTS_FOLDER)).items():
        if found := _PART.fullmatch(name):
            fence, number = int(found[1]), int(found[2])
            fences.setdefault(fence, {})[number] = name, about
            if number == 1 or found[3]:
                starts[fence] = max(number, starts.get(fence, 0))
    if not starts:
        return []
    fence = max(starts)
    number, end, parts = starts[fence], 0, list[Part]()
    while number in fences[fence]:
        name, about = fences[fence][number]
        parts.append(Part(join(place, PARTS_FOLDER, name), about.tag, fence, number, end, end + about.size))
        number, end = number + 1, end + about.size
    return parts

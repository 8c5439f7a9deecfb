"""The ledger in an object store: whole, numbered parts, `ledger/FENCE-NUMBER.jsonl`, each a closed run of lines.

FENCE is the number of the driver's lease. A driver's first part has all that came before it, so the parts of the
highest fence are the whole ledger, and what a driver still writes whose lease was taken over is passed over.
"""

from __future__ import annotations

import re
from pathlib import Path

from hausa_asr.storage import objects
from hausa_asr.storage.address import join

PARTS_FOLDER = "ledger"
_PART = re.compile(r"(\d{6})-(\d{8})\.jsonl")


def part(place: str, fence: int, number: int) -> str:
    """The address of a part of a sweep's ledger."""
    return join(place, PARTS_FOLDER, f"{fence:06d}-{number:08d}.jsonl")


def read_parts(place: str) -> bytes:
    """Read a sweep's ledger from its address; empty if there is none.

    A part that is missing ends it: those after it are not closed runs of what is there.
    """
    numbers: dict[int, list[int]] = {}
    for name in objects.listing(join(place, PARTS_FOLDER)):
        if found := _PART.fullmatch(name):
            numbers.setdefault(int(found[1]), []).append(int(found[2]))
    whole = {fence: every for fence, every in numbers.items() if 1 in every}
    if not whole:
        return b""
    fence, content, number = max(whole), b"", 1
    while number in whole[fence]:
        content += objects.read(part(place, fence, number))
        number += 1
    return content


def drop_older(place: str, fence: int) -> None:
    """Delete the parts of earlier drivers, once the first of this one is there."""
    folder = join(place, PARTS_FOLDER)
    old = [name for name in objects.listing(folder) if (found := _PART.fullmatch(name)) and int(found[1]) < fence]
    objects.delete([join(folder, name) for name in old])


def refresh(file: Path, place: str) -> None:
    """Bring this node's copy of a ledger up to date with the store.

    A copy that has all of the store's, and more, stays: it is a driver's of this node, which has written ahead.
    """
    there = read_parts(place)
    mine = file.read_bytes() if file.is_file() else b""
    if there and not mine.startswith(there):
        objects.write(str(file), there)

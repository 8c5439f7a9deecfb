"""Templates with what is commented out in them taken in, as a reader would."""

from __future__ import annotations

import re


def taken_in(text: str, start: str) -> str:
    """A YAML with its comments that begin so made part of it, each with the deeper lines under it.

    Raises:
        AssertionError: no comment begins so.
    """
    block = re.compile(rf"^( *)# ({re.escape(start)}.*(?:\n\1#  .*)*)$", re.M)
    assert block.search(text), start
    return block.sub(lambda found: found[1] + found[2].replace(f"\n{found[1]}# ", f"\n{found[1]}"), text)

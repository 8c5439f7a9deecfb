"""Write files whole or not at all: first to a temporary file, which is then renamed.

Called for every file that a crash must not leave half-written. Nothing here knows what is in the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def written_whole(path: Path, mode: str = "w", *, durable: bool = False, errors: str = "strict") -> Iterator[IO]:
    """Open a file that appears when the block ends well; after an exception the old one is still there.

    Args:
        path: the file to make or to replace; its folder must exist.
        mode: `w` for text in UTF-8, `wb` for bytes.
        durable: wait until the content is on the disk, so that it survives a power cut too.
        errors: what to do with text that UTF-8 can't hold, as in `open`.

    Raises:
        OSError: the file can't be written.
    """
    aside = path.with_name(f"{path.name}.partial")
    is_text = "b" not in mode
    try:
        with aside.open(mode, encoding="utf-8" if is_text else None, errors=errors if is_text else None) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str, *, durable: bool = False, errors: str = "strict") -> None:
    """Write a text file whole or not at all; arguments as in `written_whole`."""
    with written_whole(path, durable=durable, errors=errors) as file:
        file.write(content)

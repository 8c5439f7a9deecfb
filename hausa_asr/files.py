"""Write files whole or not at all: aside first, then renamed into place.

Called by whatever keeps something that a crash must not tear. Nothing here knows what is in the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def written_whole(path: Path, mode: str = "w", *, durable: bool = False, errors: str = "strict") -> Iterator[IO]:
    """Open a file that takes its place when the block ends well, and leaves no trace when it does not.

    Args:
        path: the file to make or to replace; its folder must be there.
        mode: `w` for text in UTF-8, `wb` for bytes.
        durable: wait until the content is on the disk, so that it outlasts a power cut too.
        errors: what becomes of text that UTF-8 can't hold, as in `open`.

    Raises:
        OSError: it can't be written.
    """
    aside = path.with_name(f"{path.name}.partial")
    text = {} if "b" in mode else {"encoding": "utf-8", "errors": errors}
    try:
        with aside.open(mode, **text) as file:  # type: ignore[arg-type]
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

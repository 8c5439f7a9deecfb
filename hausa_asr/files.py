"""Write files and folders whole or not at all: first beside their place, then renamed.

Called for whatever a crash must not leave half-written. Nothing here knows what is in the files.
"""

from __future__ import annotations

import os
import shutil
import tempfile
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
    aside = path.with_name(f"{path.name}.{os.getpid()}.partial")  # two processes may write it at once
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


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which becomes `folder` when the block ends well and is removed otherwise.

    If another process was faster its folder stays: both have written the same.

    Args:
        folder: the folder to make; its parent must exist.

    Raises:
        OSError: it can't be written.
    """
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        yield aside
        aside.chmod(0o755)  # mkdtemp makes it for its owner only; a cache may be shared
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)

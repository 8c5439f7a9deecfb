"""Show the progress of unpacking archives and preparing clips.

In: a console, or None for silence. Out: callables that report progress. Without a terminal they print a line now and
then. Called by `from_settings`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

if TYPE_CHECKING:
    from hausa_asr.corpora.archive import UnpackCallback
    from hausa_asr.dataset.decode_progress import PrepareProgress, ProgressCallback


@contextmanager
def unpacking_bar(console: Console | None) -> Iterator[UnpackCallback | None]:
    """Show the bytes of an archive that is unpacked; gives the callable that reports them, None for silence."""
    if console is None:
        yield None
        return
    if not console.is_terminal:
        printed: set[int] = set()

        def print_once(done: int, size: int) -> None:
            if size not in printed:
                console.print(f"unpacking {size / 1e6:.0f} MB", highlight=False)
                printed.add(size)

        yield print_once
        return
    columns = (TextColumn("unpacking"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=console, transient=True) as progress:
        tasks: dict[int, TaskID] = {}

        def advance(done: int, size: int) -> None:
            if size not in tasks:
                tasks[size] = progress.add_task("", total=size)
            progress.update(tasks[size], completed=done)

        yield advance


@contextmanager
def preparing_bar(console: Console | None, title: str, total: int) -> Iterator[ProgressCallback | None]:
    """Show the progress of a preparation; without a terminal, a line every half minute or so."""
    if console is None:
        yield None
        return
    if not console.is_terminal:
        printed_s, printed_share = -math.inf, 0.0

        def print_line(progress: PrepareProgress) -> None:
            nonlocal printed_s, printed_share
            now = time.monotonic()
            if math.isinf(printed_s):
                console.print(title, highlight=False)
                printed_s = now
            # A tenth of a small corpus takes no time: lines come at most every five seconds.
            if now - printed_s > 30 or (progress.share - printed_share >= 0.1 and now - printed_s > 5):
                printed_s, printed_share = now, progress.share
                console.print(f"  {progress.done} of {progress.total} utterances, {_hours(progress)}", highlight=False)

        yield print_line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[hours]}"))
    with RichProgress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, hours="")
        yield lambda now: bar.update(task, completed=now.done, hours=_hours(now))


def _hours(progress: PrepareProgress) -> str:
    """Write the hours of audio done and left, and the speed."""
    text = f"{progress.done_h:.1f} h of audio done, about {progress.left_h:.1f} h left"
    if progress.eta_s is None:
        return text
    minutes, seconds = divmod(round(progress.eta_s), 60)
    return f"{text}, {progress.clips_per_s:.0f} clips/s, {minutes}:{seconds:02d} to go"

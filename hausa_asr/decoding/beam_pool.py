"""Decode with a language model in several processes: the search takes one core, and on a GPU it is what takes longest.

In: logits. Out: paths, as `BeamDecoder` finds them. Long recordings are shared out in their parts. Called by
`Recognizer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from hausa_asr.decoding.beam import BeamDecoder

_AT_ONCE = 4
"""Parts that a process is given together."""
_decoder: BeamDecoder | None = None
"""Of a process of the pool: it loads the language model once."""


class BeamPool:
    """A `BeamDecoder` whose searches are shared out. Close it in the end.

    Args:
        decoder: what decodes.
        file: its language model.
        jobs: how many processes.
    """

    def __init__(self, decoder: BeamDecoder, file: Path, jobs: int) -> None:
        self._decoder = decoder
        self._pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_load, initargs=(file,))

    def paths(self, logits: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The best path of each of N recordings, as `BeamDecoder.paths` finds it."""
        return self._decoder.paths(logits, lambda parts: self._pool.map(_path, parts, chunksize=_AT_ONCE))

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)


def _load(file: Path) -> None:
    global _decoder
    _decoder = BeamDecoder(file)


def _path(part: np.ndarray) -> np.ndarray:
    assert _decoder is not None
    return _decoder.path(part)

"""Silence what libraries print on their way. Called where models are made, loaded, saved and registered."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(logger: str = "transformers") -> Iterator[None]:
    """Silence the progress bars of `transformers`, and a logger's warnings.

    Args:
        logger: by default that of `transformers`, which warns that a head is new, as it should be.
    """
    from transformers.utils import logging as transformers_logging

    log = logging.getLogger(logger)
    level, bars = log.level, transformers_logging.is_progress_bar_enabled()
    log.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        log.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()

"""Import flashlight-text, which has KenLM inside, or say clearly that it is missing."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from hausa_asr.errors import UserError


def flashlight() -> Any:
    """Flashlight's decoders, KenLM and Dictionary.

    Raises:
        UserError: it is not installed.
    """
    try:
        from flashlight.lib.text import decoder
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary
    except ImportError as error:
        raise UserError(
            "Decoding with a language model needs flashlight-text, which is not installed.",
            fix="Install it with `pip install 'hausa-asr-sweeps[lm]'`, which has wheels for Python 3.11 and 3.12, or "
            "decode greedily: `transcribe --greedy`, in Python `lm=False`.",
        ) from error
    return SimpleNamespace(**vars(decoder), KenLM=KenLM, Dictionary=Dictionary)


def is_installed() -> bool:
    """Whether flashlight-text is there."""
    return importlib.util.find_spec("flashlight") is not None


@contextmanager
def quiet() -> Iterator[None]:
    """Write nothing to stderr for the length of the block: KenLM draws a progress bar there."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

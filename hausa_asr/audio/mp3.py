"""Samples as MP3, which every browser plays, for pages that hold their sounds. Called by the diagnosis."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
import soundfile

from hausa_asr.utterance import SAMPLE_RATE

_COMPRESSION = 0.5
"""0 is the largest, 1 the smallest; at this, speech takes about 4 kB a second."""


def as_mp3(samples: np.ndarray) -> bytes:
    """Samples as an MP3 file; b"" where this system's libsndfile can't write it.

    Args:
        samples: (S,) float at 16 kHz, in [-1, 1].
    """
    file = io.BytesIO()
    with suppress(soundfile.LibsndfileError, ValueError):
        soundfile.write(
            file, np.clip(samples, -1, 1), SAMPLE_RATE, format="MP3", bitrate_mode="VARIABLE",
            compression_level=_COMPRESSION,
        )  # fmt: skip
        return file.getvalue()
    return b""

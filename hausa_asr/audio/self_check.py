"""Try both decoders on sounds that are made here: whether FFmpeg's and libsndfile's libraries work on this machine.

Called by `hausa-asr doctor`.
"""

from __future__ import annotations

import io

import numpy as np

from hausa_asr.audio.load import load
from hausa_asr.utterance import SAMPLE_RATE


def decode_both() -> str:
    """Decode a second of flac and of AAC. Returns the versions of what decoded them.

    Raises:
        Exception: of the library that does not work here.
    """
    import av
    import soundfile

    tone = (0.3 * np.sin(np.arange(SAMPLE_RATE) / 10)).astype(np.float32)
    flac, aac = io.BytesIO(), io.BytesIO()
    soundfile.write(flac, tone, SAMPLE_RATE, format="FLAC")
    with av.open(aac, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for start in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for file in (flac, aac):
        load(file.getvalue())
    return f"libsndfile {soundfile.__libsndfile_version__}, FFmpeg through av {av.__version__}"

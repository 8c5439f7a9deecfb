"""Resample audio to 16 kHz: windowed sinc interpolation, the same as torchaudio's, without torch.

Called by `load` for every clip. The processes that decode a corpus import no torch, which would take 300 MB and two
seconds of each of them; as one product of matrices this is also three times as fast.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from hausa_asr.utterance import SAMPLE_RATE

_ZEROS, _ROLLOFF = 6, 0.99
"""Zero crossings on each side, and the cutoff as a share of the lower rate's half: torchaudio's defaults."""
_ROW = 32
"""Samples made by a row of the product: few rows are slow, and long ones multiply mostly zeros."""


def to_16_khz(samples: np.ndarray, rate: int) -> np.ndarray:
    """Resample (S,) float32 at `rate` Hz to (ceil(S * 16,000 / rate),) float32 at 16 kHz."""
    if rate == SAMPLE_RATE:
        return samples
    # The filter bank grows with rate / gcd: 44,101 Hz would take gigabytes. The nearest 10 Hz is 0.1 % off at most.
    if math.gcd(rate, SAMPLE_RATE) < 10:
        rate = round(rate, -1)
    common = math.gcd(rate, SAMPLE_RATE)
    bank, step, width = _bank(rate // common, SAMPLE_RATE // common)
    target = math.ceil(len(samples) * SAMPLE_RATE / rate)
    rows = -(-target // bank.shape[1])
    padded = np.zeros(rows * step + len(bank), np.float32)
    padded[width : width + len(samples)] = samples
    windows = np.lib.stride_tricks.as_strided(padded, (rows, len(bank)), (4 * step, 4), writeable=False)
    return (windows @ bank).reshape(-1)[:target]


@lru_cache(maxsize=8)
def _bank(old: int, new: int) -> tuple[np.ndarray, int, int]:
    """Make the matrix of filters (old samples, new samples), the old samples from row to row, the filters' half width.

    Of julius and torchaudio (functional.resample, `sinc_interp_hann`): a sinc at the lower cutoff under a Hann window.
    """
    cutoff = min(old, new) * _ROLLOFF
    width = math.ceil(_ZEROS * old / cutoff)
    times = -np.arange(new)[:, None] / new + np.arange(-width, width + old)[None] / old
    times = np.clip(times * cutoff, -_ZEROS, _ZEROS)
    filters = np.sinc(times) * np.cos(times * np.pi / _ZEROS / 2) ** 2 * (cutoff / old)
    many = max(1, _ROW // new)
    bank = np.zeros((old * many + 2 * width, new * many), np.float32)
    for number in range(many):
        bank[number * old : number * old + filters.shape[1], number * new : (number + 1) * new] = filters.T
    return bank, old * many, width

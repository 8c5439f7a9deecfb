"""Resample audio to 16 kHz: windowed sinc interpolation, the same as torchaudio's, without torch.

Called by `load` for every clip, and in blocks by `long_recording`. The processes that decode a corpus import no torch,
which would take 300 MB and two seconds of each of them; as one product of matrices this is also three times as fast.
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
    return Resampler(rate)(samples, last=True)


class Resampler:
    """Resample a recording that comes in blocks, as `to_16_khz` does one that is there at once.

    Args:
        rate: of the blocks, in Hz.
    """

    def __init__(self, rate: int) -> None:
        # The filter bank grows with rate / gcd: 44,101 Hz would take gigabytes. The nearest 10 Hz is 0.1 % off at most.
        if math.gcd(rate, SAMPLE_RATE) < 10:
            rate = round(rate, -1)
        common = math.gcd(rate, SAMPLE_RATE)
        self._rate = rate
        self._bank, self._step, width = _bank(rate // common, SAMPLE_RATE // common)
        self._held = np.zeros(width, np.float32)  # what the next row begins with
        self._taken = self._made = 0

    def __call__(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """The samples at 16 kHz, float32, that the blocks so far allow; after the `last` block all of them."""
        if self._rate == SAMPLE_RATE:
            return block
        self._taken += len(block)
        size, made = self._bank.shape
        if last:
            target = math.ceil(self._taken * SAMPLE_RATE / self._rate) - self._made
            rows = -(-target // made)
        else:
            rows = max(0, (len(self._held) + len(block) - size) // self._step + 1)
            target = rows * made
        padded = np.zeros(max(len(self._held) + len(block), (rows - 1) * self._step + size), np.float32)
        padded[: len(self._held)] = self._held
        padded[len(self._held) : len(self._held) + len(block)] = block
        windows = np.lib.stride_tricks.as_strided(padded, (rows, size), (4 * self._step, 4), writeable=False)
        self._made += target
        if not last:
            self._held = padded[rows * self._step :].copy()
        return (windows @ self._bank).reshape(-1)[:target]


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

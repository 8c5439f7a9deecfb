"""Fingerprint the sound of a clip, to recognise the same recording after re-encoding.

In: samples. Out: a row of 32-bit numbers. Made by `decoder` for every clip, compared by `overlap`. Each number says,
for an eighth of a second, in which of 32 pairs of neighbouring bands the balance of energy rises: coding, resampling,
level and trimmed silence change few of these bits, another reading of the same sentence changes nearly half (Haitsma
and Kalker, A Highly Robust Audio Fingerprinting System, ISMIR 2002; the bands and times are for speech).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

VERSION = 1
"""Raised when the numbers of a clip would change."""
_WINDOW, _HOP = 512, 256  # 32 ms, every 16 ms
_SMOOTHED, _LAG = 8, 6
"""Frames over which a band's energy is summed, and between the two times that are compared."""
_QUIET = 1e-3
"""Frames this far below the loudest (30 dB) are mostly room and coding noise: they say nothing."""
_EDGES = np.concatenate([np.arange(8, 48, 2), np.linspace(48, 122, 14).round()]).astype(int)
"""33 bands from 250 Hz, where telephones begin, to 3.8 kHz, where they end, in bins of 31 Hz."""
_NARROW_BIN, _NARROW = 160, 1.5e-5
"""Less than -48 dB of the energy above 5 kHz: recorded at 8 kHz. Resampling leaves some below 5 kHz, and -53 dB above;
150 clips of real speech had -38 dB at the least."""
_BIT = (1 << np.arange(32, dtype=np.uint64)).astype(np.uint32)
_HANN = np.hanning(_WINDOW).astype(np.float32)
NOTHING = np.zeros(0, np.uint32)
"""The fingerprint of a clip that is too short to have one."""

_FEWEST_FRAMES = 14
"""Frames with sound that two clips must share, 0.2 s: with fewer, chance may agree."""
_NEAR = np.array([-12, -9, -6, -3, 3, 6, 9, 12])
"""Where one number agrees, the frames around it that must agree roughly before all of them are compared."""
_MOST_COMMON = 400
"""A number that more frames have says nothing about a recording."""
_MOST_DIFFERING, _MOST_DIFFERING_SHORT, _SHORT = 0.25, 0.18, 32
"""Share of differing bits up to which two clips are one recording, and that where they share fewer frames than
`_SHORT`; docs/log.md says where both kinds lie."""
_LEAST_SHARED = 0.6
"""Share of the shorter clip's frames that must be there in the longer."""


def power(samples: np.ndarray) -> np.ndarray:
    """Compute the (T, 257) float32 energy of a clip's frames by frequency, from (S,) float32 samples at 16 kHz."""
    if len(samples) < _WINDOW:
        samples = np.pad(samples, (0, _WINDOW - len(samples)))
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    spectrum = np.fft.rfft(windows * _HANN)
    return spectrum.real**2 + spectrum.imag**2


def is_narrow(energy: np.ndarray) -> bool:
    """Whether a clip has no sound above 4 kHz, from its (T, 257) energy as `power` gives it."""
    by_frequency = energy.sum(axis=0)
    return float(by_frequency[_NARROW_BIN:].sum()) < _NARROW * float(by_frequency.sum())


def of(energy: np.ndarray) -> np.ndarray:
    """Make the fingerprint of a clip from its (T, 257) energy: (F,) uint32, 0 where a frame is quiet.

    It is empty for clips of less than 0.25 s.
    """
    bands = np.add.reduceat(energy[:, : _EDGES[-1]], _EDGES[:-1], axis=1)
    if len(bands) < _SMOOTHED + _LAG + 1:
        return NOTHING
    summed = np.cumsum(bands, axis=0, dtype=np.float64)
    smooth = summed[_SMOOTHED:] - summed[:-_SMOOTHED]
    loud = smooth.sum(axis=1)
    level = np.log(np.maximum(smooth, 0) + 1e-5 * loud.max() + 1e-30)
    tilt = level[:, :-1] - level[:, 1:]
    bits = tilt[_LAG:] > tilt[:-_LAG]
    numbers = bits.astype(np.uint32) @ _BIT
    numbers[np.minimum(loud[_LAG:], loud[:-_LAG]) < _QUIET * loud.max()] = 0
    return numbers


class Index:
    """The fingerprints of some clips, to look others up in.

    Args:
        prints: fingerprints by the number of their clip.

    Memory: 16 bytes a frame, 4 kB a clip of 4 s, for the clips in the index alone.
    """

    def __init__(self, prints: Sequence[tuple[int, np.ndarray]]) -> None:
        self._clips = np.array([clip for clip, _ in prints], np.int64)
        gap = np.zeros(-_NEAR[0], np.uint32)
        self._flat = np.concatenate([gap, *(part for _, numbers in prints for part in (numbers, gap))])
        lengths = np.array([len(numbers) for _, numbers in prints], np.int64)
        self._starts = len(gap) + np.cumsum(lengths + len(gap)) - lengths - len(gap)
        self._lengths = lengths
        places = np.flatnonzero(self._flat)
        order = np.argsort(self._flat[places], kind="stable")
        self._places = places[order].astype(np.int32)
        self._keys = self._flat[self._places]

    def find(self, fingerprint: np.ndarray) -> list[int]:
        """Find the clips in the index that have the same recording as this (F,) fingerprint."""
        where = np.flatnonzero(fingerprint)
        first = np.searchsorted(self._keys, fingerprint[where], side="left")
        count = np.searchsorted(self._keys, fingerprint[where], side="right") - first
        count[count > _MOST_COMMON] = 0
        total = int(count.sum())
        if not total:
            return []
        # The positions first[i], first[i] + 1, ... of every number that is there, in one go.
        hits = np.arange(total) + np.repeat(first - (np.cumsum(count) - count), count)
        places, asked = self._places[hits].astype(np.int64), np.repeat(where, count)
        padded = np.pad(fingerprint, -_NEAR[0])
        mine, theirs = padded[asked[:, None] + _NEAR - _NEAR[0]], self._flat[places[:, None] + _NEAR]
        both = (mine != 0) & (theirs != 0)
        differing = (np.bitwise_count(mine ^ theirs) * both).sum(axis=1)
        likely = (both.sum(axis=1) >= 3) & (differing <= 32 * 0.3 * both.sum(axis=1))
        rows = np.searchsorted(self._starts, places[likely], side="right") - 1
        shifts = places[likely] - self._starts[rows] - asked[likely]
        pairs = sorted(set(zip(rows.tolist(), shifts.tolist(), strict=True)))
        return sorted({int(self._clips[row]) for row, shift in pairs if same(fingerprint, self._print(row), shift)})

    def _print(self, row: int) -> np.ndarray:
        return self._flat[self._starts[row] : self._starts[row] + self._lengths[row]]


def same(one: np.ndarray, other: np.ndarray, shift: int) -> bool:
    """Whether two fingerprints are of one recording, `other` being `shift` frames later."""
    differing, shared = compare(one, other, shift)
    fewer = min(np.count_nonzero(one), np.count_nonzero(other))
    limit = _MOST_DIFFERING if shared >= _SHORT else _MOST_DIFFERING_SHORT
    return shared >= max(_FEWEST_FRAMES, _LEAST_SHARED * fewer) and differing <= limit


def compare(one: np.ndarray, other: np.ndarray, shift: int) -> tuple[float, int]:
    """Give the share of bits in which two fingerprints differ, and the number of frames with sound in both."""
    start, end = max(0, -shift), min(len(one), len(other) - shift)
    if end <= start:
        return 1.0, 0
    a, b = one[start:end], other[start + shift : end + shift]
    both = (a != 0) & (b != 0)
    shared = int(both.sum())
    return (float(np.bitwise_count(a[both] ^ b[both]).sum()) / (32 * shared) if shared else 1.0), shared


def matches(
    queries: Sequence[int], targets: Sequence[int], print_of: Callable[[int], np.ndarray]
) -> Iterator[tuple[int, int]]:
    """Find the pairs (query, target) of clips that are one recording.

    Args:
        queries, targets: numbers of clips.
        print_of: gives the fingerprint of a clip by its number.
    """
    index = Index([(clip, np.array(print_of(clip))) for clip in targets])
    for clip in queries:
        for target in index.find(print_of(clip)):
            yield clip, target

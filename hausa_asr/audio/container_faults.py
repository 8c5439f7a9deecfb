"""Find faults in the structure of an audio file that decoders do not report.

In: the bytes of a file. Out: a `Fault`, or None. libsndfile takes a wav file that was cut off for a shorter one, reads
only the first of two files that were joined, and plays an mp3 on when its rate changes. Called by `load` before it
decodes.
"""

from __future__ import annotations

from typing import NamedTuple

_WHOLE = 0.95
"""A last block that is not quite full is no loss."""
_OPEN_END = 0x7FFF_0000
"""From here on a size in a wav header means that its writer did not know it: ffmpeg through a pipe writes such."""
_MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_MP3_KBPS = {
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class Fault(NamedTuple):
    """Why a clip is refused.

    Attributes:
        reason: short, and always the same for the same fault.
        detail: what exactly is wrong; may be "".
    """

    reason: str
    detail: str = ""


def fault(data: bytes, size: int) -> Fault | None:
    """Check the structure of a wav, ogg or mp3 file; other containers pass.

    Args:
        data: the file, or its beginning, of which only the header of a wav file can be judged.
        size: of the file, in bytes.
    """
    if data[:4] in (b"RIFF", b"RIFX", b"RF64") and data[8:12] == b"WAVE":
        return _wav(data, size)
    if size > len(data):
        return None
    if data[:4] == b"OggS":
        return _ogg(data)
    if data[:3] == b"ID3" or (len(data) > 3 and _mp3_frame(data, 0)):
        return _mp3(data)
    return None


def _wav(data: bytes, total: int) -> Fault | None:
    order = "big" if data[:4] == b"RIFX" else "little"

    def number(at: int) -> int:
        return int.from_bytes(data[at : at + 4], order)  # type: ignore[arg-type]

    at, rate = 12, 0
    while at + 8 <= len(data):
        name, size, start = data[at : at + 4], number(at + 4), at + 8
        if name == b"fmt ":
            rate = number(start + 4)
        if name == b"data":
            present = total - start
            if size == 0 and present > 1:
                return Fault("zero data size", f"the header says 0 bytes of sound, {present} bytes follow it")
            if size >= _OPEN_END or data[:4] == b"RF64":
                return None
            if present < _WHOLE * size:
                return Fault("cut off", f"{present} of {size} bytes of sound")
            rest = start + size + size % 2
            if data[rest : rest + 4] == data[:4]:
                other = number(rest + 24)  # of a header whose first chunk is fmt, as all but few are
                return _joined(rate, other)
        at = start + size + size % 2
    return None


def _ogg(data: bytes) -> Fault | None:
    at, rates, began = 0, list[int](), False
    while at + 27 <= len(data) and data[at : at + 4] == b"OggS":
        segments = data[at + 26]
        sizes = data[at + 27 : at + 27 + segments]
        start = at + 27 + segments
        body = data[start : start + 30]
        if not data[at + 5] & 2:
            began = True
        elif began or not rates:  # the first page of a stream: of the first one, or of one joined to its end
            if body[:7] == b"\x01vorbis":
                rates.append(int.from_bytes(body[12:16], "little"))
            elif body[:8] == b"OpusHead":
                rates.append(48_000)  # whatever it was recorded at, it is decoded to this
        at = start + sum(sizes)
        if at > len(data) or len(sizes) < segments:
            return Fault("cut off", f"its last page lacks {at - len(data)} bytes")
    if len(rates) > 1:
        return next((_joined(rates[0], rate) for rate in rates if rate != rates[0]), _joined(rates[0], rates[0]))
    return None


def _joined(rate: int, other: int) -> Fault:
    if rate != other:
        return Fault("sample rate changes", f"several recordings in one file, of {rate} Hz and of {other} Hz")
    return Fault("joined files", "several recordings in one file, of which only the first would be heard")


def _mp3(data: bytes) -> Fault | None:
    at, first = 0, 0
    while at + 4 <= len(data):
        frame = _FRAMES.get((data[at + 1] & 0xFE, data[at + 2] & 0xFC)) if data[at] == 0xFF else None
        if frame is None:
            if data[at : at + 3] == b"ID3":  # a tag, at the start or before a file that was joined on
                size = int.from_bytes(data[at + 6 : at + 10], "big")
                at += 10 + sum((size >> 8 * n & 0x7F) << 7 * n for n in range(4))
                continue
            after = _next_mp3_frame(data, at + 1)
            if after is None:
                return None
            at = after
            continue
        rate, length, slot = frame
        if first and rate != first:
            return Fault("sample rate changes", f"from {first} Hz to {rate} Hz")
        first = rate
        at += length + (slot if data[at + 2] & 2 else 0)
    return None


def _next_mp3_frame(data: bytes, at: int) -> int | None:
    """Find the next frame that another follows: two bytes that look like one turn up in any data."""
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        end = at + _mp3_frame(data, at)
        if end > at and (end >= len(data) or _mp3_frame(data, end)):
            return at
        at += 1
    return None


def _mp3_frame(data: bytes, at: int) -> int:
    """Count the bytes of the frame that begins here, 0 where none does."""
    if at + 4 > len(data) or data[at] != 0xFF:
        return 0
    frame = _FRAMES.get((data[at + 1] & 0xFE, data[at + 2] & 0xFC))
    return frame[1] + (frame[2] if data[at + 2] & 2 else 0) if frame else 0


def _all_mp3_frames() -> dict[tuple[int, int], tuple[int, int, int]]:
    """List rate, bytes and padding bytes by the second and third byte of a layer III header (ISO 11172-3, 13818-3)."""
    frames = {}
    for version, rates in _MP3_RATES.items():
        for index, kbps in enumerate(_MP3_KBPS[3 if version == 3 else 2], start=1):
            for number, rate in enumerate(rates):
                length = (144 if version == 3 else 72) * kbps * 1000 // rate
                frames[0xE2 | version << 3, index << 4 | number << 2] = (rate, length, 1)
    return frames


_FRAMES = _all_mp3_frames()

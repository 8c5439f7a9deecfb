"""Subtitles: words with their times in, a SubRip (srt) or WebVTT (vtt) file out, written by pysubs2."""

from __future__ import annotations

from collections.abc import Sequence

from hausa_asr.decoding.path import Word

_PAUSE_S, _LONGEST_S, _LETTERS = 0.8, 6.0, 80
"""A new subtitle begins after a pause, and when the last one would be shown for too long or fill over two lines."""
_SHORTEST_S, _LINGER_S = 1.0, 0.3
"""How long one is shown at least, and beyond its last letter, if the next one leaves the time."""


def subtitles(words: Sequence[Word], kind: str) -> str:
    """Write the subtitles of a recording.

    Args:
        words: of it, in order.
        kind: `srt` or `vtt`.
    """
    import pysubs2

    file = pysubs2.SSAFile()
    cues = _cues(words)
    for number, cue in enumerate(cues):
        end_s = max(cue[-1].end_s + _LINGER_S, cue[0].start_s + _SHORTEST_S)
        if number + 1 < len(cues):
            end_s = min(end_s, cues[number + 1][0].start_s)
        start_ms, end_ms = round(1000 * cue[0].start_s), round(1000 * end_s)
        file.append(pysubs2.SSAEvent(start_ms, end_ms, _in_two_lines([word.text for word in cue])))
    return file.to_string(kind)


def _cues(words: Sequence[Word]) -> list[list[Word]]:
    """The words of each subtitle."""
    cues: list[list[Word]] = []
    letters = 0
    for word in words:
        last = cues[-1] if cues else []
        fits = (
            last
            and word.start_s - last[-1].end_s < _PAUSE_S
            and word.end_s - last[0].start_s <= _LONGEST_S
            and letters + 1 + len(word.text) <= _LETTERS
        )
        if fits:
            last.append(word)
            letters += 1 + len(word.text)
        else:
            cues.append([word])
            letters = len(word.text)
    return cues


def _in_two_lines(words: Sequence[str]) -> str:
    """A subtitle's text; a long one is parted at the space nearest to its middle."""
    text = " ".join(words)
    if len(text) <= _LETTERS // 2 or len(words) == 1:
        return text
    space = min((at for at, letter in enumerate(text) if letter == " "), key=lambda at: abs(at - len(text) / 2))
    return f"{text[:space]}\\N{text[space + 1 :]}"

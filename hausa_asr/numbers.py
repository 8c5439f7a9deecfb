"""Spell whole numbers from 0 to 999,999 in Hausa words.

Called by `hausa_asr.text`, before anything is scored or trained on, and by the demo corpus, which speaks numbers. The
spelling is Boko with hooked letters and the plain apostrophe, as `text.normalise` writes it.
"""

from __future__ import annotations

LARGEST = 999_999

_UNITS = ("sifili", "ɗaya", "biyu", "uku", "huɗu", "biyar", "shida", "bakwai", "takwas", "tara", "goma")
_TENS = ("", "goma", "ashirin", "talatin", "arba'in", "hamsin", "sittin", "saba'in", "tamanin", "tis'in")


def spell(n: int) -> str:
    """The Hausa cardinal of a whole number.

    Parts are joined from the largest to the smallest: the multiplier follows `dubu` (thousand) and `ɗari` (hundred),
    `da` joins each smaller part, and 11 to 19 are `goma sha ...`. A single thousand or hundred has no multiplier
    (`dubu`, `ɗari`). A few numbers are ambiguous in Hausa itself: `dubu ashirin da ɗaya` is 21,000 and 20,001.

    Args:
        n: 0 to 999,999.

    Returns:
        Lower-case words with single spaces: 1,234 is `dubu da ɗari biyu da talatin da huɗu`.

    Raises:
        ValueError: n is outside that range.
    """
    if not 0 <= n <= LARGEST:
        raise ValueError(f"{n} is not between 0 and {LARGEST:,}")
    if n <= 10:
        return _UNITS[n]
    if n < 20:
        return f"goma sha {_UNITS[n - 10]}"
    if n < 100:
        return _joined(_TENS[n // 10], n % 10)
    if n < 1_000:
        return _joined(_counted("ɗari", n // 100), n % 100)
    return _joined(_counted("dubu", n // 1_000), n % 1_000)


def _counted(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun} {spell(count)}"


def _joined(head: str, rest: int) -> str:
    return head if rest == 0 else f"{head} da {spell(rest)}"

"""Durations, counts, amounts, sizes and intervals in words, each said in one way everywhere.

Called by all that prints, logs or explains. Text only.
"""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds as m:ss, h:mm:ss, or days and hours from two days on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def many(count: float, noun: str) -> str:
    """A count and its noun, in the plural where it should be: `1 trial`, `1,000 trials`."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{number} {noun}{'' if count == 1 else 's'}"


def amount(figure: float) -> str:
    """Hours, money or a speed, with as many digits as matter."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def size(n_bytes: float) -> str:
    """Bytes in MB, GB or TB."""
    for unit, bytes_per in (("TB", 1e12), ("GB", 1e9)):
        if n_bytes >= bytes_per:
            return f"{n_bytes / bytes_per:.1f} {unit}"
    return f"{n_bytes / 1e6:.0f} MB"


def in_brackets(low: float, high: float) -> str:
    """An interval of WER, in brackets."""
    return f"[{round(low, 3) + 0.0:.3f}, {round(high, 3) + 0.0:.3f}]"  # + 0.0: there is no -0.000


def lower(difference: float, low: float, high: float) -> str:
    """By how much an error rate is lower, or higher, and its interval; a negative difference is lower."""
    ends = (low, high) if difference > 0 else (-high, -low)
    return f"{abs(difference):.3f} {'higher' if difference > 0 else 'lower'} {in_brackets(*ends)}"


def short(value: object) -> str:
    """A setting's value, floats with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)

"""What stands out in a model's errors, in sentences: rules over tallies, each with its threshold beside it.

In: the tallies. Out: sentences, the most harmful kind first; none where nothing stands out. A rule speaks only if the
whole 95 % interval is beyond its threshold, so chance seldom makes a finding. The faults are those that the published
Hausa run lists: short words dropped, wrong word boundaries, spelling confusions. Called by `diagnose`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hausa_asr.diagnosis.figure import Figure, Tally, difference, figure
from hausa_asr.diagnosis.words import LONG, SHORT

SHORT_WORDS, HOOKS, GROUPS = 0.05, 0.1, 0.05
"""How much worse, as a share: short words than long ones, hooked letters than plain ones, one group of clips than
another."""
NOTHING = 0.1
"""A share of utterances of which nothing is heard."""
SUPPORT, LETTERS = 8, 30
"""The least evidence for a rule, on each side that it compares: resampled utterances or speakers; words or letters."""
BOUNDARIES, MADE_UP, MOSTLY = 0.03, 0.1, 0.5
"""Shares of spaces, of words, and of word errors."""


def findings(
    words: Mapping[str, Tally],
    gone: Mapping[str, Tally],
    most: Sequence[tuple[str, int, int]],
    boundaries: Mapping[str, Tally],
    hooks: Mapping[str, Tally],
    groups: Mapping[str, Mapping[str, Tally]],
    folded: float,
    silent: Tally,
) -> list[str]:
    """Write what stands out.

    Args:
        words: `words.word_tallies`.
        gone, most: `words.dropped`.
        boundaries: `words.boundary_tallies`.
        hooks: `letters.hook_tallies`.
        groups: `groups.group_tallies`.
        folded: the word error rate with hooks folded.
        silent: utterances of which nothing was heard.
    """
    return [
        *_silence(silent),
        *_short_words(gone, most),
        *(list(_boundaries(boundaries)) or _mostly_spaces(words, boundaries)),
        *_hooks(hooks, words, folded),
        *_made_up(words, boundaries),
        *_groups(groups),
    ]


def _silence(silent: Tally) -> Iterator[str]:
    found = figure("", silent)
    if found.low > NOTHING:
        yield f"Nothing is heard in {_share(found)} of the utterances: the model may not have left the CTC plateau."


def _enough(*tallies: Tally) -> bool:
    return all(one.support >= SUPPORT and one.of.sum() >= LETTERS for one in tallies)


def _short_words(gone: Mapping[str, Tally], most: Sequence[tuple[str, int, int]]) -> Iterator[str]:
    short, long = gone[SHORT], gone[LONG]
    if not _enough(short, long) or difference(short, long)[0] < SHORT_WORDS:
        return
    brief = [(word, count, said) for word, count, said in most if len(word) <= 2]
    named = ", ".join(f"{word} ({count} of {said})" for word, count, said in brief[:5])
    yield (
        f"Short words are dropped: {_share(figure('', short))} of those of 1 or 2 letters, "
        f"{_share(figure('', long))} of those of 5 letters and more. Most often {named}."
    )


def _boundaries(boundaries: Mapping[str, Tally]) -> Iterator[str]:
    words = {"joined": "Words run together: {} of the spaces between words are missing.",
             "split": "Words fall apart: there are spaces inside words, {} of those between words."}  # fmt: skip
    for name, sentence in words.items():
        found = figure("", boundaries[name])
        if _enough(boundaries[name]) and found.low > BOUNDARIES:
            yield sentence.format(_share(found))


def _mostly_spaces(words: Mapping[str, Tally], boundaries: Mapping[str, Tally]) -> Iterator[str]:
    errors = np.sum([tally.counts for tally in words.values()], axis=0)
    # A space that is missing, or too many, makes one word another and drops one, or puts one in.
    spaces = np.minimum(2 * (boundaries["joined"].counts + boundaries["split"].counts), errors)
    share = Tally(spaces, errors, words["put in"].units)
    found = figure("", share)
    if _enough(share) and found.low > MOSTLY:
        yield (
            f"The letters are right, the spaces are not: {_share(found)} of the word errors are words joined or split. "
            "A language model mends such errors (hausa-asr lm)."
        )


def _hooks(hooks: Mapping[str, Tally], words: Mapping[str, Tally], folded: float) -> Iterator[str]:
    hooked, plain = hooks["hooked letters heard as such"], hooks["plain"]
    if not _enough(hooked, plain) or difference(plain, hooked)[0] < HOOKS:
        return
    strict = sum(figure("", tally).rate for tally in words.values())
    yield (
        f"Hooks are lost: {_share(figure('', hooked))} of the letters ɓ, ɗ, ƙ and 'y are heard as such, "
        f"{_share(figure('', plain))} of b, d, k and y. With hooks folded the WER is {folded:.3f}, else {strict:.3f}."
    )


def _made_up(words: Mapping[str, Tally], boundaries: Mapping[str, Tally]) -> Iterator[str]:
    put_in = words["put in"]  # of which those that are the second half of another are no words of their own
    own = Tally(np.maximum(0, put_in.counts - boundaries["split"].counts), put_in.of, put_in.units)
    found = figure("", own)
    if _enough(own) and found.low > MADE_UP and found.count > 2 * words["dropped"].counts.sum():
        yield f"Words are made up: {_share(found)} as many as were said are put in, far more than are dropped."


def _groups(groups: Mapping[str, Mapping[str, Tally]]) -> Iterator[str]:
    names = {
        "length of the clip": "Clips of {} are worse than those of {}",
        "speech above noise": "Clips with speech {} above the noise are worse than those with {}",
    }
    for kind, sentence in names.items():
        tallies = list(groups[kind].items())
        if len(tallies) < 2:
            continue
        (first, one), (last, other) = tallies[0], tallies[-1]
        for worse, better, a, b in ((first, last, one, other), (last, first, other, one)):
            if _enough(a, b) and difference(a, b)[0] > GROUPS:
                rates = f"WER {_share(figure('', a))} against {_share(figure('', b))}"
                yield f"{sentence.format(worse, better)}: {rates}."


def _share(found: Figure) -> str:
    return f"{100 * found.rate:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"

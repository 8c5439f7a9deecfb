"""The word error rate by what is known of the clips: their length, their noise, who speaks, whence they are.

In: what was heard. Out: tallies by group, those that hold an utterance.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from hausa_asr.diagnosis.figure import Tally
from hausa_asr.diagnosis.heard import Heard

LENGTHS_S = {"under 3 s": (0.0, 3.0), "3 to 7 s": (3.0, 7.0), "over 7 s": (7.0, np.inf)}
NOISE_DB = {"under 15 dB": (-np.inf, 15.0), "15 to 30 dB": (15.0, 30.0), "over 30 dB": (30.0, np.inf)}
"""How far speech is above the noise."""
SPEAKERS = 20
"""Speakers that are listed, those with the most utterances."""


def group_tallies(heard: Heard, errors: Tally) -> dict[str, dict[str, Tally]]:
    """Sort the word errors of each utterance into groups.

    Args:
        heard: the utterances.
        errors: their word errors, of their words.
    """

    def among(chosen: np.ndarray, units: np.ndarray = errors.units) -> Tally:
        return Tally(errors.counts * chosen, errors.of * chosen, units)

    def between(values: np.ndarray, ranges: dict[str, tuple[float, float]]) -> dict[str, Tally]:
        chosen = {name: (values >= least) & (values < most) for name, (least, most) in ranges.items()}
        return {name: among(which) for name, which in chosen.items() if which.any()}

    speakers = np.array(heard.speakers)
    known = Counter(speaker for speaker in heard.speakers if speaker)
    alone = np.arange(len(heard.ids))  # what one speaker's utterances say of that speaker
    return {
        "length of the clip": between(heard.seconds, LENGTHS_S),
        "speech above noise": between(heard.snr_db, NOISE_DB),
        "speaker": {name: among(speakers == name, alone) for name, _ in known.most_common(SPEAKERS)}
        if len(known) > 1
        else {},
        "corpus": {name: among(np.array(heard.corpora) == name) for name in dict.fromkeys(heard.corpora) if name},
    }

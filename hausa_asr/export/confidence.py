"""Put calibrations of a model's confidences into its folder, and what they are worth into its card.

Called by `best_model`, with what the check of the export found.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hausa_asr.decoding.confidence import CONFIDENCE_FILE, GREEDY, WITH_LM, Calibration, write_calibrations

_HOW = {GREEDY: "greedy decoding", WITH_LM: "the language model"}


def add_calibrations(folder: Path, known: Mapping[str, Calibration]) -> None:
    """Write calibrations, by how the model decodes, into the folder of an export that has its card."""
    write_calibrations(folder, dict(known))
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write(
            "\n## Confidence\n\n`hausa-asr transcribe --words` gives each word a chance of being right, calibrated on "
            f"dev (`{CONFIDENCE_FILE}`): {'; '.join(in_words(known))}. On other speech it is less reliable.\n"
        )


def in_words(known: Mapping[str, Calibration]) -> list[str]:
    """What each calibration is worth."""
    return [
        f"with {_HOW[name]} the expected calibration error is {one.error:.3f}, {one.raw_error:.3f} without "
        f"({one.words:,} words, each judged by a calibration made of others)"
        for name, one in known.items()
    ]

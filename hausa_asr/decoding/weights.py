"""How much a language model counts beside the labels, and the file beside it that keeps that."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hausa_asr.errors import UserError
from hausa_asr.files import write_whole

LM_FILE = "lm.arpa"
"""A language model in the folder of an exported model."""
LARGEST_BEAM = 10_000


@dataclass(frozen=True)
class Weights:
    """How a language model is heard beside the labels.

    Attributes:
        lm: times its log10 chances, which are added to the labels' natural logarithms.
        word: added for each word; after a model of letters for each frame of a space.
        beam: how many beginnings of a text are kept.

    Raises:
        ValueError: a figure is not finite, or the beam not from 1 to 10,000.
    """

    lm: float = 1.5
    word: float = 0.0
    beam: int = 50

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lm) and math.isfinite(self.word) and 1 <= self.beam <= LARGEST_BEAM):
            raise ValueError(f"lm and word are numbers and beam is from 1 to {LARGEST_BEAM:,}, unlike in {self}")


def weights_file(file: Path) -> Path:
    """Where a language model's tuned weights are: beside it."""
    return file.with_name(f"{file.name}.weights.json")


def stored_weights(file: Path) -> Weights | None:
    """Read the weights that were tuned for a language model; None if none were.

    Raises:
        UserError: the file with them is broken.
    """
    place = weights_file(file)
    if not os.path.isfile(place):
        return None
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        return Weights(float(found["lm"]), float(found["word"]), int(found["beam"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(
            f"The weights of the language model can't be read: {type(error).__name__}: {error}.",
            where=place,
            fix="Tune it again with `hausa-asr lm tune`, or remove this file.",
        ) from error


def model_digest(folder: Path) -> str:
    """A digest of an exported model's weights; "" for one that is not in a folder here."""
    weights = folder / "model.safetensors"
    if not os.path.isfile(weights):
        return ""
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def store_weights(file: Path, weights: Weights, **more: Any) -> Path:
    """Write weights beside a language model, with how they came about; returns where."""
    place = weights_file(file)
    write_whole(place, json.dumps({**asdict(weights), **more}, indent=1) + "\n")
    return place

"""Put a language model into an exported model's folder, and a section on it into the card. Called by `best_model`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hausa_asr.decoding.beam import usable_words
from hausa_asr.decoding.weights import LM_FILE, model_digest, stored_weights, weights_file
from hausa_asr.errors import UserError

_SECTION = """
## Language model

`{name}` is an n-gram language model in ARPA format. `hausa-asr transcribe --model FOLDER` decodes with it, and
`--greedy` without; in plain `transformers` it is not used. {tuned} The error rates above are of greedy decoding.
"""


def check_language_model(file: Path | None, out: Path) -> None:
    """Refuse, before any work is done, a language model that can't be used, or the loss of one.

    Args:
        file: the one to take along, if any.
        out: the folder that will be written.

    Raises:
        UserError: it is none, or `out` holds one that nothing would take along.
    """
    if file is not None:
        usable_words(file)
        stored_weights(file)
    elif (out / LM_FILE).exists():
        raise UserError(
            "The output folder holds a language model, which would be lost.",
            where=out.absolute(),
            fix=f"Take it along with --with-lm {out / LM_FILE}, or give another folder with --out.",
        )


def add_language_model(file: Path, folder: Path) -> None:
    """Copy a language model and its tuned weights into the folder of an export.

    Args:
        file: the ARPA file.
        folder: has the export, with its card.

    Raises:
        UserError: the file with the weights is broken.
    """
    about = None
    if stored_weights(file) is not None:
        about = json.loads(weights_file(file).read_text(encoding="utf-8"))
        digest = about.get("model_digest")
        if digest and digest != model_digest(folder):
            about = {name: about[name] for name in ("lm", "word", "beam")} | {"other_model": True}
        about.pop("model", None)  # paths of the machine that tuned it do not belong in a published folder
        about.pop("dataset", None)
        weights_file(folder / LM_FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(file, folder / LM_FILE)
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write(_SECTION.format(name=LM_FILE, tuned=_tuned(about)))


def _tuned(about: dict[str, Any] | None) -> str:
    """How it was tuned, in a sentence."""
    if about is None:
        return "Its weights were not tuned."
    sentence = f"Its weight is {about['lm']:g}, with {about['word']:+g} for each word"
    if about.get("other_model"):
        return f"{sentence}: tuned beside another model, so tune it again with `hausa-asr lm tune`."
    if "dev_wer" in about and "greedy_dev_wer" in about:
        sentence += (
            f": tuned on dev, where WER was {about['dev_wer']:.4f} with it, {about['greedy_dev_wer']:.4f} without"
        )
    return f"{sentence}."

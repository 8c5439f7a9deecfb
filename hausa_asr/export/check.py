"""Score an exported folder again from disk, in a process of its own, and compare with what its trial had.

The same pass finds out how sure the model may be of a word (`decoding.confidence`). In: a folder and the dev split that
its trial was scored on. Out: the WER and calibrations, or an error if the WER is another. Called by `best_model`; as a
module it is that other process.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hausa_asr.decoding.confidence import GREEDY, WITH_LM, Calibration, calibrated
from hausa_asr.decoding.weights import LM_FILE
from hausa_asr.errors import UserError, first_line
from hausa_asr.utterance import SAMPLE_RATE

if TYPE_CHECKING:
    from hausa_asr.utterance import Split

SAME, WORDS = 0.01, 2
"""How far a WER may be off, or by how many words if that is more: a GPU and a CPU do not round alike."""
_AT_ONCE, _WITH_LM_S = 64, 1800.0
"""Utterances that are heard together; and the seconds of speech that are decoded with a language model."""


class Checked(NamedTuple):
    """A folder's WER on dev, and what makes its confidences mean what they say, by how it decodes."""

    wer: float
    calibrations: dict[str, Calibration]


def check_export(
    folder: Path, prepared: Path, part_s: float, wer: float, watch: Callable[[int, int], None] = lambda done, of: None
) -> Checked:
    """Score a folder on dev, and compare.

    Args:
        folder: an export, which may not be in its place yet, perhaps with a language model.
        prepared: the prepared dataset of its trial.
        part_s: how much of dev the trial was scored on, in seconds of audio; 0 for all of it.
        wer: what the trial had.
        watch: called with how many utterances are done, and of how many.

    Raises:
        UserError: it can't be loaded, or its WER is another.
    """
    command = [sys.executable, "-m", "hausa_asr.export.check", str(folder), str(prepared), str(part_s)]
    last: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    last = json.loads(line)
                    if "done" in last:
                        watch(last["done"], last["of"])
        errors.seek(0)
        lines = errors.read().strip().splitlines()
    if process.returncode:
        why = lines[-1].rstrip(".") if lines else "no reason given"
        if process.returncode < 0:
            why = f"it was killed by signal {-process.returncode}"
        raise UserError(
            f"The exported model could not be scored again from disk: {why}.",
            where=folder,
            fix="Try again; --no-check exports it without that.",
        )
    if abs(last["wer"] - wer) > max(SAME, WORDS / max(1, last["words"])):
        raise UserError(
            f"The exported model is not the one that was chosen: its WER on dev is {last['wer']:.4f}, its trial's "
            f"{wer:.4f}.",
            where=folder,
            fix="See whether the dataset or the checkpoint has changed since; --no-check exports it all the same.",
        )
    return Checked(last["wer"], {name: Calibration(*of) for name, of in last["calibrations"].items()})


def _score(folder: Path, prepared: Path, part_s: float) -> dict[str, Any]:
    from hausa_asr.dataset.parts import dev_part
    from hausa_asr.dataset.prepared import split_of
    from hausa_asr.model.device import has_no_room, ready_device

    dev = dev_part(split_of(prepared, "dev"), part_s)
    try:
        return _scored(folder, dev, ready_device())
    except RuntimeError as error:
        if not has_no_room(error):  # a sweep may be using it
            raise
        return _scored(folder, dev, ready_device("cpu"))


def _scored(folder: Path, dev: Split, device: Any) -> dict[str, Any]:
    from hausa_asr.decoding.beam import BeamDecoder
    from hausa_asr.decoding.flashlight import is_installed
    from hausa_asr.decoding.path import greedy_paths, text_of, words_of
    from hausa_asr.metrics import right_words, wer
    from hausa_asr.model.evaluate import recording_logits
    from hausa_asr.model.wav2vec2 import load_model

    model, processor = load_model(str(folder))
    model.to(device)
    lm = BeamDecoder(folder / LM_FILE) if (folder / LM_FILE).is_file() and is_installed() else None
    sure: dict[str, list[tuple[list[float], list[bool]]]] = {GREEDY: [], WITH_LM: []}
    written, heard, seconds = [], [], 0.0
    for first in range(0, len(dev), _AT_ONCE):
        examples = [dev[index] for index in range(first, min(first + _AT_ONCE, len(dev)))]
        logits = recording_logits(model, processor, [example.samples for example in examples], whole_s=math.inf)
        paths = {GREEDY: greedy_paths(logits)}
        heard += [text_of(path) for path in paths[GREEDY]]
        written += [example.text for example in examples]
        if lm is not None and seconds < _WITH_LM_S:
            paths[WITH_LM] = lm.paths(logits)
        seconds += sum(len(example.samples) for example in examples) / SAMPLE_RATE
        for name, found in paths.items():
            for example, path, one in zip(examples, found, logits, strict=True):
                words = words_of(path, one)
                right = right_words(example.text, " ".join(word.text for word in words))
                sure[name].append(([word.confidence for word in words], right))
        print(json.dumps({"done": len(written), "of": len(dev)}), flush=True)
    known = {name: calibrated(utterances) for name, utterances in sure.items()}
    return {
        "wer": wer(written, heard),
        "words": sum(len(text.split()) for text in written),
        "calibrations": {name: one for name, one in known.items() if one is not None},
    }


if __name__ == "__main__":
    try:
        print(json.dumps(_score(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))))
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {first_line(error)}")

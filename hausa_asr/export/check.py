"""Score an exported folder again from disk, in a process of its own, and compare with what its trial had.

In: a folder and the dev split that its trial was scored on. Out: the WER, or an error if it is another. Called by
`best_model`; as a module it is that other process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hausa_asr.errors import UserError, first_line

SAME, WORDS = 0.01, 2
"""How far a WER may be off, or by how many words if that is more: a GPU and a CPU do not round alike."""


def check_export(folder: Path, prepared: Path, part_s: float, wer: float) -> float:
    """Score a folder on dev, and compare.

    Args:
        folder: an export, which may not be in its place yet.
        prepared: the prepared dataset of its trial.
        part_s: how much of dev the trial was scored on, in seconds of audio; 0 for all of it.
        wer: what the trial had.

    Returns:
        The WER of the folder.

    Raises:
        UserError: it can't be loaded, or its WER is another.
    """
    command = [sys.executable, "-m", "hausa_asr.export.check", str(folder), str(prepared), str(part_s)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        why = last[0].rstrip(".") if done.returncode > 0 else f"it was killed by signal {-done.returncode}"
        raise UserError(
            f"The exported model could not be scored again from disk: {why}.",
            where=folder,
            fix="Try again; --no-check exports it without that.",
        )
    scored = json.loads(done.stdout.splitlines()[-1])
    found = float(scored["wer"])
    if abs(found - wer) > max(SAME, WORDS / max(1, scored["words"])):
        raise UserError(
            f"The exported model is not the one that was chosen: its WER on dev is {found:.4f}, its trial's {wer:.4f}.",
            where=folder,
            fix="See whether the dataset or the checkpoint has changed since; --no-check exports it all the same.",
        )
    return found


def _score(folder: str, prepared: str, part_s: float) -> dict[str, float]:
    import torch

    from hausa_asr.dataset.parts import dev_part
    from hausa_asr.dataset.prepared import split_of
    from hausa_asr.model.evaluate import evaluate
    from hausa_asr.model.wav2vec2 import load_model

    model, processor = load_model(folder)
    dev = dev_part(split_of(Path(prepared), "dev"), part_s)
    try:
        model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type]
        report = evaluate(model, processor, dev)
    except torch.cuda.OutOfMemoryError:  # a sweep may be using it
        report = evaluate(model.to(torch.device("cpu")), processor, dev)  # type: ignore[arg-type]
    return {"wer": report.wer, "words": sum(len(text.split()) for text in report.references)}


if __name__ == "__main__":
    try:
        print(json.dumps(_score(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {first_line(error)}")

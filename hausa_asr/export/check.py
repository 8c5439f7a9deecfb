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

SAME = 0.01
"""WERs within this are the same: a GPU in bfloat16 and a CPU in float32 hear a word in a hundred differently at
most."""


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
        raise UserError(
            f"The exported model could not be scored again from disk: {last[0]}.", where=folder,
            fix="Try again; --no-check exports it without that.",
        )  # fmt: skip
    found = float(json.loads(done.stdout.splitlines()[-1])["wer"])
    if abs(found - wer) > SAME:
        raise UserError(
            f"The exported model is not the one that was chosen: its WER on dev is {found:.4f}, its trial's {wer:.4f}.",
            where=folder,
            fix="See whether the dataset or the checkpoint has changed since; --no-check exports it all the same.",
        )
    return found


def _score(folder: str, prepared: str, part_s: float) -> float:
    import torch

    from hausa_asr.dataset.parts import dev_part
    from hausa_asr.dataset.prepared import split_of
    from hausa_asr.model.evaluate import evaluate
    from hausa_asr.model.wav2vec2 import load_model

    model, processor = load_model(folder)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type]
    return evaluate(model, processor, dev_part(split_of(Path(prepared), "dev"), part_s)).wer


if __name__ == "__main__":
    try:
        print(json.dumps({"wer": _score(sys.argv[1], sys.argv[2], float(sys.argv[3]))}))
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {first_line(error)}")

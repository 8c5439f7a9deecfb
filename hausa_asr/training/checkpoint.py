"""A trial's checkpoints: folders that are complete or absent, and hold only the weights that changed.

A trial's folder holds one folder per kept checkpoint, such as `step-000120`: the newest to resume from, which has the
optimizer's state, and the best so far, to export. The state is twice as large as the weights, so it is written only
where a trial may have to go on (`saving`). Weights that no update has changed are only named, with their base
checkpoint and a digest, and `load` reads them from the base. Nothing else needs saving, since batches, masks and
dropout follow from the seed and the step. Called by the fine-tune, the export and the sweeps.

    weights.safetensors    the weights that differ from the base checkpoint
    config.json and the processor's files
    training.pt            the optimizer's state; in the newest checkpoint to resume from only
    base.json              the base checkpoint and the names of the weights taken from it
    progress.json          the report of this step; written last
    unscored.json          the same without scores, in its place where a machine was about to go: written before dev is
                           scored, so that the trial can go on even if that comes to no end
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.errors import UserError, first_line
from hausa_asr.model.base_check import base_path
from hausa_asr.quiet import quiet
from hausa_asr.recipe import CHECKPOINT, STEP_PREFIX, TRAINING

WEIGHTS = "weights.safetensors"
PROGRESS, UNSCORED = "progress.json", "unscored.json"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk.

    Attributes:
        folder: where it is.
        step: updates done.
        progress: its report.
        is_scored: the report has the scores of dev.
    """

    folder: Path
    step: int
    progress: dict[str, Any]
    is_scored: bool = True

    @property
    def is_end(self) -> bool:
        """Whether the trial ended here; then there is no state, since nothing is left to train."""
        return bool(self.progress.get("last"))

    def training_state(self) -> dict[str, Any]:
        """The optimizer's state, on the CPU; only the newest checkpoint to resume from has one."""
        return torch.load(self.folder / TRAINING, map_location="cpu", weights_only=True)


def load(folder: str | Path, base: str | None = None) -> tuple[Wav2Vec2ForCTC, Wav2Vec2Processor]:
    """Load a checkpoint's model, in `eval` mode, and its processor.

    Args:
        folder: the checkpoint's folder.
        base: its base checkpoint, if it was moved since.

    Raises:
        UserError: the checkpoint is incomplete, or its base checkpoint is gone or has other weights.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / CHECKPOINT).read_text(encoding="utf-8"))
        changed = load_file(folder / WEIGHTS)
        config = Wav2Vec2Config.from_json_file(folder / "config.json")
        processor = Wav2Vec2Processor.from_pretrained(folder)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(
            f"The checkpoint is not complete ({first_line(error).rstrip('.')}).",
            where=folder,
            fix="Give a checkpoint's folder (step-000120) with all of its files.",
        ) from error
    base = base or str(about["base"])
    try:
        with quiet():
            model = Wav2Vec2ForCTC.from_pretrained(
                base_path(base), config=config, dtype=torch.float32, ignore_mismatched_sizes=True
            )
    except (OSError, ValueError) as error:
        raise UserError(
            f"The checkpoint holds only the weights that changed, and its base checkpoint {base} cannot be loaded.",
            where=folder,
            fix="Put the base checkpoint back where it was, or download it to the hub's cache.",
        ) from error
    loaded: Any = model.load_state_dict(changed, strict=False)
    state = model.state_dict()
    frozen = {name: state[name] for name in about["frozen"] if name in state}
    if set(loaded.missing_keys) != set(about["frozen"]) or digest(frozen) != about["digest"]:
        raise UserError(
            f"The base checkpoint {base} is not the one that this checkpoint was trained from.",
            where=folder,
            fix="Use the base checkpoint of that time: the frozen weights are taken from it.",
        )
    return model.eval(), processor


def digest(weights: dict[str, torch.Tensor]) -> str:
    """A digest of named weights; their order does not matter."""
    hashed = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        hashed.update(name.encode())
        hashed.update(weights[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def all_checkpoints(trial: Path) -> list[Checkpoint]:
    """The complete checkpoints of a trial, oldest first."""
    complete = []
    for folder in sorted(trial.glob(f"{STEP_PREFIX}*")) if trial.is_dir() else []:
        report = next((folder / name for name in (PROGRESS, UNSCORED) if (folder / name).is_file()), None)
        if report is not None:
            step, progress = int(folder.name.removeprefix(STEP_PREFIX)), json.loads(report.read_text(encoding="utf-8"))
            complete.append(Checkpoint(folder, step, progress, is_scored=report.name == PROGRESS))
    return complete


def latest(trial: Path, until: int | None = None) -> Checkpoint | None:
    """The newest checkpoint that a trial can resume from, the one at its end among them; or None.

    Args:
        trial: the trial's folder.
        until: look only at steps up to here.
    """
    resumable = [
        one
        for one in all_checkpoints(trial)
        if ((one.folder / TRAINING).is_file() or one.is_end) and (until is None or one.step <= until)
    ]
    return resumable[-1] if resumable else None


def best(trial: Path) -> Checkpoint | None:
    """The checkpoint with the best dev WER so far, which the newest one names; or None."""
    complete = all_checkpoints(trial)
    if not complete:
        return None
    step = complete[-1].progress["best"].get("step")  # none before the first score
    return next((one for one in complete if one.step == step), None)

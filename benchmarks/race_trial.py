"""One trial of a race of sweeps: our own fine-tune for every contestant, and a line in a file for all that it does.

Imports nothing heavy at once, since Ray loads this file in processes that do not train. Puts the checkout on the path.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hausa_asr.recipe import Answer, FinetuneResult, Progress

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `sweeps` is the package, not the file beside this one

EVENTS_FILE = "events.jsonl"
FIRST_RUNG, REDUCTION = 0.2, 2
"""Where those that prune by WER look first, as a share of a trial's length, and how much further each time."""


def shared_task(world: str, settings: list[str], marks_s: list[float] | None = None) -> dict[str, Any]:
    """What all trials of a run have in common, as plain values.

    Args:
        world: the sweep's settings file.
        settings: what is set beyond it, `NAME=VALUE` each.
        marks_s: evaluations beyond those of the settings, in seconds of audio; None for those of a pruner.
    """
    from hausa_asr.recipe import CACHE, FEATURES
    from hausa_asr.settings.load import load, make_absolute
    from sweeps.pruning.rungs import rungs

    config = make_absolute(load(Path(world), settings, environment={}), in_job=False)
    recipe = asdict(config.recipe())
    return {
        "recipe": recipe,
        "base": config.model.base,
        "prepared": config.data.prepared,
        "folder": config.storage,
        "cache": str(Path(config.storage) / CACHE / FEATURES),
        "marks_s": rungs(recipe["length_s"], FIRST_RUNG, REDUCTION) if marks_s is None else marks_s,
    }


def train_trial(
    shared: dict[str, Any], name: str, settings: dict[str, Any], report: Callable[[Progress], Answer]
) -> FinetuneResult:
    """Fine-tune one trial on one thread, and write down when it began and each of its evaluations.

    Args:
        shared: from `shared_task`.
        name: the trial's name, and its folder's.
        settings: what the search chose.
        report: called after each evaluation, once that is written down; its answer says whether to go on.
    """
    import torch

    from hausa_asr.dataset.prepared import load_prepared
    from hausa_asr.recipe import FinetuneConfig, step_folder
    from hausa_asr.training.finetune import Data, finetune

    torch.set_num_threads(1)
    folder = Path(shared["folder"])

    def write(event: str, **fields: Any) -> None:
        with (folder / EVENTS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, "time": time.time(), "trial": name, **fields}) + "\n")

    def written(progress: Progress) -> Answer:
        scores = {key: progress.metrics[key] for key in ("wer", "cer", "loss")}
        place = step_folder(folder / "trials" / name, progress.step)  # which need not be there
        write("evaluated", **scores, checkpoint=str(place), last=progress.last)
        return report(progress)

    write("begun", settings=settings)
    data = load_prepared(Path(shared["prepared"]))
    return finetune(
        FinetuneConfig(**{**shared["recipe"], **settings}),
        Data(data.splits["train"], data.splits["dev"], data.fingerprint),
        written,
        base=shared["base"],
        folder=folder / "trials" / name,
        device=torch.device("cpu"),
        cache=Path(shared["cache"]),
        evaluate_at_s=shared["marks_s"],
    )

"""Find suspects by models that have not learnt from them: each part of a split is judged by a fine-tune of the others.

In: a recipe, a base checkpoint and a split. Out: suspects, as `suspects` finds them with one model. It costs a
fine-tune for each part. Called by `hausa-asr suspects --cross-fit`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from hausa_asr.dataset.parts import Part
from hausa_asr.diagnosis.suspects import Heard, Suspect, listen, suspicious
from hausa_asr.errors import UserError
from hausa_asr.recipe import Answer, FinetuneConfig, Progress
from hausa_asr.utterance import Split

Watch = Callable[[int, int, int], None]
"""Called with the number of the fine-tune, from 1 on, its update, and of how many."""


def cross_fitted(
    recipe: FinetuneConfig, base: str, split: Split, dev: Split, folds: int, watch: Watch = lambda fold, step, of: None
) -> tuple[list[Suspect], float]:
    """Find the suspects of a split, each judged by a model that has not seen it.

    Args:
        recipe: of each fine-tune; shorter as its data is less, so that they see each utterance as often.
        base: the checkpoint that each starts from.
        split: the train split of the recipe, N examples, at least two for each part.
        dev: chooses the best checkpoint of each.
        folds: how many parts, 2 or more.

    Raises:
        UserError: a fine-tune diverged, or the base can't be used.
    """
    from hausa_asr.model.device import ready_device
    from hausa_asr.training import checkpoint
    from hausa_asr.training.finetune import Data, finetune

    if len(split) < 2 * folds:
        raise UserError(f"{len(split)} utterances are too few for {folds} parts.", fix="Give a lower --cross-fit.")
    order = np.random.default_rng(0).permutation(len(split))
    written, heard, nats = [""] * len(split), [""] * len(split), np.zeros(len(split))
    device = ready_device()
    for fold in range(folds):
        judged = np.sort(order[fold::folds])
        others = np.setdiff1d(order, judged)
        share = float(np.asarray(split.n_samples)[others].sum() / np.asarray(split.n_samples).sum())

        def report(progress: Progress, number: int = fold + 1) -> Answer:
            watch(number, progress.step, progress.updates)
            return Answer.CONTINUE

        with tempfile.TemporaryDirectory(prefix="hausa-asr-cross-fit-") as folder:
            shorter = replace(recipe, length_s=share * recipe.length_s)
            ended = finetune(shorter, Data(Part(split, others), dev), report, base=base, folder=Path(folder))
            if ended.end == "diverged":
                raise UserError(
                    f"Fine-tune {fold + 1} of {folds} diverged.",
                    fix="Give a model that was trained by a milder recipe.",
                )
            model, processor = checkpoint.load(ended.progress.best_checkpoint)
        found = listen(model.to(device), processor, Part(split, judged))  # type: ignore[arg-type]
        del model  # before the next one needs the GPU
        for at, place in enumerate(judged.tolist()):
            written[place], heard[place], nats[place] = found.written[at], found.heard[at], found.nats[at]
    return suspicious(split, Heard(written, heard, nats))

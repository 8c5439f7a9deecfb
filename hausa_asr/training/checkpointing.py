"""What of a fine-tune is copied or written, and when: beside an evaluation, after it, and when the trial leaves.

In: a run and the report of its evaluation. Out: checkpoints, by `saving` and `states`. Called by `finetune`, on rank 0
where it does something.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch

from hausa_asr.recipe import Progress, step_folder
from hausa_asr.training.checkpoint_files import add_scores, remove_needless
from hausa_asr.training.run import Run
from hausa_asr.training.saving import Best, Saving
from hausa_asr.training.states import State


def begin(run: Run, at_rung: bool) -> Saving | Best:
    """Begin to write what has to be there when this evaluation is reported, else to copy what may be written."""
    if run.step == run.plan.updates:
        return _saving(run, state=False)
    of = run.folder, run.step, run.model, run.processor, run.optimizer, run.base, run.digests
    if run.states.due(anyway=at_rung):
        return run.states.begin(State(*of, weights=_beside_ema(run), kept=_kept(run), put=run.put))
    return Best(*of)


def keep(run: Run, copy: Best, progress: Progress) -> None:
    """Let a copy be completed if it is a state, and keep it in memory if it is the best so far."""
    before = run.unwritten if run.unwritten is not None and run.unwritten.step == run.best["step"] else None
    if isinstance(copy, State):
        if progress.diverged:
            run.states.abandon()
        copy.done(asdict(progress), before)
    elif run.best["step"] == run.step:
        copy.done(asdict(progress))
    else:
        copy.abandon()
    if run.best["step"] == run.step:
        run.unwritten = copy


def _saving(run: Run, state: bool) -> Saving:
    return Saving(
        run.folder, run.step, run.model, run.processor, run.optimizer, run.base,
        state=state, weights=_beside_ema(run) if state else None, kept=_kept(run), digests=run.digests,
    )  # fmt: skip


def _beside_ema(run: Run) -> dict[str, torch.Tensor] | None:
    return run.ema.others() if run.ema else None


def _kept(run: Run) -> list[dict[str, Any]]:
    return run.mean.kept if run.mean else []


def write_best(run: Run) -> None:
    """Write the best checkpoint so far, if it is not on disk."""
    if run.unwritten is not None and run.unwritten.step == run.best["step"]:
        run.unwritten.write()
        remove_needless(run.folder, run.step, run.unwritten.step)
    run.unwritten = None


def write_unscored(run: Run, progress: Progress) -> None:
    """Write and put what the trial goes on from elsewhere, before dev is scored: the machine may be gone by then."""
    finish(run, _saving(run, state=not progress.last), progress, is_scored=False)


def write_scores(run: Run, progress: Progress) -> None:
    """Put the scores into the checkpoint of this step, which was written without."""
    add_scores(step_folder(run.folder, run.step), asdict(progress))
    remove_needless(run.folder, run.step, int(run.best["step"]))
    run.put()


def finish(run: Run, saving: Saving, progress: Progress, *, is_scored: bool = True) -> None:
    """Wait until all is written and put: what is on its way, the best, and this checkpoint."""
    try:
        run.states.finish()
        if run.unwritten is not None and run.unwritten.step != run.step:
            write_best(run)  # first: whoever resumes from this one needs it
    except BaseException:
        saving.abandon()
        raise
    saving.finish(asdict(progress), int(run.best["step"]) if run.best else None, is_scored=is_scored)
    run.unwritten = None
    run.put()
    run.states.written(run.step, saving.took_s)


def make_resumable(run: Run, progress: Progress) -> None:
    """Write a checkpoint to resume from at this step, if it has none; before it the best, which is a third as large."""
    run.states.finish()
    if run.share.rank == 0 and run.states.newest != run.step:
        write_best(run)
        finish(run, _saving(run, state=True), progress)


def named(run: Run, progress: Progress) -> Progress:
    """The report with the newest checkpoint that is complete by now."""
    newest = run.states.newest
    return replace(progress, checkpoint=str(step_folder(run.folder, newest)) if newest else "")

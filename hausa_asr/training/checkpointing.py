"""What of a fine-tune is copied or written, and when: beside an evaluation, after it, and when the trial leaves.

In: a run and the report of its evaluation. Out: checkpoints, by `saving` and `states`. Called by `finetune`, on rank 0
where it does something.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from hausa_asr.recipe import Progress, step_folder
from hausa_asr.training.checkpoint_files import remove_needless
from hausa_asr.training.run import Run
from hausa_asr.training.saving import Best, Saving
from hausa_asr.training.states import State


def begin(run: Run, hurried: bool, at_rung: bool) -> Saving | Best:
    """Begin to write what has to be there when this evaluation is reported, else to copy what may be written."""
    ends = run.step == run.plan.updates
    if ends or hurried:
        return _saving(run, state=not ends)
    of = run.folder, run.step, run.model, run.processor, run.optimizer, run.base, run.digests
    if run.states.due(anyway=at_rung):
        return run.states.begin(State(*of, weights=run.ema.others() if run.ema else None, put=run.put))
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
    weights = run.ema.others() if run.ema and state else None
    return Saving(
        run.folder, run.step, run.model, run.processor, run.optimizer, run.base,
        state=state, weights=weights, digests=run.digests,
    )  # fmt: skip


def write_best(run: Run) -> None:
    """Write the best checkpoint so far, if it is not on disk."""
    if run.unwritten is not None and run.unwritten.step == run.best["step"]:
        run.unwritten.write()
        remove_needless(run.folder, run.step, run.unwritten.step)
    run.unwritten = None


def finish(run: Run, saving: Saving, progress: Progress) -> None:
    """Wait until all is written and put: what is on its way, the best, and this checkpoint."""
    try:
        run.states.finish()
        if run.unwritten is not None and run.unwritten.step != run.step:
            write_best(run)  # first: whoever resumes from this one needs it
    except BaseException:
        saving.abandon()
        raise
    saving.finish(asdict(progress), int(run.best["step"]))
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
